"""How a plan gets another owner, and how it ends."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.auth.models import AnonymousUser, Permission, User
from time_machine import TimeMachineFixture

from plans import queries
from plans.models import FamilyPlan, FamilyPlanInvite, Membership, PlanEvent
from plans.services import close_plan, create_invite, create_plan, detach_member, transfer_ownership
from tests.factories import InviteFactory, OwnerFactory
from tests.questions import owner_of
from tests.refusals import refused, unchanged

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 8, 3, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture(autouse=True)
def _noon(time_machine: TimeMachineFixture) -> None:
    time_machine.move_to(NOON, tick=False)


# --- Transfer ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["alice", "support"])
def test_owner_and_member_swap_their_roles(
    plan: FamilyPlan, alice: User, bob: User, support: User, name: str
) -> None:
    actor = {"alice": alice, "support": support}[name]
    invites = list(FamilyPlanInvite.objects.values())

    answered = transfer_ownership(actor=actor, membership_id=bob.membership.pk)

    assert answered.pk == plan.pk
    roles = dict(plan.memberships.values_list("user", "role"))
    assert roles == {alice.pk: "MEMBER", bob.pk: "OWNER"}
    assert list(FamilyPlanInvite.objects.values()) == invites
    event = PlanEvent.objects.values("family_plan", "kind", "actor", "subject", "invite", "at").get()
    assert event == {
        "family_plan": plan.pk,
        "kind": "OWNERSHIP_TRANSFERRED",
        "actor": actor.pk,
        "subject": bob.pk,
        "invite": None,
        "at": NOON,
    }


def test_a_transfer_to_the_owner_changes_nothing(plan: FamilyPlan, alice: User) -> None:
    with unchanged():
        assert transfer_ownership(actor=alice, membership_id=alice.membership.pk).pk == plan.pk


def test_nobody_takes_a_plan_for_themselves(plan: FamilyPlan, bob: User, carol: User) -> None:
    with refused("NOT_AUTHENTICATED"):
        transfer_ownership(actor=AnonymousUser(), membership_id=bob.membership.pk)
    with refused("MEMBERSHIP_NOT_FOUND"):
        transfer_ownership(actor=carol, membership_id=bob.membership.pk)
    with refused("PERMISSION_DENIED"):
        transfer_ownership(actor=bob, membership_id=bob.membership.pk)


def test_reading_every_plan_transfers_and_closes_none(plan: FamilyPlan, bob: User, carol: User) -> None:
    carol.user_permissions.add(Permission.objects.get(codename="view_familyplan"))

    with refused("PERMISSION_DENIED"):
        transfer_ownership(actor=carol, membership_id=bob.membership.pk)
    with refused("PERMISSION_DENIED"):
        close_plan(actor=carol, plan_id=plan.pk)


def test_a_member_of_another_plan_gets_no_ownership_here(plan: FamilyPlan, alice: User) -> None:
    elsewhere = OwnerFactory()

    with refused("MEMBERSHIP_NOT_FOUND"):
        transfer_ownership(actor=alice, membership_id=elsewhere.pk)


# --- Close -------------------------------------------------------------------------------------


@pytest.fixture
def empty_plan(plan: FamilyPlan, alice: User, bob: User) -> FamilyPlan:
    """Alice's plan after Bob was detached, without the history of that."""
    detach_member(actor=alice, membership_id=bob.membership.pk)
    plan.events.all().delete()
    return plan


@pytest.mark.parametrize("name", ["alice", "support"])
def test_a_closed_plan_has_nobody_and_keeps_its_history(
    empty_plan: FamilyPlan, alice: User, support: User, name: str
) -> None:
    actor = {"alice": alice, "support": support}[name]
    open_invite = InviteFactory(family_plan=empty_plan, expires_at=NOON + HOUR)
    expired = InviteFactory(family_plan=empty_plan, expires_at=NOON - HOUR)
    elsewhere = InviteFactory(expires_at=NOON + HOUR)

    closed = close_plan(actor=actor, plan_id=empty_plan.pk)

    assert (closed.pk, closed.closed_at) == (empty_plan.pk, NOON)
    assert FamilyPlan.objects.get(pk=empty_plan.pk).closed_at == NOON
    assert not empty_plan.memberships.exists()
    ends = dict(FamilyPlanInvite.objects.values_list("pk", "expires_at"))
    assert ends[open_invite.pk] == NOON
    assert ends[expired.pk] == NOON - HOUR
    assert ends[elsewhere.pk] == NOON + HOUR
    event = PlanEvent.objects.values("family_plan", "kind", "actor", "subject", "invite", "at").get()
    assert event == {
        "family_plan": empty_plan.pk,
        "kind": "PLAN_CLOSED",
        "actor": actor.pk,
        "subject": None,
        "invite": None,
        "at": NOON,
    }


def test_an_owner_who_came_by_invite_leaves_it_unused(plan: FamilyPlan, alice: User, bob: User) -> None:
    transfer_ownership(actor=alice, membership_id=bob.membership.pk)
    detach_member(actor=bob, membership_id=alice.membership.pk)

    close_plan(actor=bob, plan_id=plan.pk)

    freed = FamilyPlanInvite.objects.get()
    assert (freed.user, freed.expires_at) == (None, NOON)


def test_whoever_closed_a_plan_may_begin_another(empty_plan: FamilyPlan, alice: User, support: User) -> None:
    close_plan(actor=alice, plan_id=empty_plan.pk)

    assert owner_of(create_plan(actor=support, name="Again", owner_email=alice.email)) == alice


def test_a_plan_that_never_had_an_owner_is_closed_by_staff(support: User) -> None:
    plan = FamilyPlan.objects.create(name="Nobody's")

    assert close_plan(actor=support, plan_id=plan.pk).closed_at

    assert list(plan.events.values_list("kind", "actor")) == [("PLAN_CLOSED", support.pk)]


def test_a_plan_with_members_stays_open(plan: FamilyPlan, alice: User, support: User) -> None:
    for actor in (alice, support):
        with refused("PLAN_NOT_EMPTY"):
            close_plan(actor=actor, plan_id=plan.pk)


def test_a_plan_is_closed_once(empty_plan: FamilyPlan, alice: User, support: User) -> None:
    close_plan(actor=alice, plan_id=empty_plan.pk)

    with refused("PLAN_CLOSED"):
        close_plan(actor=support, plan_id=empty_plan.pk)
    with refused("PLAN_NOT_FOUND"):
        close_plan(actor=alice, plan_id=empty_plan.pk)


def close_concurrently(plan: FamilyPlan) -> None:
    Membership.objects.all().delete()
    FamilyPlan.objects.update(closed_at=NOON)


@pytest.mark.parametrize("change", [close_concurrently, FamilyPlan.delete])
def test_a_plan_that_closed_or_was_deleted_while_its_owner_waited_for_the_lock_is_gone(
    change: Callable[[FamilyPlan], object],
    empty_plan: FamilyPlan,
    alice: User,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lock = queries.lock_plan.first

    def changed_concurrently(*, plan_id: int) -> queries.LockedPlan | None:
        change(FamilyPlan.objects.get(pk=plan_id))
        return lock(plan_id=plan_id)

    monkeypatch.setattr(queries.lock_plan, "first", changed_concurrently)

    # the change is rolled back with the refusal, because it is in the same transaction
    with refused("PLAN_NOT_FOUND"):
        close_plan(actor=alice, plan_id=empty_plan.pk)


def test_only_who_runs_a_plan_closes_it(plan: FamilyPlan, bob: User, carol: User) -> None:
    with refused("NOT_AUTHENTICATED"):
        close_plan(actor=AnonymousUser(), plan_id=plan.pk)
    with refused("PLAN_NOT_FOUND"):
        close_plan(actor=carol, plan_id=plan.pk)
    with refused("PERMISSION_DENIED"):
        close_plan(actor=bob, plan_id=plan.pk)


def test_a_closed_plan_invites_nobody(empty_plan: FamilyPlan, alice: User, support: User) -> None:
    close_plan(actor=alice, plan_id=empty_plan.pk)

    with refused("PLAN_CLOSED"):
        create_invite(actor=support, plan_id=empty_plan.pk)
