"""Who gets a mail when a person joins or leaves a plan, or takes it over, and what the mail says."""

from __future__ import annotations

from typing import Any

import constance
import pytest
from allauth.account.models import EmailAddress
from django.contrib.auth.models import User
from django.core import mail
from django.core.mail import EmailMultiAlternatives
from pytest_django import Settings

from plans.models import FamilyPlan, Membership
from plans.services import accept_invite, close_plan, detach_member, transfer_ownership
from tests.factories import FamilyPlanFactory, InviteFactory
from tests.mail_server import MailServer
from tests.questions import owner_of
from tests.refusals import refused

pytestmark = pytest.mark.django_db

TOKEN = "t" * 43


@pytest.fixture
def _open_invite(plan: FamilyPlan, alice: User) -> None:
    InviteFactory(family_plan=plan, created_by=alice, token=TOKEN)


def told() -> dict[str, tuple[str, str]]:
    """Return subject and text of every mail, by address; the HTML says the same."""
    letters = {}
    for message in mail.outbox:
        assert isinstance(message, EmailMultiAlternatives)
        [address] = message.recipients()
        [(markup, mimetype)] = message.alternatives
        assert mimetype == "text/html"
        paragraphs = [line for line in str(message.body).splitlines() if line]
        assert [f"<p>{line}</p>" in str(markup) for line in paragraphs] == [True] * len(paragraphs)
        assert message.extra_headers == {"Auto-Submitted": "auto-generated"}
        assert address not in letters
        letters[address] = (str(message.subject), "\n".join(paragraphs))
    return letters


TRANSFER_BACK = "If you did not expect this, contact support: they can transfer it back."
BOB_LEFT = {
    "bob@example.com": (
        "Your seat in a family plan has ended",
        "Your seat in the family plan The Archers has ended.",
    ),
    "alice@example.com": (
        "Somebody left your family plan",
        "Bob Baker is no longer in your family plan The Archers.",
    ),
}


@pytest.mark.usefixtures("_open_invite")
def test_the_owner_and_the_new_member_are_told_of_joining(carol: User) -> None:
    accept_invite(actor=carol, token=TOKEN)

    assert told() == {
        "carol@example.com": (
            "You joined a family plan",
            (
                "You are now in the family plan The Archers.\n"
                "Its members see your name, and its owner sees your address, too."
            ),
        ),
        "alice@example.com": (
            "Somebody joined your family plan",
            (
                "Carol Carver joined your family plan The Archers.\n"
                "If you do not know this person, detach them to free the seat."
            ),
        ),
    }


@pytest.mark.parametrize("name", ["alice", "bob", "support"])
def test_the_owner_and_the_former_member_are_told_of_leaving_and_not_by_whom(
    plan: FamilyPlan, alice: User, bob: User, support: User, name: str
) -> None:
    actor = {"alice": alice, "bob": bob, "support": support}[name]

    detach_member(actor=actor, membership_id=bob.membership.pk)

    assert told() == BOB_LEFT


def test_an_owner_whose_plan_was_closed_is_told(plan: FamilyPlan, bob: User, support: User) -> None:
    detach_member(actor=bob, membership_id=bob.membership.pk)
    mail.outbox.clear()

    close_plan(actor=support, plan_id=plan.pk)

    assert told() == {
        "alice@example.com": (
            "Your seat in a family plan has ended",
            "Your seat in the family plan The Archers has ended.",
        )
    }


@pytest.mark.usefixtures("_open_invite")
def test_staff_may_switch_off_what_is_told_of_joining_and_leaving(
    plan: FamilyPlan, alice: User, bob: User, carol: User
) -> None:
    constance.config.MEMBERSHIP_MAILS = False

    accept_invite(actor=carol, token=TOKEN)
    for member in (bob, carol):
        detach_member(actor=alice, membership_id=member.membership.pk)
    close_plan(actor=alice, plan_id=plan.pk)

    assert mail.outbox == []


@pytest.mark.parametrize("switched_on", [True, False])
def test_both_are_always_told_of_a_transfer_and_staff_transfer_it_back(
    plan: FamilyPlan, alice: User, bob: User, support: User, switched_on: bool
) -> None:
    constance.config.MEMBERSHIP_MAILS = switched_on

    transfer_ownership(actor=alice, membership_id=bob.membership.pk)

    assert told() == {
        "bob@example.com": (
            "You own a family plan now",
            f"You are now the owner of the family plan The Archers.\n{TRANSFER_BACK}",
        ),
        "alice@example.com": (
            "Your family plan has another owner",
            "Bob Baker is now the owner of the family plan The Archers, and you are a member.\n"
            + TRANSFER_BACK,
        ),
    }

    mail.outbox.clear()
    transfer_ownership(actor=support, membership_id=alice.membership.pk)

    assert owner_of(plan) == alice
    assert {address: subject for address, (subject, _) in told().items()} == {
        "alice@example.com": "You own a family plan now",
        "bob@example.com": "Your family plan has another owner",
    }


@pytest.mark.usefixtures("_open_invite")
def test_what_changes_nothing_tells_nobody(plan: FamilyPlan, alice: User, bob: User, carol: User) -> None:
    accept_invite(actor=carol, token=TOKEN)
    mail.outbox.clear()

    accept_invite(actor=carol, token=TOKEN)
    transfer_ownership(actor=alice, membership_id=alice.membership.pk)
    with refused("INVITE_ALREADY_USED"):
        accept_invite(actor=bob, token=TOKEN)
    with refused("OWNER_CANNOT_BE_DETACHED"):
        detach_member(actor=alice, membership_id=alice.membership.pk)
    with refused("PERMISSION_DENIED"):
        transfer_ownership(actor=bob, membership_id=carol.membership.pk)
    with refused("PLAN_NOT_EMPTY"):
        close_plan(actor=alice, plan_id=plan.pk)

    assert mail.outbox == []


def test_people_are_told_at_their_primary_address_which_they_verified(
    plan: FamilyPlan, alice: User, bob: User
) -> None:
    EmailAddress.objects.filter(user=bob).update(primary=False)
    EmailAddress.objects.create(user=bob, email="bob@home.example", verified=True, primary=True)
    EmailAddress.objects.create(user=bob, email="bob@old.example", verified=True)
    EmailAddress.objects.filter(user=alice).update(verified=False)

    detach_member(actor=bob, membership_id=bob.membership.pk)

    assert set(told()) == {"bob@home.example"}


def test_whoever_may_not_sign_in_any_more_is_told_nothing(plan: FamilyPlan, alice: User, bob: User) -> None:
    User.objects.filter(pk=bob.pk).update(is_active=False)
    EmailAddress.objects.filter(user=alice).update(verified=False)

    detach_member(actor=alice, membership_id=bob.membership.pk)

    assert mail.outbox == []
    assert not Membership.objects.filter(user=bob).exists()


def test_a_plan_without_an_owner_tells_its_new_member(carol: User) -> None:
    InviteFactory(family_plan=FamilyPlanFactory(), token=TOKEN)

    accept_invite(actor=carol, token=TOKEN)

    assert set(told()) == {"carol@example.com"}


def test_names_stand_in_the_body_only_on_one_line_and_escaped(
    plan: FamilyPlan, alice: User, bob: User
) -> None:
    bob.first_name, bob.last_name = "<b>Bob</b>\r\nBcc: all@example.com\r\n\r\nPay", "here & now"
    bob.save()
    FamilyPlan.objects.filter(pk=plan.pk).update(name="Ours\r\n\r\n<i>")

    detach_member(actor=alice, membership_id=bob.membership.pk)

    to_owner = next(message for message in mail.outbox if message.to == ["alice@example.com"])
    assert isinstance(to_owner, EmailMultiAlternatives)
    line = "<b>Bob</b> Bcc: all@ example. com Pay here & now is no longer in your family plan Ours <i>."
    assert str(to_owner.body).split("\n") == [line, "", ""]
    [(markup, _)] = to_owner.alternatives
    escaped = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    assert f"<p>{escaped}</p>" in str(markup)
    sent = to_owner.message()
    assert (sent["Subject"], sent["Bcc"]) == ("Somebody left your family plan", None)


def test_an_address_that_is_refused_keeps_nobody_else_from_being_told(
    plan: FamilyPlan, bob: User, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    with MailServer(unknown={"bob@example.com"}) as mail_server:
        mail_server.point(settings)

        detach_member(actor=bob, membership_id=bob.membership.pk)

    assert [address for address, _ in mail_server.mails] == ["alice@example.com"]
    assert mail_server.connections == 1
    assert logged(caplog) == [f"A mail about plan {plan.pk} failed: SMTPRecipientsRefused"]
    assert "bob@example.com" not in caplog.text


@pytest.mark.usefixtures("_open_invite")
def test_a_mail_server_that_is_gone_changes_nothing_about_a_membership(
    plan: FamilyPlan, carol: User, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    with MailServer() as mail_server:
        mail_server.point(settings)

    membership = accept_invite(actor=carol, token=TOKEN).membership

    assert Membership.objects.get(user=carol) == membership
    assert logged(caplog) == [f"A mail about plan {plan.pk} failed: ConnectionRefusedError"]
    assert "example.com" not in caplog.text


def logged(caplog: pytest.LogCaptureFixture) -> list[Any]:
    return [record.getMessage() for record in caplog.records if record.name == "plans.mail"]
