"""Who may take an invite's seat, and how everybody else is refused."""

from datetime import UTC, datetime, timedelta

import constance
import pytest
from allauth.account.models import EmailAddress
from django.contrib.auth.models import AnonymousUser, User
from time_machine import TimeMachineFixture

from plans import queries, services
from plans.models import FamilyPlan, FamilyPlanInvite, Membership, PlanEvent
from plans.rules import normal_address
from plans.services import accept_invite, close_plan, detach_member, preview_invite, revoke_invite
from tests.factories import InviteFactory, OwnerFactory, UserFactory, ZammadUserFactory
from tests.questions import seats_taken
from tests.refusals import refused, unchanged

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 8, 3, 12, tzinfo=UTC)
MOMENT = timedelta(microseconds=1)
TOKEN = "t" * 43


@pytest.fixture
def invite(plan: FamilyPlan, alice: User, time_machine: TimeMachineFixture) -> FamilyPlanInvite:
    """An open invite to alice's plan that expires in an hour."""
    time_machine.move_to(NOON, tick=False)
    invite: FamilyPlanInvite = InviteFactory(
        family_plan=plan, created_by=alice, token=TOKEN, expires_at=NOON + timedelta(hours=1)
    )
    return invite


# --- Success -----------------------------------------------------------------------------------


def test_accepting_seats_the_person_and_uses_the_invite(
    plan: FamilyPlan, carol: User, invite: FamilyPlanInvite
) -> None:
    membership = accept_invite(actor=carol, token=TOKEN).membership

    seat = Membership.objects.filter(user=carol).values("pk", "family_plan", "role", "joined_at").get()
    assert seat == {"pk": membership.pk, "family_plan": plan.pk, "role": "MEMBER", "joined_at": NOON}
    used = FamilyPlanInvite.objects.get(pk=invite.pk)
    assert (used.user, used.is_used, used.status(now=NOON)) == (carol, True, "USED")
    assert used.expires_at == invite.expires_at
    event = PlanEvent.objects.values("family_plan", "kind", "actor", "subject", "invite", "at").get()
    assert event == {
        "family_plan": plan.pk,
        "kind": "INVITE_ACCEPTED",
        "actor": carol.pk,
        "subject": carol.pk,
        "invite": invite.pk,
        "at": NOON,
    }


def test_accepting_links_the_zammad_user_who_waits_for_the_person(
    carol: User, invite: FamilyPlanInvite
) -> None:
    waiting = ZammadUserFactory(email="carol@example.com")

    accept_invite(actor=carol, token=TOKEN)

    waiting.refresh_from_db()
    assert waiting.user == carol


def test_the_last_seat_is_taken_by_the_invite_that_held_it(
    plan: FamilyPlan, carol: User, invite: FamilyPlanInvite
) -> None:
    constance.config.USER_LIMIT = 3

    accept_invite(actor=carol, token=TOKEN)

    assert seats_taken(plan, now=NOON) == 3


def test_an_invite_is_good_until_the_moment_it_expires(
    carol: User, invite: FamilyPlanInvite, time_machine: TimeMachineFixture
) -> None:
    time_machine.move_to(invite.expires_at - MOMENT, tick=False)

    assert accept_invite(actor=carol, token=TOKEN).membership.user == carol


def test_any_verified_address_of_the_person_will_do(carol: User, invite: FamilyPlanInvite) -> None:
    FamilyPlanInvite.objects.filter(pk=invite.pk).update(email="carver@example.org")
    EmailAddress.objects.create(user=carol, email="carver@example.org", verified=True)

    assert accept_invite(actor=carol, token=TOKEN).membership.user == carol


@pytest.mark.parametrize("spelling", ["carol@bücher.example", "carol@xn--bcher-kva.example"])
def test_an_international_domain_is_the_same_however_it_is_spelled(
    carol: User, invite: FamilyPlanInvite, spelling: str
) -> None:
    FamilyPlanInvite.objects.filter(pk=invite.pk).update(email=normal_address(spelling, field="email"))
    for held in ("carol@bücher.example", "carol@xn--bcher-kva.example"):
        EmailAddress.objects.filter(user=carol).update(email=held)
        preview = preview_invite(actor=carol, token=TOKEN)
        assert preview.refusal is None

    assert accept_invite(actor=carol, token=TOKEN).membership.user == carol


def test_a_pause_of_invites_stops_no_acceptance(carol: User, invite: FamilyPlanInvite) -> None:
    constance.config.INVITES_ENABLED = False

    assert accept_invite(actor=carol, token=TOKEN).membership.user == carol


def test_whoever_used_the_invite_succeeds_again_also_long_after(
    plan: FamilyPlan, carol: User, invite: FamilyPlanInvite, time_machine: TimeMachineFixture
) -> None:
    # given a person whose client lost the response, and a plan that has changed since
    first = accept_invite(actor=carol, token=TOKEN).membership
    time_machine.move_to(NOON + timedelta(days=400), tick=False)
    constance.config.USER_LIMIT = 1
    EmailAddress.objects.filter(user=carol).delete()

    with unchanged():
        again = accept_invite(actor=carol, token=TOKEN).membership

    assert again == first


# --- Refusals, in their order: each test breaks every later rule, too --------------------------------


@pytest.fixture
def everything_forbids(plan: FamilyPlan, carol: User, invite: FamilyPlanInvite) -> FamilyPlanInvite:
    """An expired invite to a full plan, used by a third person, for another address than carol's,
    and carol has a plan.
    """
    constance.config.USER_LIMIT = 2
    OwnerFactory(user=carol)
    invite.user = UserFactory()
    invite.email = "another@example.com"
    invite.expires_at = NOON
    invite.save()
    return invite


def test_a_stranger_signs_in_first(everything_forbids: FamilyPlanInvite) -> None:
    with refused("NOT_AUTHENTICATED"):
        accept_invite(actor=AnonymousUser(), token=TOKEN)


@pytest.mark.parametrize(
    "token", ["", "u" * 43, TOKEN + "t", TOKEN.upper(), "nul\0", "half\ud800", "t" * 10**6]
)
def test_a_token_that_nobody_made_leads_nowhere(
    carol: User, everything_forbids: FamilyPlanInvite, token: str
) -> None:
    with refused("INVITE_NOT_FOUND"):
        accept_invite(actor=carol, token=token)


def test_a_digest_opens_nothing(carol: User, everything_forbids: FamilyPlanInvite) -> None:
    with refused("INVITE_NOT_FOUND"):
        accept_invite(actor=carol, token=everything_forbids.token_digest)


def test_an_invite_that_another_used_is_used(carol: User, everything_forbids: FamilyPlanInvite) -> None:
    with refused("INVITE_ALREADY_USED"):
        accept_invite(actor=carol, token=TOKEN)


def test_an_invite_is_dead_from_the_moment_it_expires(
    carol: User, everything_forbids: FamilyPlanInvite
) -> None:
    FamilyPlanInvite.objects.filter(pk=everything_forbids.pk).update(user=None)

    with refused("INVITE_EXPIRED"):
        accept_invite(actor=carol, token=TOKEN)


def test_an_invite_for_another_address_is_not_ones_own(
    carol: User, everything_forbids: FamilyPlanInvite
) -> None:
    FamilyPlanInvite.objects.filter(pk=everything_forbids.pk).update(user=None, expires_at=NOON + MOMENT)

    with refused("INVITE_EMAIL_MISMATCH"):
        accept_invite(actor=carol, token=TOKEN)


def test_an_address_that_was_never_verified_proves_nothing(invite: FamilyPlanInvite) -> None:
    FamilyPlanInvite.objects.filter(pk=invite.pk).update(email="victim@example.com")
    mallory = UserFactory(email="victim@example.com", verified=False)

    with refused("INVITE_EMAIL_MISMATCH"):
        accept_invite(actor=mallory, token=TOKEN)


def test_whoever_has_a_plan_stays_there(carol: User, everything_forbids: FamilyPlanInvite) -> None:
    FamilyPlanInvite.objects.filter(pk=everything_forbids.pk).update(
        user=None, expires_at=NOON + MOMENT, email=""
    )

    with refused("ALREADY_IN_PLAN"):
        accept_invite(actor=carol, token=TOKEN)


@pytest.mark.parametrize("name", ["alice", "bob"])
def test_whoever_is_in_this_plan_needs_no_second_seat(
    alice: User, bob: User, invite: FamilyPlanInvite, name: str
) -> None:
    with refused("ALREADY_IN_PLAN"):
        accept_invite(actor={"alice": alice, "bob": bob}[name], token=TOKEN)


def test_a_plan_whose_limit_was_lowered_is_full(carol: User, invite: FamilyPlanInvite) -> None:
    constance.config.USER_LIMIT = 2

    with refused("PLAN_FULL"):
        accept_invite(actor=carol, token=TOKEN)


def test_a_plans_own_limit_counts_more_than_the_setting(
    plan: FamilyPlan, carol: User, invite: FamilyPlanInvite
) -> None:
    FamilyPlan.objects.filter(pk=plan.pk).update(user_limit=2)

    with refused("PLAN_FULL"):
        accept_invite(actor=carol, token=TOKEN)


def test_a_revoked_invite_has_expired(alice: User, carol: User, invite: FamilyPlanInvite) -> None:
    revoke_invite(actor=alice, invite_id=invite.pk)

    with refused("INVITE_EXPIRED"):
        accept_invite(actor=carol, token=TOKEN)


def test_the_invites_of_a_closed_plan_have_expired(
    plan: FamilyPlan, alice: User, bob: User, carol: User, invite: FamilyPlanInvite
) -> None:
    detach_member(actor=bob, membership_id=bob.membership.pk)
    close_plan(actor=alice, plan_id=plan.pk)

    with refused("INVITE_EXPIRED"):
        accept_invite(actor=carol, token=TOKEN)


def test_a_person_who_was_detached_cannot_come_back_by_the_old_link(
    alice: User, carol: User, invite: FamilyPlanInvite
) -> None:
    membership = accept_invite(actor=carol, token=TOKEN).membership
    detach_member(actor=alice, membership_id=membership.pk)

    with refused("INVITE_EXPIRED"):
        accept_invite(actor=carol, token=TOKEN)


# --- The world changes before the lock -----------------------------------------------------------------


def test_an_account_that_ended_meanwhile_takes_no_seat(carol: User, invite: FamilyPlanInvite) -> None:
    User.objects.filter(pk=carol.pk).update(is_active=False)

    with refused("NOT_AUTHENTICATED"):
        accept_invite(actor=carol, token=TOKEN)


def test_a_link_that_died_while_one_waited_for_the_lock_is_dead(
    carol: User, invite: FamilyPlanInvite, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a reissue that commits between the lookup and the lock
    find = queries.invite_of_token.first

    def reissued_meanwhile(*, token_digest: str, lock: bool) -> queries.InviteOfToken | None:
        return find(token_digest="another" if lock else token_digest, lock=lock)

    monkeypatch.setattr(queries.invite_of_token, "first", reissued_meanwhile)

    with refused("INVITE_NOT_FOUND"):
        accept_invite(actor=carol, token=TOKEN)


def test_an_invite_that_expires_while_one_waits_for_the_lock_has_expired(
    carol: User, invite: FamilyPlanInvite, time_machine: TimeMachineFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = queries.lock_plan_of_token.first

    def waits_an_hour(*, token_digest: str) -> queries.LockedPlan | None:
        time_machine.move_to(invite.expires_at, tick=False)
        return lock(token_digest=token_digest)

    monkeypatch.setattr(queries.lock_plan_of_token, "first", waits_an_hour)

    with refused("INVITE_EXPIRED"):
        accept_invite(actor=carol, token=TOKEN)


# --- What the holder of a token may know before ----------------------------------------------------------


def test_a_preview_names_the_plan_and_its_owner(carol: User, invite: FamilyPlanInvite) -> None:
    with unchanged():
        preview = preview_invite(actor=carol, token=TOKEN)

    assert preview == services.InvitePreview(
        plan_name="The Archers",
        owner_name="Alice Archer",
        expires_at=invite.expires_at,
        status=FamilyPlanInvite.Status.OPEN,
        refusal=None,
    )


def test_an_account_that_was_deleted_meanwhile_sees_nothing(carol: User, invite: FamilyPlanInvite) -> None:
    User.objects.filter(pk=carol.pk).delete()

    with refused("NOT_AUTHENTICATED"):
        preview_invite(actor=carol, token=TOKEN)


def test_a_preview_tells_the_refusal_that_accepting_would_meet(
    carol: User, everything_forbids: FamilyPlanInvite
) -> None:
    steps: list[tuple[str, dict[str, object]]] = [
        ("INVITE_ALREADY_USED", {"user": None}),
        ("INVITE_EXPIRED", {"expires_at": NOON + MOMENT}),
        ("INVITE_EMAIL_MISMATCH", {"email": ""}),
        ("ALREADY_IN_PLAN", {}),
    ]
    for code, mended in steps:
        preview = preview_invite(actor=carol, token=TOKEN)
        assert preview.refusal is not None
        assert preview.refusal.code == code
        with refused(code):
            accept_invite(actor=carol, token=TOKEN)
        FamilyPlanInvite.objects.filter(pk=everything_forbids.pk).update(**mended)


def test_a_preview_of_ones_own_used_invite_meets_no_refusal(carol: User, invite: FamilyPlanInvite) -> None:
    accept_invite(actor=carol, token=TOKEN)

    preview = preview_invite(actor=carol, token=TOKEN)

    assert (preview.status, preview.refusal) == ("USED", None)


def test_a_preview_of_a_closed_plan_names_nobody(
    plan: FamilyPlan, alice: User, bob: User, carol: User, invite: FamilyPlanInvite
) -> None:
    detach_member(actor=bob, membership_id=bob.membership.pk)
    close_plan(actor=alice, plan_id=plan.pk)

    assert preview_invite(actor=carol, token=TOKEN).owner_name == ""


def test_a_preview_is_for_those_who_signed_in_and_hold_a_token(carol: User, invite: FamilyPlanInvite) -> None:
    with refused("NOT_AUTHENTICATED"):
        preview_invite(actor=AnonymousUser(), token=TOKEN)
    with refused("INVITE_NOT_FOUND"):
        preview_invite(actor=carol, token="another")
