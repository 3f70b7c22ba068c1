"""What is old is forgotten: deliveries go, invites lose their addresses, and nothing else changes."""

from __future__ import annotations

import datetime
import io
from unittest import mock

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from plans.models import FamilyPlan, FamilyPlanInvite
from plans.retention import Pruned, prune
from plans.services import accept_invite, create_invite, detach_member, reissue_invite
from tests.factories import InviteFactory, UserFactory, ZammadUserFactory
from tests.refusals import rows
from zammad.models import WebhookDelivery
from zammad.sandbox import Sandbox

pytestmark = pytest.mark.django_db

ADDRESS = "invited.person@example.com"


def days_ago(days: float) -> datetime.datetime:
    return timezone.now() - datetime.timedelta(days=days)


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

    assert told == "Deleted 1 deliveries and 0 counts of refusals, and blanked the addresses of 0 invites."
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

    assert done == Pruned(deliveries=5, refusals=0, addresses=0)
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

    assert told == "Deleted 0 deliveries and 0 counts of refusals, and blanked the addresses of 2 invites."
    kept = addresses()
    assert (kept[used.pk], kept[expired.pk]) == ("", "")
    assert (kept[recent.pk], kept[still_open.pk]) == (ADDRESS, "another@example.com")
    # then nothing else in these invites, nor anywhere else, is different
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

    # then accepting again is the same success still, and the invite is found when they go
    assert accept_invite(actor=guest, token=issued.token).membership == membership
    detached = detach_member(actor=alice, membership_id=membership.pk)
    assert detached.invite == issued.invite
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
