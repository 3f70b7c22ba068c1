"""Many people act concurrently over HTTP, against the production server with several processes.

Losers get a typed refusal with status 200; no seat is oversold, nobody is in two plans, and no line
in the server's log mentions a lock. Each race runs once, on SQLite and, where TEST_DATABASE_URL
names a server, on PostgreSQL. To run them more often:
RACE_ROUNDS=20 .venv/bin/pytest tests/test_production_races.py
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any
from urllib.parse import urlencode

import constance
import pytest
from django.conf import settings
from django.contrib.auth.models import Permission, User
from django.db import transaction
from django.utils import timezone

from plans.models import FamilyPlan, FamilyPlanInvite, Membership
from tests.api import node_id
from tests.factories import InviteFactory, MembershipFactory, OwnerFactory, UserFactory
from tests.production import OK, Production, at_once, check_promises
from tests.questions import seats_taken
from tests.server import Answer

ROUNDS = int(os.environ.get("RACE_ROUNDS", "1"))
CROWD = 20
SETTINGS_PAGE = "/admin/plans/config/"

Journey = Callable[[], tuple[str, dict[str, Any]]]


@pytest.fixture(params=range(ROUNDS))
def _round() -> None:
    """Run a race several times."""


@pytest.fixture(autouse=True)
def _promises(_round: None, production: Production) -> Iterator[None]:
    """Check the promises after each race."""
    yield
    check_promises()


def race(*journeys: Journey) -> Counter[str]:
    return Counter(code for code, _ in at_once(journeys))


def owned_plan(*, seats: int, members: int = 0) -> tuple[FamilyPlan, User]:
    owner = OwnerFactory(family_plan__user_limit=seats)
    MembershipFactory.create_batch(members, family_plan=owner.family_plan)
    return owner.family_plan, owner.user


def tokens_of(plan: FamilyPlan, count: int) -> list[str]:
    """Create open invites, and return their tokens."""
    tokens = [f"{plan.pk:020d}{n:023d}" for n in range(count)]
    for token in tokens:
        InviteFactory(family_plan=plan, token=token)
    return tokens


def crowd(production: Production, count: int = CROWD) -> list[str]:
    """Sign people in, and return their session tokens."""
    return [production.server.session_of(UserFactory()) for _ in range(count)]


def test_many_invites_for_the_last_two_seats(production: Production) -> None:
    plan, owner = owned_plan(seats=5, members=2)
    session = production.server.session_of(owner)
    create = partial(production.server.mutate, session, "createInvite", planId=node_id(plan))

    codes = race(*[create] * CROWD)

    # a request that finds no place to wait for Zammad is refused at once
    assert codes[OK] == 2
    assert codes["PLAN_FULL"] + codes["INVITE_TOKEN_UNAVAILABLE"] == CROWD - 2
    assert seats_taken(plan, now=timezone.now()) == 5
    # each sent Zammad one request at most; reconcile_invites removes tokens without an invite
    assert 2 <= len(production.zammad.calls) <= CROWD


def test_many_people_on_one_token(production: Production) -> None:
    plan, _ = owned_plan(seats=100)
    [token] = tokens_of(plan, 1)
    sessions = crowd(production)

    codes = race(*[partial(production.server.mutate, s, "acceptInvite", token=token) for s in sessions])

    assert codes == {OK: 1, "INVITE_ALREADY_USED": CROWD - 1}
    assert plan.memberships.count() == 2


def test_many_people_for_the_last_seat(production: Production) -> None:
    # given more open invites than seats, as after a limit was lowered
    plan, _ = owned_plan(seats=3, members=1)
    entries = zip(crowd(production), tokens_of(plan, CROWD), strict=True)

    codes = race(*[partial(production.server.mutate, s, "acceptInvite", token=t) for s, t in entries])

    assert codes == {OK: 1, "PLAN_FULL": CROWD - 1}
    assert plan.memberships.count() == 3


def test_one_person_with_many_plans_to_join(production: Production) -> None:
    session = production.server.session_of(UserFactory())
    tokens = [tokens_of(owned_plan(seats=5)[0], 1)[0] for _ in range(CROWD)]

    codes = race(*[partial(production.server.mutate, session, "acceptInvite", token=t) for t in tokens])

    assert codes == {OK: 1, "ALREADY_IN_PLAN": CROWD - 1}


def test_one_person_who_creates_plans_and_joins_others(production: Production) -> None:
    person = UserFactory()
    person.user_permissions.add(Permission.objects.get(codename="add_familyplan"))
    session = production.server.session_of(person)
    tokens = [tokens_of(owned_plan(seats=5)[0], 1)[0] for _ in range(CROWD // 2)]
    create = partial(production.server.mutate, session, "createPlan", name="Mine")

    codes = race(
        *[partial(production.server.mutate, session, "acceptInvite", token=t) for t in tokens],
        *[create] * (CROWD // 2),
    )

    assert codes == {OK: 1, "ALREADY_IN_PLAN": CROWD - 1}
    assert Membership.objects.filter(user=person).count() == 1


def test_people_who_accept_while_members_are_detached(production: Production) -> None:
    # given a full plan whose members leave at the moment others want their seats
    plan, owner = owned_plan(seats=6, members=5)
    session = production.server.session_of(owner)
    members = plan.memberships.filter(role=Membership.Role.MEMBER)
    entries = zip(crowd(production), tokens_of(plan, CROWD), strict=True)

    codes = race(
        *[
            partial(production.server.mutate, session, "detachMember", membershipId=node_id(member))
            for member in members
        ],
        *[partial(production.server.mutate, s, "acceptInvite", token=t) for s, t in entries],
    )

    # then all five left, and at most as many joined
    assert codes[OK] + codes["PLAN_FULL"] == CROWD + 5
    assert plan.memberships.count() == 1 + codes[OK] - 5 <= 6


def test_a_person_who_is_detached_does_not_come_back_by_the_old_link(production: Production) -> None:
    # given a member who presses the button again, while the owner detaches them
    plan, owner = owned_plan(seats=5)
    person = UserFactory()
    member = MembershipFactory(family_plan=plan, user=person)
    InviteFactory(family_plan=plan, user=person, token="t" * 43)
    session = production.server.session_of(person)
    detach = partial(
        production.server.mutate,
        production.server.session_of(owner),
        "detachMember",
        membershipId=node_id(member),
    )

    codes = race(detach, *[partial(production.server.mutate, session, "acceptInvite", token="t" * 43)] * 10)

    assert codes[OK] + codes["INVITE_EXPIRED"] == 11
    assert not Membership.objects.filter(user=person).exists()
    assert not FamilyPlanInvite.objects.filter(is_used=True).exists()


def test_an_invite_is_accepted_or_revoked_or_reissued(production: Production) -> None:
    plan, owner = owned_plan(seats=100)
    [token] = tokens_of(plan, 1)
    invite = plan.invites.get()
    session = production.server.session_of(owner)
    revoke = partial(production.server.mutate, session, "revokeInvite", inviteId=node_id(invite))
    reissue = partial(production.server.mutate, session, "reissueInvite", inviteId=node_id(invite))
    sessions = crowd(production, 10)

    answers = at_once(
        [
            *[partial(production.server.mutate, s, "acceptInvite", token=token) for s in sessions],
            revoke,
            reissue,
            reissue,
        ]
    )

    accepted = Counter(code for code, _ in answers[:10])
    expected = {OK, "INVITE_ALREADY_USED", "INVITE_EXPIRED", "INVITE_NOT_FOUND"}
    assert set(accepted) <= expected
    assert accepted[OK] == plan.memberships.count() - 1 <= 1
    assert {code for code, _ in answers[10:]} <= {OK, "INVITE_ALREADY_USED"}
    # then the link returned last opens the invite, unless it is used or revoked
    invite.refresh_from_db()
    assert invite.is_used == (accepted[OK] == 1)


def test_a_plan_is_closed_or_joined(production: Production) -> None:
    plan, owner = owned_plan(seats=100)
    close = partial(
        production.server.mutate, production.server.session_of(owner), "closePlan", planId=node_id(plan)
    )
    entries = zip(crowd(production), tokens_of(plan, CROWD), strict=True)

    answers = at_once(
        [
            *[partial(production.server.mutate, s, "acceptInvite", token=t) for s, t in entries],
            close,
        ]
    )

    plan.refresh_from_db()
    accepted = Counter(code for code, _ in answers[:-1])
    if plan.closed_at:
        assert answers[-1][0] == OK
        assert accepted == {"INVITE_EXPIRED": CROWD}
    else:
        assert answers[-1][0] == "PLAN_NOT_EMPTY"
        assert accepted == {OK: CROWD}


def test_a_limit_that_is_lowered_while_people_accept_binds_from_that_moment(production: Production) -> None:
    plan, _ = owned_plan(seats=100)
    entries = list(zip(crowd(production), tokens_of(plan, CROWD), strict=True))
    accept = [partial(production.server.mutate, s, "acceptInvite", token=t) for s, t in entries]

    # when the limit is lowered in the middle of them
    with ThreadPoolExecutor(1) as pool:
        arriving = pool.submit(race, *accept)
        with transaction.atomic():
            locked = FamilyPlan.objects.select_for_update().get(pk=plan.pk)
            seated = locked.memberships.count()
            locked.user_limit = 5
            locked.save()
        codes = arriving.result()

    # then nobody took a seat after it who did not fit
    assert codes[OK] + codes["PLAN_FULL"] == CROWD
    assert plan.memberships.count() == 1 + codes[OK] == max(5, seated)
    FamilyPlan.objects.filter(pk=plan.pk).update(user_limit=100)  # the limit that lets them all fit


def test_the_setting_is_lowered_on_its_page_while_people_accept(production: Production) -> None:
    # given a plan without a limit of its own
    plan, _ = owned_plan(seats=5)
    FamilyPlan.objects.filter(pk=plan.pk).update(user_limit=None)
    constance.config.USER_LIMIT = 50
    save = settings_form(production, UserFactory(is_staff=True, is_superuser=True), USER_LIMIT="4")
    *entries, (late, unused) = zip(crowd(production, CROWD + 1), tokens_of(plan, CROWD + 1), strict=True)

    saved, *answers = at_once(
        [save, *[partial(production.server.mutate, s, "acceptInvite", token=t) for s, t in entries]]
    )

    codes = Counter(code for code, _ in answers)
    assert saved.status == 302
    assert constance.config.USER_LIMIT == 4
    assert codes[OK] + codes["PLAN_FULL"] == CROWD
    assert plan.memberships.count() == 1 + codes[OK] >= 4
    # and from here on nobody fits
    assert production.server.mutate(late, "acceptInvite", token=unused)[0] == "PLAN_FULL"


def settings_form(production: Production, admin: User, **changes: str) -> Callable[[], Answer]:
    """Open the page of the settings, and return a function that saves its form with changes."""
    cookie = f"{settings.SESSION_COOKIE_NAME}={production.server.session_of(admin)}"
    page = production.server.get(SETTINGS_PAGE, Cookie=cookie)
    values = {
        found["name"]: found.get("value", "on")
        for tag in re.findall(r"<input [^>]+>", page.body.decode())
        if (found := dict(re.findall(r'(\w+)="([^"]*)"', tag))).get("type") != "checkbox" or "checked" in tag
        if "name" in found
    }
    assert values.keys() >= changes.keys(), page.body
    csrf = re.search(f"{settings.CSRF_COOKIE_NAME}=([^;]+)", page.headers["Set-Cookie"])
    assert csrf
    headers = {
        "Cookie": f"{cookie}; {settings.CSRF_COOKIE_NAME}={csrf[1]}",
        "Content-Type": "application/x-www-form-urlencoded",
    }
    body = urlencode({**values, **changes}).encode()
    return lambda: production.server.request("POST", SETTINGS_PAGE, body, headers)
