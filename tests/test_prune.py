"""Old data is forgotten: deliveries go, invites lose their addresses, and nothing else changes."""

from __future__ import annotations

import datetime
import io
from collections.abc import Callable
from unittest import mock

import pytest
from allauth.account.models import EmailAddress
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, User
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from plans.models import FamilyPlan, FamilyPlanInvite
from plans.retention import Pruned, prune
from plans.services import accept_invite, create_invite, detach_member, reissue_invite
from tests.factories import PASSWORD, InviteFactory, OwnerFactory, UserFactory, ZammadUserFactory
from tests.refusals import rows
from zammad.models import WebhookDelivery
from zammad.sandbox import Sandbox

pytestmark = pytest.mark.django_db

ADDRESS = "invited.person@example.com"


NO_ACCOUNT = " Deleted 0 accounts that were never verified."
NONE_TO_GO = " Would delete 0 accounts that were never verified."


def days_ago(days: float) -> datetime.datetime:
    return timezone.now() - datetime.timedelta(days=days)


def taken(deliveries: int) -> str:
    return f"Deleted {deliveries} deliveries and 0 counts of refusals,"


def receive(days: float) -> WebhookDelivery:
    return WebhookDelivery.objects.create(
        body_digest="0" * 64,
        received_at=days_ago(days),
        outcome=WebhookDelivery.Outcome.APPLIED,
        zammad_user=ZammadUserFactory(),
    )


def run(*arguments: str) -> str:
    told = io.StringIO()
    call_command("prune", *arguments, stdout=told)
    return told.getvalue().strip()


def addresses() -> dict[int, str]:
    return dict(FamilyPlanInvite.objects.values_list("pk", "email"))


def test_old_deliveries_are_deleted_and_what_they_brought_stays() -> None:
    old, young = receive(31), receive(29)

    told = run("--older-than", "30")

    assert (
        told
        == "Deleted 1 deliveries and 0 counts of refusals, and blanked the addresses of 0 invites."
        + NO_ACCOUNT
    )
    assert list(WebhookDelivery.objects.all()) == [young]
    assert old.zammad_user is not None
    old.zammad_user.refresh_from_db()


def test_deliveries_are_deleted_in_batches() -> None:
    for days in (31, 32, 33, 34, 35, 29):
        receive(days)

    with (
        mock.patch("zammad.services.DELETED_AT_ONCE", 2),
        CaptureQueriesContext(connection) as queries,
    ):
        done = prune(older_than=datetime.timedelta(days=30))

    assert done == Pruned(deliveries=5, refusals=0, addresses=0, accounts=0)
    assert WebhookDelivery.objects.count() == 1
    # Two, two and one.
    assert sum(query["sql"].startswith('DELETE FROM "zammad_webhook') for query in queries) == 3


def test_addresses_are_blanked_in_invites_that_ended_long_ago_used_or_not(
    plan: FamilyPlan, carol: User
) -> None:
    used = InviteFactory(family_plan=plan, email=ADDRESS, expires_at=days_ago(31), user=carol)
    expired = InviteFactory(family_plan=plan, email=ADDRESS, expires_at=days_ago(31))
    recent = InviteFactory(family_plan=plan, email=ADDRESS, expires_at=days_ago(29))
    still_open = InviteFactory(family_plan=plan, email="another@example.com", created_at=days_ago(90))
    before = rows()

    told = run("--older-than", "30")

    assert (
        told
        == "Deleted 0 deliveries and 0 counts of refusals, and blanked the addresses of 2 invites."
        + NO_ACCOUNT
    )
    kept = addresses()
    assert (kept[used.pk], kept[expired.pk]) == ("", "")
    assert (kept[recent.pk], kept[still_open.pk]) == (ADDRESS, "another@example.com")
    # then nothing else is different, in these invites or elsewhere
    for row in before["FamilyPlanInvite"]:
        if row["id"] in {used.pk, expired.pk}:
            row["email"] = ""
    assert rows() == before


def test_pruning_can_be_repeated(plan: FamilyPlan) -> None:
    InviteFactory(family_plan=plan, email=ADDRESS, expires_at=days_ago(31))
    receive(31)
    run("--older-than", "30")
    before = rows()

    assert (
        run("--older-than", "30")
        == "Deleted 0 deliveries and 0 counts of refusals, and blanked the addresses of 0 invites."
        + NO_ACCOUNT
    )
    assert rows() == before


def test_a_dry_run_counts_and_changes_nothing(plan: FamilyPlan) -> None:
    InviteFactory(family_plan=plan, email=ADDRESS, expires_at=days_ago(31))
    InviteFactory(family_plan=plan, email="", expires_at=days_ago(31))
    receive(31)
    before = rows()

    told = run("--older-than", "30", "--dry-run")

    assert (
        told
        == "Would delete 1 deliveries and 0 counts of refusals, and would blank the addresses of 1 invites."
        + NONE_TO_GO
    )
    assert rows() == before
    assert WebhookDelivery.objects.count() == 1


@pytest.mark.parametrize("days", ["0", "-1", "36501"])
def test_less_than_a_day_and_more_than_a_century_are_refused(plan: FamilyPlan, days: str) -> None:
    receive(31)

    with pytest.raises(CommandError, match="takes 1 to 36500 days"):
        run(f"--older-than={days}")

    assert WebhookDelivery.objects.count() == 1


def test_an_invite_that_lost_its_address_explains_and_ends_its_membership_still(
    plan: FamilyPlan, alice: User, sandbox: Sandbox
) -> None:
    # given a person who joined by an invite to their address, long ago
    guest = UserFactory(email=ADDRESS)
    issued = create_invite(actor=alice, plan_id=plan.pk, email=ADDRESS)
    membership = accept_invite(actor=guest, token=issued.token).membership
    FamilyPlanInvite.objects.filter(pk=issued.invite.pk).update(expires_at=days_ago(31))

    run("--older-than", "30")

    # then accepting again is still the same success, and the invite is found when they leave
    assert accept_invite(actor=guest, token=issued.token).membership == membership
    detached = detach_member(actor=alice, membership_id=membership.pk)
    assert detached.invite is not None
    assert detached.invite.pk == issued.invite.pk
    assert addresses()[issued.invite.pk] == ""


def test_an_invite_reissued_before_it_was_pruned_keeps_its_address(
    plan: FamilyPlan, alice: User, sandbox: Sandbox
) -> None:
    invite = InviteFactory(family_plan=plan, email=ADDRESS, expires_at=days_ago(31))
    reissue_invite(actor=alice, invite_id=invite.pk)

    run("--older-than", "30")

    assert addresses()[invite.pk] == ADDRESS


def test_an_invite_reissued_after_it_was_pruned_is_for_whoever_has_the_link(
    plan: FamilyPlan, alice: User, carol: User, sandbox: Sandbox, mailoutbox: list[object]
) -> None:
    invite = InviteFactory(family_plan=plan, email=ADDRESS, expires_at=days_ago(31))
    run("--older-than", "30")

    issued = reissue_invite(actor=alice, invite_id=invite.pk)

    assert mailoutbox == []
    assert accept_invite(actor=carol, token=issued.token).membership.family_plan == plan


# --- Abandoned accounts ---------------------------------------------------------------------------


def sign_up(email: str, *, days: float) -> User:
    """Sign up as a person does who never enters the code."""
    form = {"email": email, "password1": "correct-horse", "password2": "correct-horse"}
    assert Client().post("/accounts/signup/", form).status_code == 302
    person = User.objects.get(email=email)
    User.objects.filter(pk=person.pk).update(date_joined=days_ago(days))
    return person


def test_a_sign_up_that_was_never_verified_goes_after_a_week() -> None:
    given_up, young = sign_up("old@example.com", days=7.1), sign_up("young@example.com", days=6.9)

    assert run("--older-than", "30", "--dry-run").endswith(
        "Would delete 1 accounts that were never verified."
    )
    assert User.objects.filter(pk=given_up.pk).exists()
    assert run("--older-than", "30").endswith("Deleted 1 accounts that were never verified.")

    assert list(User.objects.all()) == [young]
    assert list(EmailAddress.objects.values_list("email", flat=True)) == ["young@example.com"]


def verify(person: User) -> None:
    EmailAddress.objects.filter(user=person).update(verified=True)


def own_a_plan(person: User) -> None:
    OwnerFactory(user=person)


def create_an_invite(person: User) -> None:
    InviteFactory(created_by=person)


def be_linked(person: User) -> None:
    ZammadUserFactory(user=person)


def join_a_group(person: User) -> None:
    person.groups.add(Group.objects.get(name="Support"))


def have_signed_in(person: User) -> None:
    User.objects.filter(pk=person.pk).update(last_login=days_ago(8))


def become_staff(person: User) -> None:
    User.objects.filter(pk=person.pk).update(is_staff=True)


@pytest.mark.parametrize(
    "reason",
    [verify, own_a_plan, create_an_invite, be_linked, join_a_group, have_signed_in, become_staff],
)
def test_an_account_that_holds_anything_stays(reason: Callable[[User], None]) -> None:
    person = sign_up("kept@example.com", days=8)
    reason(person)

    assert run("--older-than", "30").endswith("Deleted 0 accounts that were never verified.")

    assert User.objects.filter(pk=person.pk).exists()


@pytest.mark.parametrize("forgotten", [False, True])
def test_an_account_made_by_staff_stays_also_when_its_person_tried_to_sign_in(
    superuser: User, forgotten: bool
) -> None:
    staff = Client()
    staff.force_login(superuser)
    form = {"email": "erin@example.com", "password1": PASSWORD, "password2": PASSWORD}
    staff.post("/admin/auth/user/add/", {**form, "usable_password": "true"})
    Client().post("/accounts/login/", {"login": "erin@example.com", "password": PASSWORD})
    erin = User.objects.get(email="erin@example.com")
    assert EmailAddress.objects.filter(user=erin, verified=False).exists()
    User.objects.filter(pk=erin.pk).update(date_joined=days_ago(30))
    if forgotten:  # the history goes with the member of staff
        LogEntry.objects.all().delete()

    run("--older-than", "30")

    assert User.objects.filter(pk=erin.pk).exists()


def test_accounts_go_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plans.retention.BATCH", 2)
    for number in range(5):
        sign_up(f"person{number}@example.com", days=8)

    assert run("--older-than", "30").endswith("Deleted 5 accounts that were never verified.")
    assert not User.objects.exists()
