"""How seats are counted: by the clock, and alike wherever they are shown."""

from datetime import UTC, datetime, timedelta
from typing import Any

import constance
import pytest
from django.contrib.auth.models import User
from time_machine import TimeMachineFixture

from plans.models import FamilyPlan, FamilyPlanInvite, Membership
from plans.services import create_invite
from plans.settings import PlanSettings
from tests.factories import FamilyPlanFactory, InviteFactory, MembershipFactory, OwnerFactory
from tests.questions import seats_taken
from tests.refusals import refused
from zammad.sandbox import Sandbox

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 8, 3, 12, tzinfo=UTC)
MOMENT = timedelta(microseconds=1)


def test_members_and_open_invites_take_seats_the_owner_counts(plan: FamilyPlan) -> None:
    InviteFactory(family_plan=plan, expires_at=NOON + MOMENT)
    InviteFactory(family_plan=plan, expires_at=NOON)
    InviteFactory(expires_at=NOON + MOMENT)

    # alice, bob (whose invite is used) and the one open invite
    assert seats_taken(plan, now=NOON) == 3


def test_an_invite_frees_its_seat_the_moment_it_expires(
    plan: FamilyPlan, alice: User, sandbox: Sandbox, time_machine: TimeMachineFixture
) -> None:
    InviteFactory(family_plan=plan, expires_at=NOON)
    constance.config.USER_LIMIT = 3
    time_machine.move_to(NOON - MOMENT, tick=False)
    assert seats_taken(plan, now=NOON - MOMENT) == 3
    with refused("PLAN_FULL"):
        create_invite(actor=alice, plan_id=plan.pk)

    time_machine.move_to(NOON, tick=False)
    assert seats_taken(plan, now=NOON) == 2
    create_invite(actor=alice, plan_id=plan.pk)

    assert seats_taken(plan, now=NOON) == 3


def test_a_list_of_plans_counts_seats_as_one_plan_does(plan: FamilyPlan) -> None:
    InviteFactory(family_plan=plan, expires_at=NOON + MOMENT)
    InviteFactory(family_plan=plan, expires_at=NOON)
    crowded = OwnerFactory().family_plan
    MembershipFactory.create_batch(3, family_plan=crowded)
    InviteFactory.create_batch(2, family_plan=crowded, expires_at=NOON + MOMENT)
    empty = FamilyPlanFactory()

    plans: Any = FamilyPlan.objects.with_seats(now=NOON)
    listed = dict(plans.values_list("pk", "seats_taken_now"))

    assert listed == {plan.pk: 3, crowded.pk: 6, empty.pk: 0}
    assert listed == {one.pk: seats_taken(one, now=NOON) for one in (plan, crowded, empty)}


@pytest.mark.parametrize(("own", "in_force"), [(None, 7), (1, 1), (100, 100)])
def test_a_plans_own_limit_wins_over_the_setting(own: int | None, in_force: int) -> None:
    constance.config.USER_LIMIT = 7

    assert PlanSettings.current().limit_of(FamilyPlan(name="x", user_limit=own)) == in_force


def test_the_states_of_invites_are_the_same_one_by_one_and_in_lists(plan: FamilyPlan, bob: User) -> None:
    opened = InviteFactory(family_plan=plan, expires_at=NOON + MOMENT)
    expired = InviteFactory(family_plan=plan, expires_at=NOON)
    used = bob.family_plan_invite
    FamilyPlanInvite.objects.filter(pk=used.pk).update(expires_at=NOON)
    used.refresh_from_db()

    assert opened.status(now=NOON) == "OPEN"
    assert expired.status(now=NOON) == "EXPIRED"
    assert used.status(now=NOON) == "USED"
    states = FamilyPlanInvite.Status
    for status, expected in [
        (states.OPEN, {opened}),
        (states.EXPIRED, {expired}),
        (states.USED, {used}),
        (None, {opened, expired, used}),
    ]:
        assert set(FamilyPlanInvite.objects.with_status(status, now=NOON)) == expected


def test_the_owner_comes_first(plan: FamilyPlan, alice: User, bob: User) -> None:
    member = MembershipFactory(family_plan=plan)
    Membership.objects.filter(user=alice).update(role="MEMBER")
    Membership.objects.filter(user=bob).update(role="OWNER")

    assert list(plan.memberships.owner_first()) == [bob.membership, alice.membership, member]
