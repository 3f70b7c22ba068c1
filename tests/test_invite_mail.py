"""What an invitation says, and that the invite stands whatever becomes of its mail."""

from collections.abc import Sequence
from datetime import UTC, datetime

import pytest
from django.contrib.auth.models import User
from django.core import mail
from django.core.mail import EmailMessage, EmailMultiAlternatives
from django.core.mail.backends.base import BaseEmailBackend
from django.db import connection
from pytest_django import Settings
from time_machine import TimeMachineFixture

from plans.models import FamilyPlan, FamilyPlanInvite
from plans.services import create_invite, reissue_invite
from tests.refusals import refused
from zammad.sandbox import Fault, Sandbox

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 8, 3, 12, tzinfo=UTC)


class Unwilling(BaseEmailBackend):
    """A mail server that refuses, and quotes whom."""

    def send_messages(self, email_messages: Sequence[EmailMessage]) -> int:
        raise OSError(f"550 {email_messages[0].to} is unknown here")


class Watching(BaseEmailBackend):
    """A mail server that notes whether it is asked while a transaction is open."""

    open_transactions: list[bool] = []  # noqa: RUF012  # emptied by the test

    def send_messages(self, email_messages: Sequence[EmailMessage]) -> int:
        Watching.open_transactions.append(connection.in_atomic_block)
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


@pytest.mark.django_db(transaction=True)
def test_no_lock_is_held_while_a_mail_is_on_its_way(
    plan: FamilyPlan, alice: User, sandbox: Sandbox, settings: Settings
) -> None:
    Watching.open_transactions.clear()
    settings.EMAIL_BACKEND = f"{__name__}.{Watching.__name__}"

    invite(alice, plan)

    assert Watching.open_transactions == [False]
