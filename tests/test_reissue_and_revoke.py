"""How an invite gets a second life, and how an open one ends early."""

from datetime import UTC, datetime, timedelta

import constance
import pytest
from django.contrib.auth.models import AnonymousUser, Permission, User
from time_machine import TimeMachineFixture

from plans.models import FamilyPlan, FamilyPlanInvite, PlanEvent, digest_of
from plans.services import (
    accept_invite,
    detach_member,
    reissue_invite,
    revoke_invite,
    transfer_ownership,
)
from tests.factories import InviteFactory, MembershipFactory, OwnerFactory
from tests.questions import seats_taken
from tests.refusals import refused, refused_when, unchanged
from zammad.sandbox import Sandbox

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 8, 3, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
TOKEN = "t" * 43


@pytest.fixture
def invite(plan: FamilyPlan, alice: User, time_machine: TimeMachineFixture) -> FamilyPlanInvite:
    """An open invite to alice's plan, created an hour ago, that expires in an hour."""
    time_machine.move_to(NOON, tick=False)
    invite: FamilyPlanInvite = InviteFactory(
        family_plan=plan, created_by=alice, token=TOKEN, created_at=NOON - HOUR, expires_at=NOON + HOUR
    )
    return invite


def fill(plan: FamilyPlan) -> None:
    """Seat as many people as fit with alice, bob and one invite."""
    MembershipFactory.create_batch(2, family_plan=plan)


# --- Reissue -----------------------------------------------------------------------------------


@pytest.mark.parametrize("expires_at", [NOON + HOUR, NOON - HOUR])
def test_a_reissued_invite_is_open_again_under_a_new_token(
    plan: FamilyPlan,
    support: User,
    alice: User,
    invite: FamilyPlanInvite,
    sandbox: Sandbox,
    expires_at: datetime,
) -> None:
    FamilyPlanInvite.objects.filter(pk=invite.pk).update(expires_at=expires_at)

    issued = reissue_invite(actor=support, invite_id=invite.pk)

    assert FamilyPlanInvite.objects.filter(pk=invite.pk).values().get() == {
        "id": invite.pk,
        "family_plan_id": plan.pk,
        "created_by_id": alice.pk,
        "email": "",
        "token_digest": digest_of(issued.token),
        "zammad_token_name": sandbox.records["tokens"][2]["name"],
        "created_at": NOON - HOUR,
        "expires_at": NOON + 48 * HOUR,
        "user_id": None,
        "is_used": False,
        "mail_status": "NONE",
    }
    event = PlanEvent.objects.values("family_plan", "kind", "actor", "subject", "invite", "at").get()
    assert event == {
        "family_plan": plan.pk,
        "kind": "INVITE_REISSUED",
        "actor": support.pk,
        "subject": None,
        "invite": invite.pk,
        "at": NOON,
    }


def test_an_invite_freed_by_a_detachment_is_reissued_for_the_next_person(
    alice: User, bob: User, carol: User, plan: FamilyPlan, sandbox: Sandbox
) -> None:
    freed = detach_member(actor=alice, membership_id=bob.membership.pk).invite
    assert freed is not None

    issued = reissue_invite(actor=alice, invite_id=freed.pk)

    assert accept_invite(actor=carol, token=issued.token).membership.family_plan == plan


def test_an_open_invites_own_seat_counts_once(
    plan: FamilyPlan, alice: User, invite: FamilyPlanInvite, sandbox: Sandbox
) -> None:
    fill(plan)

    reissue_invite(actor=alice, invite_id=invite.pk)

    assert seats_taken(plan, now=NOON) == 5


def test_an_expired_invite_needs_a_free_seat(
    plan: FamilyPlan, alice: User, invite: FamilyPlanInvite, sandbox: Sandbox
) -> None:
    fill(plan)
    revoke_invite(actor=alice, invite_id=invite.pk)
    InviteFactory(family_plan=plan)

    with refused("PLAN_FULL"):
        reissue_invite(actor=alice, invite_id=invite.pk)

    assert sandbox.calls == []


def test_a_reissue_counts_for_the_day(
    plan: FamilyPlan, alice: User, invite: FamilyPlanInvite, sandbox: Sandbox
) -> None:
    constance.config.INVITES_PER_DAY = 2
    reissue_invite(actor=alice, invite_id=invite.pk)
    reissue_invite(actor=alice, invite_id=invite.pk)

    with refused("INVITE_LIMIT_REACHED"):
        reissue_invite(actor=alice, invite_id=invite.pk)


def test_an_invite_that_one_cannot_see_is_not_reissued(
    bob: User, carol: User, invite: FamilyPlanInvite
) -> None:
    with refused("NOT_AUTHENTICATED"):
        reissue_invite(actor=AnonymousUser(), invite_id=invite.pk)
    owner_elsewhere = OwnerFactory().user
    for person in (bob, carol, owner_elsewhere):
        with refused("INVITE_NOT_FOUND"):
            reissue_invite(actor=person, invite_id=invite.pk)


def test_reading_every_plan_reissues_and_revokes_nothing(carol: User, invite: FamilyPlanInvite) -> None:
    carol.user_permissions.add(Permission.objects.get(codename="view_familyplan"))

    with refused("PERMISSION_DENIED"):
        reissue_invite(actor=carol, invite_id=invite.pk)
    with refused("PERMISSION_DENIED"):
        revoke_invite(actor=carol, invite_id=invite.pk)


def test_a_used_invite_is_not_reissued(alice: User, bob: User, plan: FamilyPlan) -> None:
    constance.config.INVITES_ENABLED = False

    with refused("INVITE_ALREADY_USED"):
        reissue_invite(actor=alice, invite_id=bob.family_plan_invite.pk)


def test_the_rules_of_new_invites_hold_for_reissued_ones(
    plan: FamilyPlan, alice: User, support: User, invite: FamilyPlanInvite
) -> None:
    constance.config.INVITES_ENABLED = False
    with refused("INVITES_PAUSED"):
        reissue_invite(actor=alice, invite_id=invite.pk)

    constance.config.INVITES_ENABLED = True
    FamilyPlanInvite.objects.filter(pk=invite.pk).update(email="bob@example.com")
    with refused("ALREADY_IN_PLAN"):
        reissue_invite(actor=alice, invite_id=invite.pk)

    FamilyPlanInvite.objects.filter(pk=invite.pk).update(email="dave@example.com")
    InviteFactory(family_plan=plan, email="dave@example.com")
    with refused("ALREADY_INVITED"):
        reissue_invite(actor=alice, invite_id=invite.pk)

    FamilyPlan.objects.filter(pk=plan.pk).update(closed_at=NOON)
    with refused("PLAN_CLOSED"):
        reissue_invite(actor=support, invite_id=invite.pk)


def test_an_invite_that_was_accepted_meanwhile_is_used(
    carol: User, alice: User, invite: FamilyPlanInvite, sandbox: Sandbox
) -> None:
    with refused_when("INVITE_ALREADY_USED", lambda: accept_invite(actor=carol, token=TOKEN)):
        reissue_invite(actor=alice, invite_id=invite.pk)


def test_an_owner_who_passed_the_plan_on_meanwhile_sees_no_invite(
    alice: User, bob: User, invite: FamilyPlanInvite, sandbox: Sandbox
) -> None:
    with refused_when(
        "INVITE_NOT_FOUND",
        lambda: transfer_ownership(actor=alice, membership_id=bob.membership.pk),
    ):
        reissue_invite(actor=alice, invite_id=invite.pk)


# --- Revoke ------------------------------------------------------------------------------------


def test_a_revoked_invite_expires_now_and_frees_its_seat(
    plan: FamilyPlan, alice: User, invite: FamilyPlanInvite
) -> None:
    revoked = revoke_invite(actor=alice, invite_id=invite.pk)

    assert revoked == invite
    assert FamilyPlanInvite.objects.get(pk=invite.pk).expires_at == NOON
    assert seats_taken(plan, now=NOON) == 2
    event = PlanEvent.objects.values("family_plan", "kind", "actor", "subject", "invite", "at").get()
    assert event == {
        "family_plan": plan.pk,
        "kind": "INVITE_REVOKED",
        "actor": alice.pk,
        "subject": None,
        "invite": invite.pk,
        "at": NOON,
    }


def test_revoking_again_changes_nothing(support: User, invite: FamilyPlanInvite) -> None:
    revoke_invite(actor=support, invite_id=invite.pk)

    with unchanged():
        assert revoke_invite(actor=support, invite_id=invite.pk).expires_at == NOON


def test_a_used_invite_is_not_revoked(alice: User, bob: User, plan: FamilyPlan) -> None:
    with refused("INVITE_ALREADY_USED"):
        revoke_invite(actor=alice, invite_id=bob.family_plan_invite.pk)


def test_an_invite_that_one_cannot_see_is_not_revoked(
    bob: User, carol: User, invite: FamilyPlanInvite
) -> None:
    with refused("NOT_AUTHENTICATED"):
        revoke_invite(actor=AnonymousUser(), invite_id=invite.pk)
    for person in (bob, carol):
        with refused("INVITE_NOT_FOUND"):
            revoke_invite(actor=person, invite_id=invite.pk)
