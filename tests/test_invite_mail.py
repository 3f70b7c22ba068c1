"""What an invitation says, how many an address gets, and that the invite stands even if the mail fails."""

import hashlib
import re
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from django.contrib.auth.models import User
from django.core import mail
from django.core.mail import EmailMessage, EmailMultiAlternatives
from django.core.mail.backends.base import BaseEmailBackend
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from pytest_django import Settings
from time_machine import TimeMachineFixture

from plans.mail import mail_invitation
from plans.models import FamilyPlan, FamilyPlanInvite, InvitationMail, Membership
from plans.quotas import PlaceQuerySet
from plans.services import (
    accept_invite,
    close_plan,
    create_invite,
    detach_member,
    reissue_invite,
    revoke_invite,
    transfer_ownership,
)
from tests import mail_server as smtp
from tests.api import ask, client_of, node_id
from tests.factories import InviteFactory, OwnerFactory, UserFactory
from tests.mail_server import MailServer
from tests.refusals import refused
from zammad.admin_base import page_of
from zammad.sandbox import Fault, Sandbox

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 8, 3, 12, tzinfo=UTC)
SLACK = 1.5  # seconds, for a machine with other work


class Unwilling(BaseEmailBackend):
    """A mail server that refuses, and quotes the recipient."""

    def send_messages(self, email_messages: Sequence[EmailMessage]) -> int:
        raise OSError(f"550 {email_messages[0].to} is unknown here")


class Watching(BaseEmailBackend):
    """A mail server that notes what the sending operation holds of the database at that moment."""

    journeys: BaseDatabaseWrapper  # the connection of its thread
    seen: list[tuple[bool, object]] = []  # noqa: RUF012  # emptied by the test

    def send_messages(self, email_messages: Sequence[EmailMessage]) -> int:
        Watching.seen.append((self.journeys.in_atomic_block, self.journeys.connection))
        return len(email_messages)


def invite(actor: User, plan: FamilyPlan, email: str = "dave@example.com") -> FamilyPlanInvite:
    issued = create_invite(actor=actor, plan_id=plan.pk, email=email)
    assert issued.invite.mail_status == FamilyPlanInvite.objects.get(pk=issued.invite.pk).mail_status
    return issued.invite


def test_an_invitation_says_who_invites_where_to_click_and_until_when(
    plan: FamilyPlan, alice: User, sandbox: Sandbox, time_machine: TimeMachineFixture
) -> None:
    time_machine.move_to(NOON, tick=False)

    issued = create_invite(actor=alice, plan_id=plan.pk, email="dave@example.com")

    assert issued.invite.mail_status == "SENT"
    [message] = mail.outbox
    assert isinstance(message, EmailMultiAlternatives)
    assert (message.subject, message.to) == ("You are invited to a family plan", ["dave@example.com"])
    assert message.from_email == "Family Plans <no-reply@127.0.0.1>"
    [(markup, mimetype)] = message.alternatives
    assert mimetype == "text/html"
    for text in (message.body, str(markup)):
        assert "Alice Archer invites you to share a family plan." in text
        assert issued.url in text
        assert "5 August 2026, 12:00 UTC" in text


def test_names_cannot_break_out_of_the_mail(plan: FamilyPlan, alice: User, sandbox: Sandbox) -> None:
    alice.first_name = "<script>alert(1)</script>&"
    alice.last_name = "\r\nBcc: everybody@example.com\r\n\r\nhello"
    FamilyPlan.objects.filter(pk=plan.pk).update(name="Subject:\r\nBcc: everybody@example.com")

    invite(alice, plan)

    [message] = mail.outbox
    assert isinstance(message, EmailMultiAlternatives)
    sent = message.message()
    assert sent["To"] == "dave@example.com"
    assert (sent["Subject"], sent["Bcc"]) == ("You are invited to a family plan", None)
    assert message.recipients() == ["dave@example.com"]
    [(markup, _)] = message.alternatives
    assert "<script>" not in str(markup)
    assert "&lt;script&gt;" in str(markup)
    assert "<script>alert(1)</script>& " in str(message.body)


def test_without_an_address_nothing_is_mailed(plan: FamilyPlan, alice: User, sandbox: Sandbox) -> None:
    issued = create_invite(actor=alice, plan_id=plan.pk)

    assert (issued.invite.mail_status, mail.outbox) == ("NONE", [])


def test_a_refused_invite_mails_nobody(plan: FamilyPlan, alice: User, sandbox: Sandbox) -> None:
    sandbox.faults.set("POST", Fault.RESET)

    with refused("INVITE_TOKEN_UNAVAILABLE"):
        create_invite(actor=alice, plan_id=plan.pk, email="dave@example.com")

    assert mail.outbox == []


def test_an_invite_stands_when_its_mail_fails(
    plan: FamilyPlan,
    alice: User,
    sandbox: Sandbox,
    settings: Settings,
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings.EMAIL_BACKEND = f"{__name__}.{Unwilling.__name__}"

    failed = invite(alice, plan)

    assert (failed.mail_status, failed.is_used) == ("FAILED", False)
    [record] = [record for record in caplog.records if record.name == "plans.mail"]
    assert record.getMessage() == f"The mail of invite {failed.pk} failed: OSError"
    assert "dave@example.com" not in caplog.text


def test_a_reissue_mails_the_new_link(
    plan: FamilyPlan, alice: User, sandbox: Sandbox, settings: Settings
) -> None:
    backend, settings.EMAIL_BACKEND = settings.EMAIL_BACKEND, f"{__name__}.{Unwilling.__name__}"
    failed = invite(alice, plan)
    settings.EMAIL_BACKEND = backend

    issued = reissue_invite(actor=alice, invite_id=failed.pk)

    assert FamilyPlanInvite.objects.get(pk=failed.pk).mail_status == "SENT"
    assert issued.url in mail.outbox[0].body


def test_the_mail_status_of_an_older_link_never_overwrites_a_newer_ones(
    plan: FamilyPlan, alice: User, sandbox: Sandbox
) -> None:
    def fail_after_a_reissue(older: FamilyPlanInvite, **link: Any) -> FamilyPlanInvite.MailStatus:
        sending.side_effect = mail_invitation
        newer = reissue_invite(actor=alice, invite_id=older.pk).invite
        assert newer.mail_status == "SENT"
        return FamilyPlanInvite.MailStatus.FAILED

    with mock.patch("plans.services.mail_invitation", side_effect=fail_after_a_reissue) as sending:
        older = create_invite(actor=alice, plan_id=plan.pk, email="dave@example.com").invite

    assert older.mail_status == "FAILED"
    assert FamilyPlanInvite.objects.get(pk=older.pk).mail_status == "SENT"


@pytest.mark.django_db(transaction=True)
def test_no_lock_and_no_connection_is_held_while_a_mail_is_on_its_way(
    plan: FamilyPlan, alice: User, bob: User, carol: User, sandbox: Sandbox, settings: Settings
) -> None:
    Watching.seen.clear()
    Watching.journeys = connections["default"]
    settings.EMAIL_BACKEND = f"{__name__}.{Watching.__name__}"

    issued = create_invite(actor=alice, plan_id=plan.pk, email="carol@example.com")
    issued = reissue_invite(actor=alice, invite_id=issued.invite.pk)
    assert len(Watching.seen) == 2
    accept_invite(actor=carol, token=issued.token)
    detach_member(actor=alice, membership_id=carol.membership.pk)
    transfer_ownership(actor=alice, membership_id=bob.membership.pk)
    detach_member(actor=bob, membership_id=alice.membership.pk)
    assert len(Watching.seen) == 10
    close_plan(actor=bob, plan_id=plan.pk)

    assert Watching.seen == [(False, None)] * 11


# --- How many ------------------------------------------------------------------------------------


def test_an_address_gets_three_invitation_mails_in_any_24_hours(
    plan: FamilyPlan, alice: User, sandbox: Sandbox, time_machine: TimeMachineFixture
) -> None:
    plans = [OwnerFactory().family_plan for _ in range(9)]
    hours = {0: "SENT", 10: "SENT", 20: "SENT", 23.99: "SKIPPED"}  # the window moves with the clock
    hours |= {24: "SENT", 25: "SKIPPED", 34: "SENT", 43.99: "SKIPPED", 44: "SENT"}

    became = {}
    for hour, other in zip(hours, plans, strict=True):
        time_machine.move_to(NOON + timedelta(hours=hour), tick=False)
        owner = other.memberships.get().user
        became[hour] = str(invite(owner, other).mail_status)

    assert became == hours
    assert len(mail.outbox) == 6


def test_a_skipped_mail_leaves_the_invite_and_its_link(
    plan: FamilyPlan, alice: User, sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    dave = UserFactory(email="dave@example.com")
    issued = create_invite(actor=alice, plan_id=plan.pk, email="dave@example.com")
    for _ in range(3):
        issued = reissue_invite(actor=alice, invite_id=issued.invite.pk)

    assert (issued.invite.mail_status, len(mail.outbox)) == ("SKIPPED", 3)
    assert issued.url not in str([message.body for message in mail.outbox])
    [record] = [record for record in caplog.records if record.name == "plans.mail"]
    told = f"The mail of invite {issued.invite.pk} was skipped: its address has reached the daily limit."
    assert record.getMessage() == told
    assert accept_invite(actor=dave, token=issued.token).membership.family_plan == plan


def test_mails_to_one_address_are_counted_however_it_is_written(
    plan: FamilyPlan, alice: User, sandbox: Sandbox
) -> None:
    written = ["dave@bücher.example", "Dave@BÜCHER.example", "dave@xn--bcher-kva.example"]
    for address in written:
        revoke_invite(actor=alice, invite_id=invite(alice, plan, address).pk)

    assert invite(alice, plan, written[0]).mail_status == "SKIPPED"
    assert invite(alice, plan, "erin@bücher.example").mail_status == "SENT"


def test_what_is_kept_of_a_mailed_address_does_not_tell_it(
    plan: FamilyPlan, alice: User, sandbox: Sandbox, time_machine: TimeMachineFixture
) -> None:
    time_machine.move_to(NOON, tick=False)

    invite(alice, plan)

    kept = InvitationMail.objects.values("address_digest", "place", "taken_at").get()
    assert kept | {"address_digest": ""} == {"address_digest": "", "place": 0, "taken_at": NOON}
    assert re.fullmatch("[0-9a-f]{64}", kept["address_digest"])
    assert kept["address_digest"] != hashlib.sha256(b"dave@example.com").hexdigest()
    assert str(InvitationMail.objects.get()) == f"Invitation mail {InvitationMail.objects.get().pk}"


def test_a_place_that_somebody_takes_at_this_moment_is_passed_over(alice: User) -> None:
    InvitationMail.take_place("dave@example.com", now=NOON)

    # it was read before the others were used up
    with mock.patch.object(PlaceQuerySet, "values_list", return_value=[]):
        second = InvitationMail.take_place("dave@example.com", now=NOON)

    assert second is not None
    assert second.place == 1


# --- A mail server that fails --------------------------------------------------------------------


def test_mails_that_never_arrived_are_not_counted(
    plan: FamilyPlan, alice: User, sandbox: Sandbox, settings: Settings
) -> None:
    with MailServer() as gone:
        gone.point(settings)
    invited = invite(alice, plan)
    became = [invited.mail_status]

    for mail_server in (
        MailServer(fault=smtp.Fault.BUSY),
        MailServer(unknown={"dave@example.com"}),
        *(MailServer() for _ in range(4)),
    ):
        with mail_server:
            mail_server.point(settings)
            became.append(reissue_invite(actor=alice, invite_id=invited.pk).invite.mail_status)

    assert became == ["FAILED"] * 3 + ["SENT"] * 3 + ["SKIPPED"]


@pytest.mark.parametrize("fault", [smtp.Fault.HANG, smtp.Fault.DRIP, smtp.Fault.SILENT_END])
def test_a_mail_server_that_dawdles_is_given_up_in_time_and_its_mails_are_counted(
    plan: FamilyPlan,
    alice: User,
    sandbox: Sandbox,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    fault: smtp.Fault,
) -> None:
    monkeypatch.setattr("plans.mail.DEADLINE", 0.3)
    with MailServer(fault=fault) as mail_server:
        mail_server.point(settings)

        started = time.monotonic()
        failed = invite(alice, plan)
        lasted = time.monotonic() - started
        for _ in range(2):
            reissue_invite(actor=alice, invite_id=failed.pk)
        fourth = reissue_invite(actor=alice, invite_id=failed.pk)

    assert failed.mail_status == "FAILED"
    assert 0.3 <= lasted < 0.3 + SLACK
    assert fourth.invite.mail_status == "SKIPPED"


def test_a_mail_server_that_dawdles_keeps_nobody_from_accepting(
    plan: FamilyPlan,
    carol: User,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    InviteFactory(family_plan=plan, token="t" * 43)
    monkeypatch.setattr("plans.mail.DEADLINE", 0.3)
    with MailServer(fault=smtp.Fault.DRIP) as mail_server:
        mail_server.point(settings)

        started = time.monotonic()
        membership = accept_invite(actor=carol, token="t" * 43).membership
        lasted = time.monotonic() - started

    assert Membership.objects.get(user=carol) == membership
    assert lasted < 0.3 + SLACK
    assert [record.getMessage() for record in caplog.records if record.name == "plans.mail"] == [
        f"A mail about plan {plan.pk} failed: TimeoutError"
    ]


def test_the_owner_and_staff_see_that_a_mail_failed(
    plan: FamilyPlan, alice: User, support: User, sandbox: Sandbox, settings: Settings
) -> None:
    settings.EMAIL_BACKEND = f"{__name__}.{Unwilling.__name__}"
    failed = invite(alice, plan)

    found = ask(
        alice,
        "query($id: ID!) { node(id: $id) { ... on FamilyPlanInvite { mailStatus } } }",
        id=node_id(failed),
    )
    staff = client_of(support)
    pages = [
        staff.get("/admin/plans/familyplaninvite/"),
        staff.get(page_of(failed)),
        staff.get(page_of(plan)),
    ]

    assert found == {"mailStatus": "FAILED"}
    for page in pages:
        newest = page.content.decode().partition("field-mail_status")[2]
        assert re.findall(r">\s*([A-Z]\w+)\s*<", newest)[0] == "Failed"


# --- The operator's own templates -----------------------------------------------------------------


@pytest.fixture
def own_templates(tmp_path: Path, settings: Settings) -> Path:
    """A directory in the place of TEMPLATES_DIR: before ours."""
    [engine] = settings.TEMPLATES
    settings.TEMPLATES = [{**engine, "DIRS": [tmp_path, *engine["DIRS"]]}]
    (tmp_path / "plans" / "mail").mkdir(parents=True)
    return tmp_path / "plans" / "mail"


def test_an_operator_writes_the_mails_in_their_own_words(
    plan: FamilyPlan, alice: User, sandbox: Sandbox, own_templates: Path, time_machine: TimeMachineFixture
) -> None:
    time_machine.move_to(NOON, tick=False)
    (own_templates / "invitation.txt").write_text("ACME: {{ inviter }}, {{ url }}, {{ expires_at|date:'c' }}")
    (own_templates / "base.html").write_text("<h1>ACME</h1>{% block text %}{% endblock %}")

    issued = create_invite(actor=alice, plan_id=plan.pk, email="dave@example.com")

    [message] = mail.outbox
    assert isinstance(message, EmailMultiAlternatives)
    assert message.body == f"ACME: Alice Archer, {issued.url}, 2026-08-05T12:00:00+00:00"
    [(markup, _)] = message.alternatives
    assert str(markup).startswith("<h1>ACME</h1>")
    assert "Alice Archer invites you to share a family plan." in str(markup)


def test_an_invite_stands_when_an_operators_template_is_broken(
    plan: FamilyPlan, alice: User, sandbox: Sandbox, own_templates: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (own_templates / "invitation.txt").write_text("{% if %}")

    failed = invite(alice, plan)

    assert failed.mail_status == "FAILED"
    [record] = [record for record in caplog.records if record.name == "plans.mail"]
    assert record.getMessage() == f"The mail of invite {failed.pk} failed: TemplateSyntaxError"


def test_invitations_are_counted_by_mailbox() -> None:
    for address in ("dave@example.com", "dave+a@example.com", "DAVE+b@example.com"):
        assert InvitationMail.take_place(address, now=NOON) is not None

    assert InvitationMail.take_place("dave+c@example.com", now=NOON) is None
