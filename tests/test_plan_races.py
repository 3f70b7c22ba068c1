"""Ten people do something concurrently: seats are never oversold, and losers get a refusal.

Every race starts its threads at a barrier, each with a database connection of its own. On
PostgreSQL the rows are locked; on SQLite a transaction locks everything. Each race runs twice;
to run it more often: RACE_ROUNDS=50 .venv/bin/pytest tests/test_plan_races.py
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any
from unittest import mock

import constance
import pytest
from django.contrib.auth.models import User
from django.core import mail
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import connection, transaction
from django.db.models import Count, F, Q
from django.utils import timezone

from plans.models import FamilyPlan, FamilyPlanInvite, Membership, PlanEvent
from plans.services import (
    accept_invite,
    close_plan,
    create_invite,
    create_plan,
    detach_member,
    reissue_invite,
    revoke_invite,
    transfer_ownership,
)
from tests.factories import InviteFactory, MembershipFactory, OwnerFactory, UserFactory
from tests.questions import seats_taken
from tests.refusals import reasons
from zammad.sandbox import Sandbox

pytestmark = pytest.mark.django_db(transaction=True)

ROUNDS = int(os.environ.get("RACE_ROUNDS", "2"))
TEN = 10
OK = "OK"


def race(*journeys: Callable[[], object]) -> list[str]:
    """Run services concurrently, and list how each ended: OK or the code of its refusal.

    Anything else that a service raises (a deadlock, a locked database) fails the test.
    """
    barrier = threading.Barrier(len(journeys))

    def run(journey: Callable[[], object]) -> str:
        try:
            connection.ensure_connection()
            barrier.wait(timeout=30)
            journey()
        except (ValidationError, PermissionDenied) as refusal:
            [(_, code)] = reasons(refusal)
            return code
        else:
            return OK
        finally:
            connection.close()

    with ThreadPoolExecutor(len(journeys)) as pool:
        return list(pool.map(run, journeys))


def people(count: int) -> list[User]:
    return [UserFactory() for _ in range(count)]


def until_somebody_waits_for_a_lock(*, unless: Future[list[str]]) -> None:
    """Return once a statement of this database waits for a row that another transaction holds."""
    waiting = """SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock'"""
    while not unless.done():
        with connection.cursor() as cursor:
            cursor.execute(waiting)
            if cursor.fetchone()[0]:
                return
    pytest.fail("Nobody waited.")


def owned_plan(*, seats: int, members: int = 0) -> tuple[FamilyPlan, User]:
    """Create a plan with a limit, its owner and some members."""
    owner = OwnerFactory(family_plan__user_limit=seats)
    MembershipFactory.create_batch(members, family_plan=owner.family_plan)
    return owner.family_plan, owner.user


def invites(plan: FamilyPlan, tokens: Sequence[str]) -> None:
    for token in tokens:
        InviteFactory(family_plan=plan, token=token)


@pytest.fixture(params=range(ROUNDS))
def _rounds() -> None:
    """Run a race several times."""


@pytest.fixture(autouse=True)
def _promises(_rounds: None, transactional_db: None) -> Iterator[None]:
    """Check after each race what must never happen."""
    yield
    now = timezone.now()
    for plan in FamilyPlan.objects.all():
        if plan.user_limit:
            assert plan.memberships.count() <= plan.user_limit
        owners = plan.memberships.filter(role=Membership.Role.OWNER).count()
        assert owners == (0 if plan.closed_at else 1)
        if plan.closed_at:
            assert seats_taken(plan, now=now) == 0
    assert not User.objects.annotate(seats=Count("membership")).filter(seats__gt=1).exists()
    # a used invite has its person, in this very plan
    orphans = FamilyPlanInvite.objects.exclude(user=None).exclude(
        user__membership__family_plan=F("family_plan")
    )
    assert not orphans.exists()
    torn = Q(user=None, is_used=True) | Q(user__isnull=False, is_used=False)
    assert not FamilyPlanInvite.objects.filter(torn).exists()


# --- The last seat -----------------------------------------------------------------------------


def test_ten_invites_for_the_last_seat(sandbox: Sandbox) -> None:
    plan, owner = owned_plan(seats=4, members=2)

    ends = race(*[lambda: create_invite(actor=owner, plan_id=plan.pk)] * TEN)

    assert Counter(ends) == {OK: 1, "PLAN_FULL": 9}
    assert seats_taken(plan, now=timezone.now()) == 4
    # Zammad was asked once by each that saw a free seat
    assert 1 <= len(sandbox.calls) <= TEN


def test_ten_invites_for_one_address(sandbox: Sandbox) -> None:
    plan, owner = owned_plan(seats=100)

    ends = race(*[lambda: create_invite(actor=owner, plan_id=plan.pk, email="dave@example.com")] * TEN)

    assert Counter(ends) == {OK: 1, "ALREADY_INVITED": 9}


def test_ten_plans_mail_one_address(sandbox: Sandbox) -> None:
    seats = OwnerFactory.create_batch(TEN)

    ends = race(
        *(
            partial(create_invite, actor=seat.user, plan_id=seat.family_plan_id, email="dave@example.com")
            for seat in seats
        )
    )

    assert ends == [OK] * TEN
    became = Counter(FamilyPlanInvite.objects.values_list("mail_status", flat=True))
    assert became == {"SENT": 3, "SKIPPED": 7}
    assert len(mail.outbox) == 3


def test_ten_invites_at_the_end_of_the_day(sandbox: Sandbox) -> None:
    constance.config.INVITES_PER_DAY = 3
    plan, owner = owned_plan(seats=100)

    ends = race(*[lambda: create_invite(actor=owner, plan_id=plan.pk)] * TEN)

    assert Counter(ends) == {OK: 3, "INVITE_LIMIT_REACHED": 7}


def test_a_day_that_one_person_spends_on_plan_after_plan(sandbox: Sandbox) -> None:
    # given more attempts than a day allows, each in whichever plan is theirs at that moment
    constance.config.SELF_SERVICE_PLANS = True
    constance.config.PLANS_PER_DAY = constance.config.USER_LIMIT = 100
    constance.config.INVITES_PER_DAY = 4
    _, owner = owned_plan(seats=100)

    def invite() -> None:
        seat = Membership.objects.filter(user=owner).first()
        create_invite(actor=owner, plan_id=seat.family_plan_id if seat else 0)

    def start_anew() -> None:
        seat = Membership.objects.filter(user=owner).first()
        if seat:
            close_plan(actor=owner, plan_id=seat.family_plan_id)
        create_plan(actor=owner, name="Another")

    invite()
    start_anew()

    for _ in range(3):
        ends = race(*[invite] * 6, *[start_anew] * 4)
        assert set(ends[:6]) <= {OK, "INVITE_LIMIT_REACHED", "PLAN_NOT_FOUND"}
        assert set(ends[6:]) <= {OK, "ALREADY_IN_PLAN", "PLAN_NOT_FOUND"}

    assert FamilyPlanInvite.objects.count() <= 4
    # and what is left of the day is left, in the current plan
    for _ in range(4 - FamilyPlanInvite.objects.count()):
        invite()
    assert race(*[invite] * TEN) == ["INVITE_LIMIT_REACHED"] * TEN


@pytest.mark.postgresql
def test_closing_waits_for_an_invite_that_is_being_issued(sandbox: Sandbox) -> None:
    # given an owner whose last invite of the day is written, but not committed
    constance.config.SELF_SERVICE_PLANS = True
    constance.config.INVITES_PER_DAY = 1
    plan, owner = owned_plan(seats=100)
    written, wait = threading.Event(), threading.Event()
    create = PlanEvent.objects.create

    def create_and_linger(**values: Any) -> PlanEvent:
        event = create(**values)
        if values["kind"] == PlanEvent.Kind.INVITE_CREATED:
            written.set()
            wait.wait(timeout=30)
        return event

    def start_anew_and_invite() -> None:
        close_plan(actor=owner, plan_id=plan.pk)
        anew = create_plan(actor=owner, name="Another")
        create_invite(actor=owner, plan_id=anew.pk)

    with mock.patch.object(PlanEvent.objects, "create", create_and_linger), ThreadPoolExecutor(2) as pool:
        issuing = pool.submit(race, partial(create_invite, actor=owner, plan_id=plan.pk))
        assert written.wait(timeout=30)
        starting = pool.submit(race, start_anew_and_invite)
        try:
            until_somebody_waits_for_a_lock(unless=starting)
        finally:
            wait.set()

        assert issuing.result(timeout=30) == [OK]
        assert starting.result(timeout=30) == ["INVITE_LIMIT_REACHED"]


def test_a_day_of_plans_of_ones_own() -> None:
    constance.config.SELF_SERVICE_PLANS = True
    constance.config.PLANS_PER_DAY = 3
    [person] = people(1)

    def start_anew() -> None:
        seat = Membership.objects.filter(user=person).first()
        if seat:
            close_plan(actor=person, plan_id=seat.family_plan_id)
        create_plan(actor=person, name="Another")

    ends: list[str] = []
    while "PLAN_LIMIT_REACHED" not in ends:
        ends += race(*[start_anew] * TEN)

    assert ends.count(OK) == 3
    assert FamilyPlan.objects.count() == 3


def test_ten_people_accept_for_the_last_seat() -> None:
    # given more open invites than seats, as after a limit was lowered
    plan, _ = owned_plan(seats=3, members=1)
    tokens = [f"{n:043d}" for n in range(TEN)]
    invites(plan, tokens)

    ends = race(
        *(
            lambda person=person, token=token: accept_invite(actor=person, token=token)
            for person, token in zip(people(TEN), tokens, strict=True)
        )
    )

    assert Counter(ends) == {OK: 1, "PLAN_FULL": 9}
    assert plan.memberships.count() == 3


def test_the_limit_is_lowered_while_ten_people_accept() -> None:
    plan, _ = owned_plan(seats=TEN + 1)
    tokens = [f"{n:043d}" for n in range(TEN)]
    invites(plan, tokens)

    def lower() -> None:
        FamilyPlan.objects.filter(pk=plan.pk).update(user_limit=4)

    ends = race(
        lower,
        *(
            lambda person=person, token=token: accept_invite(actor=person, token=token)
            for person, token in zip(people(TEN), tokens, strict=True)
        ),
    )

    assert set(ends) <= {OK, "PLAN_FULL"}
    seated = plan.memberships.count()
    assert seated == 1 + ends[1:].count(OK)
    # people seated before the limit fell stay; nobody was seated after it
    assert seated >= 4
    FamilyPlan.objects.filter(pk=plan.pk).update(user_limit=TEN + 1)


# --- One token ---------------------------------------------------------------------------------


def test_ten_people_on_one_token() -> None:
    plan, _ = owned_plan(seats=20)
    invites(plan, ["t" * 43])
    ten = people(TEN)

    ends = race(*(lambda person=person: accept_invite(actor=person, token="t" * 43) for person in ten))

    assert Counter(ends) == {OK: 1, "INVITE_ALREADY_USED": 9}
    assert plan.invites.get().user == ten[ends.index(OK)]


def test_one_person_ten_times_on_one_token() -> None:
    plan, _ = owned_plan(seats=20)
    invites(plan, ["t" * 43])
    [person] = people(1)

    ends = race(*[lambda: accept_invite(actor=person, token="t" * 43)] * TEN)

    assert ends == [OK] * TEN
    assert plan.memberships.count() == 2
    assert plan.events.count() == 1


def test_accept_against_revoke_and_reissue(sandbox: Sandbox) -> None:
    plan, owner = owned_plan(seats=20)
    invites(plan, ["t" * 43])
    invite = plan.invites.get()
    ten = people(TEN - 2)

    ends = race(
        lambda: revoke_invite(actor=owner, invite_id=invite.pk),
        lambda: reissue_invite(actor=owner, invite_id=invite.pk),
        *(lambda person=person: accept_invite(actor=person, token="t" * 43) for person in ten),
    )

    assert ends[0] in {OK, "INVITE_ALREADY_USED"}
    assert ends[1] in {OK, "INVITE_ALREADY_USED"}
    assert set(ends[2:]) <= {OK, "INVITE_ALREADY_USED", "INVITE_EXPIRED", "INVITE_NOT_FOUND"}
    invite.refresh_from_db()
    assert ends[2:].count(OK) == (1 if invite.user else 0)
    if invite.user:
        assert ends[1] == "INVITE_ALREADY_USED"


# --- One person ----------------------------------------------------------------------------------


def test_ten_plans_for_one_person() -> None:
    constance.config.SELF_SERVICE_PLANS = True
    [person] = people(1)

    ends = race(*[lambda: create_plan(actor=person, name="Mine")] * TEN)

    assert Counter(ends) == {OK: 1, "ALREADY_IN_PLAN": 9}
    assert FamilyPlan.objects.count() == 1


def test_one_person_accepts_into_ten_plans() -> None:
    [person] = people(1)
    tokens = [f"{n:043d}" for n in range(TEN)]
    for token in tokens:
        invites(owned_plan(seats=5)[0], [token])

    ends = race(*(lambda token=token: accept_invite(actor=person, token=token) for token in tokens))

    assert Counter(ends) == {OK: 1, "ALREADY_IN_PLAN": 9}


def test_creating_a_plan_against_accepting_for_one_person() -> None:
    constance.config.SELF_SERVICE_PLANS = True
    [person] = people(1)
    plan, _ = owned_plan(seats=5)
    invites(plan, ["t" * 43])

    ends = race(
        *[lambda: create_plan(actor=person, name="Mine")] * 5,
        *[lambda: accept_invite(actor=person, token="t" * 43)] * 5,
    )

    # accepting again is a success, when accepting has won
    assert Counter(ends) in ({OK: 1, "ALREADY_IN_PLAN": 9}, {OK: 5, "ALREADY_IN_PLAN": 5})
    assert Membership.objects.filter(user=person).count() == 1


# --- Coming and going ------------------------------------------------------------------------------


def test_accept_against_detach() -> None:
    # given a full plan, one of whose seats is about to be free
    plan, owner = owned_plan(seats=2, members=1)
    leaver = plan.memberships.get(role=Membership.Role.MEMBER)
    InviteFactory(family_plan=plan, user=leaver.user)
    tokens = [f"{n:043d}" for n in range(TEN - 2)]
    invites(plan, tokens)

    ends = race(
        lambda: detach_member(actor=owner, membership_id=leaver.pk),
        lambda: detach_member(actor=leaver.user, membership_id=leaver.pk),
        *(
            lambda person=person, token=token: accept_invite(actor=person, token=token)
            for person, token in zip(people(len(tokens)), tokens, strict=True)
        ),
    )

    assert sorted(ends[:2]) == ["MEMBERSHIP_NOT_FOUND", OK]
    assert set(ends[2:]) <= {OK, "PLAN_FULL"}
    assert ends[2:].count(OK) <= 1
    assert not Membership.objects.filter(user=leaver.user).exists()


def test_accepting_again_against_being_detached() -> None:
    plan, owner = owned_plan(seats=5)
    invites(plan, ["t" * 43])
    [person] = people(1)
    membership = accept_invite(actor=person, token="t" * 43).membership

    ends = race(
        lambda: detach_member(actor=owner, membership_id=membership.pk),
        *[lambda: accept_invite(actor=person, token="t" * 43)] * (TEN - 1),
    )

    assert ends[0] == OK
    assert set(ends[1:]) <= {OK, "INVITE_EXPIRED"}
    assert not Membership.objects.filter(user=person).exists()


def test_close_against_accept_and_create(sandbox: Sandbox) -> None:
    plan, owner = owned_plan(seats=20)
    tokens = [f"{n:043d}" for n in range(6)]
    invites(plan, tokens)

    ends = race(
        *[lambda: close_plan(actor=owner, plan_id=plan.pk)] * 2,
        *[lambda: create_invite(actor=owner, plan_id=plan.pk)] * 2,
        *(
            lambda person=person, token=token: accept_invite(actor=person, token=token)
            for person, token in zip(people(6), tokens, strict=True)
        ),
    )

    assert set(ends[:2]) <= {OK, "PLAN_NOT_EMPTY", "PLAN_NOT_FOUND"}
    assert set(ends[2:4]) <= {OK, "PLAN_NOT_FOUND"}
    assert set(ends[4:]) <= {OK, "INVITE_EXPIRED"}
    plan.refresh_from_db()
    assert bool(plan.closed_at) == (OK in ends[:2])
    if plan.closed_at:
        assert ends[4:] == ["INVITE_EXPIRED"] * 6


def test_transfer_against_detach() -> None:
    plan, owner = owned_plan(seats=20, members=3)
    first, second, third = plan.memberships.filter(role=Membership.Role.MEMBER)

    ends = race(
        lambda: transfer_ownership(actor=owner, membership_id=first.pk),
        lambda: detach_member(actor=owner, membership_id=first.pk),
        lambda: transfer_ownership(actor=owner, membership_id=second.pk),
        lambda: detach_member(actor=owner, membership_id=second.pk),
        lambda: transfer_ownership(actor=owner, membership_id=third.pk),
        lambda: detach_member(actor=third.user, membership_id=third.pk),
    )

    assert set(ends) <= {OK, "PERMISSION_DENIED", "MEMBERSHIP_NOT_FOUND", "OWNER_CANNOT_BE_DETACHED"}
    assert [ends[0], ends[2], ends[4]].count(OK) <= 1
    assert ends.count(OK) >= 1


def test_everything_at_once_in_two_plans_ends_without_a_deadlock(sandbox: Sandbox) -> None:
    # given people who are wanted in both plans
    one, ones_owner = owned_plan(seats=4)
    two, twos_owner = owned_plan(seats=4)
    wanted = people(4)
    for plan, start in ((one, 0), (two, 10)):
        invites(plan, [f"{start + n:043d}" for n in range(4)])

    ends = race(
        *(lambda n=n: accept_invite(actor=wanted[n], token=f"{n:043d}") for n in range(4)),
        *(lambda n=n: accept_invite(actor=wanted[n], token=f"{10 + n:043d}") for n in range(4)),
        *(
            lambda invite=invite, owner=owner: revoke_invite(actor=owner, invite_id=invite.pk)
            for owner, plan in ((ones_owner, one), (twos_owner, two))
            for invite in plan.invites.all()[:1]
        ),
        *(
            lambda invite=invite, owner=owner: reissue_invite(actor=owner, invite_id=invite.pk)
            for owner, plan in ((ones_owner, one), (twos_owner, two))
            for invite in plan.invites.all()[1:2]
        ),
    )

    assert set(ends) <= {
        OK,
        "ALREADY_IN_PLAN",
        "PLAN_FULL",
        "INVITE_EXPIRED",
        "INVITE_NOT_FOUND",
        "INVITE_ALREADY_USED",
    }
    assert Membership.objects.filter(user__in=wanted).count() == ends[:8].count(OK)


# --- The locks themselves -----------------------------------------------------------------------------


@pytest.mark.postgresql
def test_the_lock_of_one_plan_holds_up_no_other() -> None:
    plan, _ = owned_plan(seats=5)
    other, _ = owned_plan(seats=5)
    invites(plan, ["t" * 43])
    invites(other, ["u" * 43])
    waiter, goer = people(2)
    held, done = threading.Event(), threading.Event()
    ends: list[str] = []

    def hold() -> None:
        with transaction.atomic():
            FamilyPlan.objects.select_for_update().get(pk=plan.pk)
            held.set()
            done.wait(timeout=30)
        connection.close()

    def wait() -> None:
        accept_invite(actor=waiter, token="t" * 43)
        ends.append("waited")
        connection.close()

    with ThreadPoolExecutor(2) as pool:
        holding = pool.submit(hold)
        assert held.wait(timeout=30)
        waiting = pool.submit(wait)

        accept_invite(actor=goer, token="u" * 43)
        ends.append("went")
        done.set()
        holding.result(timeout=30)
        waiting.result(timeout=30)

    assert ends == ["went", "waited"]
