"""Who may invite, when, and how an invite begins."""

from datetime import UTC, datetime, timedelta
from unittest import mock

import constance
import pytest
from allauth.account.models import EmailAddress
from django.contrib.auth.models import AnonymousUser, User
from time_machine import TimeMachineFixture

from plans.models import FamilyPlan, FamilyPlanInvite, PlanEvent, digest_of
from plans.services import close_plan, create_invite, detach_member, transfer_ownership
from tests.factories import InviteFactory, MembershipFactory, OwnerFactory
from tests.questions import seats_taken
from tests.refusals import refused, refused_when
from zammad.sandbox import Call, Fault, Sandbox

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 8, 3, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def fill(plan: FamilyPlan) -> FamilyPlanInvite:
    """Give away every seat of alice's plan of five, the last of them to an open invite."""
    MembershipFactory.create_batch(2, family_plan=plan)
    invite: FamilyPlanInvite = InviteFactory(family_plan=plan)
    return invite


def issue(plan: FamilyPlan, *, at: datetime, times: int = 1) -> None:
    """Record that invites were created."""
    for _ in range(times):
        PlanEvent.objects.create(family_plan=plan, kind=PlanEvent.Kind.INVITE_CREATED, at=at)


# --- Success -----------------------------------------------------------------------------------


def test_an_invite_begins_open_with_its_history(
    plan: FamilyPlan, alice: User, sandbox: Sandbox, time_machine: TimeMachineFixture
) -> None:
    time_machine.move_to(NOON, tick=False)

    issued = create_invite(actor=alice, plan_id=plan.pk)

    [token] = [row for row in sandbox.records["tokens"].values() if row["id"] != 1]
    assert FamilyPlanInvite.objects.filter(pk=issued.invite.pk).values().get() == {
        "id": issued.invite.pk,
        "family_plan_id": plan.pk,
        "created_by_id": alice.pk,
        "email": "",
        "token_digest": digest_of(issued.token),
        "zammad_token_name": token["name"],
        "created_at": NOON,
        "expires_at": NOON + 48 * HOUR,
        "user_id": None,
        "is_used": False,
        "mail_status": "NONE",
    }
    event = PlanEvent.objects.values("family_plan", "kind", "actor", "subject", "invite", "at").get()
    assert event == {
        "family_plan": plan.pk,
        "kind": "INVITE_CREATED",
        "actor": alice.pk,
        "subject": None,
        "invite": issued.invite.pk,
        "at": NOON,
    }
    assert seats_taken(plan, now=NOON) == 3


def test_an_address_is_kept_in_lower_case(plan: FamilyPlan, alice: User, sandbox: Sandbox) -> None:
    issued = create_invite(actor=alice, plan_id=plan.pk, email=" Dave@EXAMPLE.com ")

    assert FamilyPlanInvite.objects.get(pk=issued.invite.pk).email == "dave@example.com"


def test_staff_with_the_right_invite_into_any_plan(plan: FamilyPlan, support: User, sandbox: Sandbox) -> None:
    issued = create_invite(actor=support, plan_id=plan.pk)

    assert (issued.invite.family_plan, issued.invite.created_by) == (plan, support)
    assert plan.events.get().actor == support


def test_the_answer_tells_nothing_of_what_an_address_has_elsewhere(
    plan: FamilyPlan, alice: User, sandbox: Sandbox
) -> None:
    owner_elsewhere = OwnerFactory().user
    InviteFactory(email="dave@example.com")

    for email in [owner_elsewhere.email, "dave@example.com", "unknown@example.com"]:
        issued = create_invite(actor=alice, plan_id=plan.pk, email=email)
        assert issued.invite.email == email


def test_a_member_who_never_verified_an_address_does_not_block_it(
    plan: FamilyPlan, alice: User, bob: User, sandbox: Sandbox
) -> None:
    EmailAddress.objects.create(user=bob, email="other@example.com", verified=False)

    issued = create_invite(actor=alice, plan_id=plan.pk, email="other@example.com")

    assert issued.invite.email == "other@example.com"


def test_an_address_may_be_invited_again_once_its_invite_expired(
    plan: FamilyPlan, alice: User, sandbox: Sandbox, time_machine: TimeMachineFixture
) -> None:
    InviteFactory(family_plan=plan, email="dave@example.com", expires_at=NOON)
    time_machine.move_to(NOON, tick=False)

    issued = create_invite(actor=alice, plan_id=plan.pk, email="dave@example.com")

    assert issued.invite.status(now=NOON) == "OPEN"


def test_a_plan_with_a_limit_of_its_own_ignores_the_setting(
    plan: FamilyPlan, alice: User, sandbox: Sandbox
) -> None:
    FamilyPlan.objects.filter(pk=plan.pk).update(user_limit=3)

    create_invite(actor=alice, plan_id=plan.pk)

    with refused("PLAN_FULL"):
        create_invite(actor=alice, plan_id=plan.pk)


def test_lowering_a_limit_removes_nobody_and_refuses_the_next(plan: FamilyPlan, alice: User) -> None:
    open_invite = fill(plan)

    constance.config.USER_LIMIT = 1

    assert plan.memberships.count() == 4
    assert plan.invites.open(now=open_invite.created_at).get() == open_invite
    with refused("PLAN_FULL"):
        create_invite(actor=alice, plan_id=plan.pk)


def test_the_next_day_brings_new_invites(
    plan: FamilyPlan, alice: User, sandbox: Sandbox, time_machine: TimeMachineFixture
) -> None:
    issue(plan, at=NOON, times=20)
    time_machine.move_to(NOON + 24 * HOUR - timedelta(microseconds=1), tick=False)
    with refused("INVITE_LIMIT_REACHED"):
        create_invite(actor=alice, plan_id=plan.pk)

    time_machine.move_to(NOON + 24 * HOUR, tick=False)
    create_invite(actor=alice, plan_id=plan.pk)

    assert plan.invites.open(now=NOON + 24 * HOUR).count() == 1


def test_only_invites_of_this_plan_count_for_its_day(plan: FamilyPlan, alice: User, sandbox: Sandbox) -> None:
    constance.config.INVITES_PER_DAY = 1
    now = plan.created_at
    issue(OwnerFactory().family_plan, at=now, times=3)
    for kind in set(PlanEvent.Kind) - {PlanEvent.Kind.INVITE_CREATED, PlanEvent.Kind.INVITE_REISSUED}:
        PlanEvent.objects.create(family_plan=plan, kind=kind, at=now)

    create_invite(actor=alice, plan_id=plan.pk)

    with refused("INVITE_LIMIT_REACHED"):
        create_invite(actor=alice, plan_id=plan.pk)


def test_a_new_lifetime_is_for_new_invites(
    plan: FamilyPlan, alice: User, sandbox: Sandbox, time_machine: TimeMachineFixture
) -> None:
    time_machine.move_to(NOON, tick=False)
    old = create_invite(actor=alice, plan_id=plan.pk).invite

    constance.config.INVITE_TTL_HOURS = 1
    new = create_invite(actor=alice, plan_id=plan.pk).invite

    old.refresh_from_db()
    assert (old.expires_at, new.expires_at) == (NOON + 48 * HOUR, NOON + HOUR)


# --- Refusals, in their order: each test breaks every later rule, too --------------------------------


@pytest.fixture
def everything_forbids(plan: FamilyPlan) -> FamilyPlan:
    """Pause invites, in a full plan that has used up its invites for today."""
    fill(plan)
    constance.config.INVITES_ENABLED = False
    constance.config.INVITES_PER_DAY = 0
    return plan


def test_a_stranger_signs_in_first(everything_forbids: FamilyPlan) -> None:
    with refused("NOT_AUTHENTICATED"):
        create_invite(actor=AnonymousUser(), plan_id=everything_forbids.pk, email="nobody")


def test_a_plan_that_one_cannot_see_is_not_found(everything_forbids: FamilyPlan, carol: User) -> None:
    for plan_id in (everything_forbids.pk, 0, -1, 10**30):
        with refused("PLAN_NOT_FOUND"):
            create_invite(actor=carol, plan_id=plan_id, email="nobody")


def test_a_member_may_not_invite(everything_forbids: FamilyPlan, bob: User) -> None:
    with refused("PERMISSION_DENIED"):
        create_invite(actor=bob, plan_id=everything_forbids.pk, email="nobody")


def test_an_owner_of_another_plan_finds_nothing_here(everything_forbids: FamilyPlan) -> None:
    neighbour = OwnerFactory().user

    with refused("PLAN_NOT_FOUND"):
        create_invite(actor=neighbour, plan_id=everything_forbids.pk)


@pytest.mark.parametrize(
    "email", ["nobody", "a@b", "x@example.com\nBcc: y@example.com", "half\udc80@example.com"]
)
def test_an_address_is_an_address(everything_forbids: FamilyPlan, alice: User, email: str) -> None:
    with refused("INVALID_INPUT", field="email"):
        create_invite(actor=alice, plan_id=everything_forbids.pk, email=email)


def test_a_closed_plan_invites_nobody(everything_forbids: FamilyPlan, support: User) -> None:
    FamilyPlan.objects.filter(pk=everything_forbids.pk).update(closed_at=NOON)

    with refused("PLAN_CLOSED"):
        create_invite(actor=support, plan_id=everything_forbids.pk, email="bob@example.com")


def test_paused_invites_are_not_made(everything_forbids: FamilyPlan, alice: User) -> None:
    with refused("INVITES_PAUSED"):
        create_invite(actor=alice, plan_id=everything_forbids.pk, email="bob@example.com")


def test_a_member_needs_no_invite(everything_forbids: FamilyPlan, alice: User) -> None:
    constance.config.INVITES_ENABLED = True

    with refused("ALREADY_IN_PLAN"):
        create_invite(actor=alice, plan_id=everything_forbids.pk, email="BOB@example.com")


def test_a_member_needs_no_invite_under_another_spelling(
    everything_forbids: FamilyPlan, alice: User, bob: User
) -> None:
    constance.config.INVITES_ENABLED = True
    EmailAddress.objects.filter(user=bob).update(email="bob@xn--bcher-kva.example")

    with refused("ALREADY_IN_PLAN"):
        create_invite(actor=alice, plan_id=everything_forbids.pk, email="bob@bücher.example")


def test_an_address_has_one_open_invite_to_a_plan(everything_forbids: FamilyPlan, alice: User) -> None:
    constance.config.INVITES_ENABLED = True
    FamilyPlanInvite.objects.filter(user=None).update(email="dave@example.com")

    with refused("ALREADY_INVITED"):
        create_invite(actor=alice, plan_id=everything_forbids.pk, email="Dave@example.com")


def test_a_full_plan_asks_nothing_of_zammad(
    everything_forbids: FamilyPlan, alice: User, sandbox: Sandbox
) -> None:
    constance.config.INVITES_ENABLED = True

    with refused("PLAN_FULL"):
        create_invite(actor=alice, plan_id=everything_forbids.pk)

    assert sandbox.calls == []


def test_a_plan_that_made_its_invites_for_today_asks_nothing_of_zammad(
    everything_forbids: FamilyPlan, alice: User, sandbox: Sandbox
) -> None:
    constance.config.INVITES_ENABLED = True
    constance.config.USER_LIMIT = 6

    with refused("INVITE_LIMIT_REACHED"):
        create_invite(actor=alice, plan_id=everything_forbids.pk)

    assert sandbox.calls == []


def test_a_zammad_that_gives_no_token_leaves_nothing_half_done(
    plan: FamilyPlan, alice: User, sandbox: Sandbox
) -> None:
    sandbox.faults.set("POST", Fault.RESET, times=1)

    with refused("INVITE_TOKEN_UNAVAILABLE"):
        create_invite(actor=alice, plan_id=plan.pk, email="dave@example.com")

    # ... and the next attempt succeeds
    create_invite(actor=alice, plan_id=plan.pk, email="dave@example.com")
    assert len(sandbox.calls) == 2


# --- The world changes between Zammad's response and the lock ----------------------------------------


def test_a_plan_that_filled_meanwhile_is_full(plan: FamilyPlan, alice: User, sandbox: Sandbox) -> None:
    with refused_when("PLAN_FULL", lambda: fill(plan)):
        create_invite(actor=alice, plan_id=plan.pk)


def test_a_limit_that_was_lowered_meanwhile_counts(plan: FamilyPlan, alice: User, sandbox: Sandbox) -> None:
    def lower() -> None:
        constance.config.USER_LIMIT = 2

    with refused_when("PLAN_FULL", lower):
        create_invite(actor=alice, plan_id=plan.pk)


def test_a_pause_that_began_meanwhile_counts(plan: FamilyPlan, alice: User, sandbox: Sandbox) -> None:
    def pause() -> None:
        constance.config.INVITES_ENABLED = False

    with refused_when("INVITES_PAUSED", pause):
        create_invite(actor=alice, plan_id=plan.pk)


def test_an_owner_who_passed_the_plan_on_meanwhile_is_a_member_now(
    plan: FamilyPlan, alice: User, bob: User, sandbox: Sandbox
) -> None:
    with refused_when(
        "PERMISSION_DENIED",
        lambda: transfer_ownership(actor=alice, membership_id=bob.membership.pk),
    ):
        create_invite(actor=alice, plan_id=plan.pk)


def test_a_plan_that_its_owner_closed_meanwhile_is_gone(
    plan: FamilyPlan, alice: User, bob: User, sandbox: Sandbox
) -> None:
    detach_member(actor=alice, membership_id=bob.membership.pk)

    with refused_when("PLAN_NOT_FOUND", lambda: close_plan(actor=alice, plan_id=plan.pk)):
        create_invite(actor=alice, plan_id=plan.pk)


def test_a_plan_that_closed_meanwhile_is_closed_for_staff(
    plan: FamilyPlan, alice: User, support: User, bob: User, sandbox: Sandbox
) -> None:
    detach_member(actor=alice, membership_id=bob.membership.pk)

    with refused_when("PLAN_CLOSED", lambda: close_plan(actor=alice, plan_id=plan.pk)):
        create_invite(actor=support, plan_id=plan.pk)


def test_an_address_that_was_invited_meanwhile_has_its_invite(
    plan: FamilyPlan, alice: User, sandbox: Sandbox
) -> None:
    with refused_when("ALREADY_INVITED", lambda: InviteFactory(family_plan=plan, email="dave@example.com")):
        create_invite(actor=alice, plan_id=plan.pk, email="dave@example.com")


def test_a_person_who_joined_meanwhile_needs_no_invite(
    plan: FamilyPlan, alice: User, carol: User, sandbox: Sandbox
) -> None:
    with refused_when("ALREADY_IN_PLAN", lambda: MembershipFactory(family_plan=plan, user=carol)):
        create_invite(actor=alice, plan_id=plan.pk, email="carol@example.com")


def test_invites_made_meanwhile_count_for_the_day(plan: FamilyPlan, alice: User, sandbox: Sandbox) -> None:
    constance.config.INVITES_PER_DAY = 1

    with refused_when("INVITE_LIMIT_REACHED", lambda: issue(plan, at=datetime.now(UTC))):
        create_invite(actor=alice, plan_id=plan.pk)


def test_the_lifetime_begins_when_the_invite_is_written(
    plan: FamilyPlan, alice: User, sandbox: Sandbox, time_machine: TimeMachineFixture
) -> None:
    time_machine.move_to(NOON, tick=False)
    answer = sandbox.answer

    def answer_five_seconds_later(call: Call) -> tuple[int, object]:
        time_machine.move_to(NOON + timedelta(seconds=5), tick=False)
        return answer(call)

    with mock.patch.object(sandbox, "answer", answer_five_seconds_later):
        issued = create_invite(actor=alice, plan_id=plan.pk)

    assert issued.invite.expires_at == NOON + timedelta(seconds=5) + 48 * HOUR


@pytest.mark.parametrize("email", ["", "  "])
def test_a_blank_address_does_not_open_an_invite_to_everybody(
    plan: FamilyPlan, alice: User, sandbox: Sandbox, email: str
) -> None:
    with refused("INVALID_INPUT", field="email"):
        create_invite(actor=alice, plan_id=plan.pk, email=email)

    assert sandbox.calls == []
