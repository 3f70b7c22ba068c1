"""How a membership ends, and what becomes of its invite."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest import mock

import pytest
from django.contrib.auth.models import AnonymousUser, Permission, User
from time_machine import TimeMachineFixture

from plans import queries
from plans.models import FamilyPlan, FamilyPlanInvite, Membership, PlanEvent
from plans.queries import Invite
from plans.services import Detachment, accept_invite, create_plan, detach_member, transfer_ownership
from tests.factories import InviteFactory, MembershipFactory, OwnerFactory, ZammadUserFactory
from tests.questions import owner_of, seats_taken
from tests.refusals import refused

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 8, 3, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _noon(time_machine: TimeMachineFixture) -> None:
    time_machine.move_to(NOON, tick=False)


@pytest.mark.parametrize("name", ["alice", "support"])
def test_owner_and_staff_detach_a_member_and_keep_the_invite(
    plan: FamilyPlan, alice: User, bob: User, support: User, name: str
) -> None:
    actor = {"alice": alice, "support": support}[name]
    invite = bob.family_plan_invite

    detachment = detach_member(actor=actor, membership_id=bob.membership.pk)

    assert detachment.plan is not None
    assert detachment.plan.pk == plan.pk
    assert detachment.invite == Invite(
        pk=invite.pk,
        family_plan_id=plan.pk,
        email=invite.email,
        created_at=invite.created_at,
        created_by_id=invite.created_by_id,
        expires_at=NOON,
        user_id=None,
        mail_status=invite.mail_status,
    )
    assert list(plan.memberships.values_list("user", "role")) == [(alice.pk, "OWNER")]
    freed = FamilyPlanInvite.objects.get()
    assert (freed.user, freed.is_used, freed.expires_at) == (None, False, NOON)
    assert freed.status(now=NOON) == "EXPIRED"
    event = PlanEvent.objects.values("family_plan", "kind", "actor", "subject", "invite", "at").get()
    assert event == {
        "family_plan": plan.pk,
        "kind": "MEMBER_DETACHED",
        "actor": actor.pk,
        "subject": bob.pk,
        "invite": invite.pk,
        "at": NOON,
    }
    assert seats_taken(plan, now=NOON) == 1


def test_a_member_leaves_and_hears_no_more_of_the_plan(plan: FamilyPlan, bob: User) -> None:
    detachment = detach_member(actor=bob, membership_id=bob.membership.pk)

    assert detachment == Detachment(plan=None, invite=None)
    assert not Membership.objects.filter(user=bob).exists()
    freed = FamilyPlanInvite.objects.get()
    assert (freed.user, freed.expires_at) == (None, NOON)
    event = PlanEvent.objects.values("kind", "actor", "subject").get()
    assert event == {"kind": "MEMBER_LEFT", "actor": bob.pk, "subject": bob.pk}


def test_an_invite_that_expired_long_ago_expires_now(plan: FamilyPlan, alice: User, bob: User) -> None:
    FamilyPlanInvite.objects.update(expires_at=NOON - timedelta(days=30))

    detach_member(actor=alice, membership_id=bob.membership.pk)

    assert FamilyPlanInvite.objects.get().expires_at == NOON


def test_a_member_who_came_without_an_invite_leaves_none(plan: FamilyPlan, alice: User) -> None:
    membership = MembershipFactory(family_plan=plan)

    detachment = detach_member(actor=alice, membership_id=membership.pk)

    assert detachment.plan is not None
    assert detachment.plan.pk == plan.pk
    assert detachment.invite is None
    assert PlanEvent.objects.get().invite is None


def test_other_members_and_their_invites_stay(plan: FamilyPlan, alice: User, bob: User, carol: User) -> None:
    token = "t" * 43
    InviteFactory(family_plan=plan, token=token, expires_at=NOON + timedelta(hours=1))
    accept_invite(actor=carol, token=token)
    before = FamilyPlanInvite.objects.values().get(user=carol)

    detach_member(actor=alice, membership_id=bob.membership.pk)

    assert FamilyPlanInvite.objects.values().get(user=carol) == before
    assert Membership.objects.filter(user=carol, family_plan=plan).exists()


def test_the_zammad_id_goes_with_the_person(plan: FamilyPlan, alice: User, bob: User) -> None:
    ZammadUserFactory(zammad_id=57, user=bob)
    assert FamilyPlan.objects.of_zammad_user(57).get() == plan

    detach_member(actor=alice, membership_id=bob.membership.pk)

    assert not FamilyPlan.objects.of_zammad_user(57).exists()


def test_a_detached_person_may_have_another_plan(
    plan: FamilyPlan, alice: User, bob: User, support: User
) -> None:
    detach_member(actor=alice, membership_id=bob.membership.pk)

    assert owner_of(create_plan(actor=support, name="The Bakers", owner_email=bob.email)) == bob


# --- Refusals, in their order ----------------------------------------------------------------------


def test_a_stranger_signs_in_first(plan: FamilyPlan, bob: User) -> None:
    with refused("NOT_AUTHENTICATED"):
        detach_member(actor=AnonymousUser(), membership_id=bob.membership.pk)


def test_a_membership_that_one_cannot_see_is_not_found(plan: FamilyPlan, alice: User, bob: User) -> None:
    outsider = OwnerFactory().user

    for membership_id in (bob.membership.pk, alice.membership.pk, 0, 10**30):
        with refused("MEMBERSHIP_NOT_FOUND"):
            detach_member(actor=outsider, membership_id=membership_id)


def test_a_member_may_not_detach_a_fellow_member_nor_the_owner(
    plan: FamilyPlan, alice: User, bob: User
) -> None:
    fellow = MembershipFactory(family_plan=plan)

    for membership in (fellow, alice.membership):
        with refused("PERMISSION_DENIED"):
            detach_member(actor=bob, membership_id=membership.pk)


def test_reading_every_plan_detaches_nobody(plan: FamilyPlan, bob: User, carol: User) -> None:
    carol.user_permissions.add(Permission.objects.get(codename="view_familyplan"))

    with refused("PERMISSION_DENIED"):
        detach_member(actor=carol, membership_id=bob.membership.pk)


def test_the_owner_stays(plan: FamilyPlan, alice: User, support: User) -> None:
    for actor in (alice, support):
        with refused("OWNER_CANNOT_BE_DETACHED"):
            detach_member(actor=actor, membership_id=alice.membership.pk)


def test_a_membership_that_ended_is_not_found(plan: FamilyPlan, alice: User, bob: User) -> None:
    membership_id = bob.membership.pk
    detach_member(actor=alice, membership_id=membership_id)

    with refused("MEMBERSHIP_NOT_FOUND"):
        detach_member(actor=alice, membership_id=membership_id)


def test_a_former_owner_can_be_detached_like_anybody(plan: FamilyPlan, alice: User, bob: User) -> None:
    transfer_ownership(actor=alice, membership_id=bob.membership.pk)

    with refused("PERMISSION_DENIED"):
        detach_member(actor=alice, membership_id=bob.membership.pk)
    detach_member(actor=bob, membership_id=alice.membership.pk)

    assert list(plan.memberships.values_list("user", flat=True)) == [bob.pk]


# --- What changes while a request waits for the lock -------------------------------------------------


@contextmanager
def refused_after(code: str, change: Callable[[], object]) -> Iterator[None]:
    """Hold that a change is noticed which is committed after the search, before the plan is locked.

    Here it happens in the transaction of the refused service, and is rolled back with it.
    """
    lock = queries.lock_plan_of_member.first

    def change_then_lock(**values: Any) -> queries.LockedPlan | None:
        plan = lock(**values)
        change()
        return plan

    with mock.patch.object(queries.lock_plan_of_member, "first", change_then_lock), refused(code):
        yield


def hand_over(plan: FamilyPlan, member: User) -> None:
    plan.memberships.update(role=Membership.Role.MEMBER)
    plan.memberships.filter(user=member).update(role=Membership.Role.OWNER)


def test_a_membership_that_ends_before_the_lock_is_not_found(
    plan: FamilyPlan, alice: User, bob: User
) -> None:
    membership_id = bob.membership.pk

    with refused_after("MEMBERSHIP_NOT_FOUND", Membership.objects.filter(user=bob).delete):
        detach_member(actor=alice, membership_id=membership_id)


def test_an_owner_who_hands_over_before_the_lock_detaches_nobody(
    plan: FamilyPlan, alice: User, bob: User
) -> None:
    fellow = MembershipFactory(family_plan=plan)

    with refused_after("PERMISSION_DENIED", lambda: hand_over(plan, bob)):
        detach_member(actor=alice, membership_id=fellow.pk)


def test_an_owner_whose_seat_ends_before_the_lock_sees_no_member(
    plan: FamilyPlan, alice: User, bob: User
) -> None:
    with refused_after("MEMBERSHIP_NOT_FOUND", Membership.objects.filter(user=alice).delete):
        detach_member(actor=alice, membership_id=bob.membership.pk)


@pytest.mark.parametrize("name", ["bob", "support"])
def test_a_member_who_becomes_the_owner_before_the_lock_stays(
    plan: FamilyPlan, bob: User, support: User, name: str
) -> None:
    actor = {"bob": bob, "support": support}[name]

    with refused_after("OWNER_CANNOT_BE_DETACHED", lambda: hand_over(plan, bob)):
        detach_member(actor=actor, membership_id=bob.membership.pk)
