"""Nothing that people choose, name, address or browser, is a link in any of our mails."""

from __future__ import annotations

import re
from pathlib import Path

import allauth
import pytest
from allauth.account.adapter import get_adapter
from allauth.account.models import EmailAddress
from allauth.core.context import request_context
from django.contrib.auth.models import User
from django.core import mail
from django.core.cache import cache
from django.core.mail import EmailMultiAlternatives
from django.core.management import CommandError, call_command
from django.test import Client, RequestFactory
from django.utils import timezone, translation
from pytest_django import Settings

from plans.models import FamilyPlan
from plans.services import accept_invite, close_plan, create_invite, detach_member, transfer_ownership
from tests.admin_pages import as_person, url
from tests.api import client_of
from tests.factories import InviteFactory, UserFactory
from tests.test_links import links_in
from zammad.sandbox import Sandbox

pytestmark = pytest.mark.django_db

PASSWORD = "correct horse battery staple"
API = "/_allauth/app/v1"
HOSTILE = "www.evil.example/win"
# Local parts that RFC 5322 allows, and most programs do.
LOCAL_PARTS = [HOSTILE, "evil.example", "http//evil.example/win", "me+evil.example/win"]
ODD = [
    '"www.evil.example/win"@example.com',
    '"ab"@example.com',
    '"a b"@example.com',
    '"evil@evil.example"@example.com',
    '"x\\"y"@example.com',
    "bell\a@example.com",
    "nul\0@example.com",
    "tab\t@example.com",
    "line\n@example.com",
    "half\u2028@example.com",
    "hidden\u200b@example.com",
    "a@[192.0.2.1]",
]
TEMPLATES = sorted(
    path.name.removesuffix("_message.txt")
    for path in (Path(allauth.__file__).parent / "templates" / "account" / "email").glob("*_message.txt")
    if path.name not in {"base_message.txt", "unknown_account_message.txt"}  # never sent
)


def texts_of(message: EmailMultiAlternatives | mail.EmailMessage) -> list[str]:
    """Return the subject and each part of a mail as a reader sees it."""
    parts = [str(markup) for markup, _ in getattr(message, "alternatives", [])]
    shown = [re.sub(r"<[^>]*>", "\n", part) for part in parts]
    return [str(message.subject), str(message.body), *shown]


def foreign_links() -> list[str]:
    """List the links in mails that do not lead to us."""
    ours = re.compile(r"http://127\.0\.0\.1:8000[\w/-]*")
    return [
        link
        for message in mail.outbox
        for text in texts_of(message)
        for link in links_in(ours.sub("OURS", text))
    ]


# --- Mails about plans ------------------------------------------------------------------------------


@pytest.mark.parametrize("local_part", LOCAL_PARTS)
@pytest.mark.parametrize("language", ["en", "de"])
def test_no_mail_about_a_plan_makes_a_link_of_a_name(
    local_part: str, language: str, plan: FamilyPlan, alice: User, bob: User, sandbox: Sandbox
) -> None:
    # given a plan and people with such names, from before names were checked
    FamilyPlan.objects.update(name=HOSTILE)
    User.objects.filter(pk=alice.pk).update(first_name="", last_name="", email=f"{local_part}@example.com")
    User.objects.filter(pk=bob.pk).update(first_name=HOSTILE, last_name="bob@evil.example")
    alice.refresh_from_db()
    dave = UserFactory(first_name="", last_name="", email=f"{local_part}@example.org")
    InviteFactory(family_plan=plan, token="t" * 43)

    with translation.override(language):
        create_invite(actor=alice, plan_id=plan.pk, email="carol@example.com")
        accept_invite(actor=dave, token="t" * 43)
        transfer_ownership(actor=alice, membership_id=dave.membership.pk)
        for person in (alice, bob):
            detach_member(actor=dave, membership_id=person.membership.pk)
        close_plan(actor=dave, plan_id=plan.pk)

    assert len(mail.outbox) == 10
    assert foreign_links() == []
    assert "evil. example/win" in str(mail.outbox[-1].body)


def test_an_innocent_name_is_written_as_it_is(plan: FamilyPlan, alice: User, sandbox: Sandbox) -> None:
    User.objects.filter(pk=alice.pk).update(first_name="Dr. Anna", last_name="Müller & Co. KG")
    alice.refresh_from_db()

    create_invite(actor=alice, plan_id=plan.pk, email="carol@example.com")

    assert "Dr. Anna Müller & Co. KG invites you" in str(mail.outbox[0].body)


# --- Mails about accounts ---------------------------------------------------------------------------


@pytest.mark.parametrize("local_part", LOCAL_PARTS)
def test_no_mail_that_a_stranger_causes_makes_a_link_of_an_address(local_part: str, client: Client) -> None:
    address = f"{local_part}@example.com"
    form = {"email": address, "password1": PASSWORD, "password2": PASSWORD}

    client.post("/accounts/signup/", form)  # a code
    EmailAddress.objects.update(verified=True)
    cache.clear()  # forget who requested mails a moment ago
    Client().post("/accounts/signup/", form)  # "exists already"
    Client().post("/accounts/password/reset/", {"email": address})

    assert len(mail.outbox) == 3
    assert foreign_links() == []


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("language", ["en", "de"])
def test_no_template_of_accounts_makes_a_link_of_what_was_chosen(
    template: str, language: str, rf: RequestFactory, settings: Settings
) -> None:
    user = UserFactory(first_name=HOSTILE, last_name="bob@evil.example", email=f"{HOSTILE}@example.com")
    request = rf.get("/", headers={"Host": "127.0.0.1"})
    request.user = user
    chosen = f"{HOSTILE}@example.com"
    context = {
        "request": request,
        "user": user,
        **dict.fromkeys(("email", "from_email", "to_email", "deleted_email", "user_agent"), chosen),
        "ip": "192.0.2.1",
        "timestamp": timezone.now(),
        "code": "ABC-DEF",
        "key": "ABC-DEF",
        "password_reset_url": "http://127.0.0.1:8000/accounts/password/reset/",
        "activate_url": "http://127.0.0.1:8000/accounts/confirm/",
    }

    with translation.override(language), request_context(request):
        get_adapter(request).send_mail(f"account/email/{template}", "victim@example.com", context)

    [message] = mail.outbox
    assert message.to == ["victim@example.com"]
    assert foreign_links() == []
    # the input stays as it was
    assert user.get_full_name() == f"{HOSTILE} bob@evil.example"


def test_our_own_links_and_codes_are_left_alone(client: Client) -> None:
    form = {"email": "carol@example.com", "password1": PASSWORD, "password2": PASSWORD}
    client.post("/accounts/signup/", form)
    EmailAddress.objects.update(verified=True)
    cache.clear()  # forget who requested mails a moment ago
    Client().post("/accounts/signup/", form)

    code, exists = (str(message.body) for message in mail.outbox)
    assert re.search(r"^[A-Z0-9]{4}-[A-Z0-9]{4}$", code, re.MULTILINE)
    assert "\nhttp://127.0.0.1:8000/accounts/password/reset/\n" in exists


# --- Which addresses are taken -------------------------------------------------------------------------


@pytest.mark.parametrize("address", ODD)
def test_no_page_takes_an_address_that_may_hold_anything(address: str, client: Client, alice: User) -> None:
    form = {"email": address, "password1": PASSWORD, "password2": PASSWORD}
    assert "Enter a valid" in client.post("/accounts/signup/", form).content.decode()

    client_of(alice).post("/accounts/email/", {"email": address, "action_add": ""})
    client.post("/accounts/password/reset/", {"email": address})

    assert list(User.objects.all()) == [alice]
    assert EmailAddress.objects.count() == 1
    assert mail.outbox == []


@pytest.mark.parametrize("address", ODD)
def test_no_client_of_the_api_gets_such_an_address_in(address: str, client: Client, alice: User) -> None:
    account = {"email": address, "password": PASSWORD}
    answer = client.post(f"{API}/auth/signup", account, content_type="application/json")
    assert answer.status_code == 400
    # what no database can store is refused before its field is known
    assert {error.get("param") for error in answer.json()["errors"]} <= {"email", None}

    token = {"X-Session-Token": str(client_of(alice).session.session_key)}
    answer = Client().post(
        f"{API}/account/email", {"email": address}, content_type="application/json", headers=token
    )
    assert answer.status_code == 400

    assert EmailAddress.objects.count() == 1
    assert mail.outbox == []


@pytest.mark.parametrize("address", ODD)
def test_admin_and_commands_take_no_such_address(
    address: str, superuser: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEW_PASSWORD", PASSWORD)
    staff = as_person(superuser)
    staff.post(
        url(User, "add"),
        {"email": address, "usable_password": "true", "password1": PASSWORD, "password2": PASSWORD},
    )
    staff.post(url(EmailAddress, "add"), {"email": address, "user": superuser.pk, "verified": "on"})
    with pytest.raises(CommandError, match="not an email address"):
        call_command("create_admin", email=address, password_from_env="NEW_PASSWORD")

    assert list(User.objects.all()) == [superuser]
    assert EmailAddress.objects.count() == 1


def test_an_address_from_before_stays_while_staff_verify_it(superuser: User) -> None:
    old = EmailAddress.objects.create(user=superuser, email='"ab"@example.com')

    as_person(superuser).post(
        url(EmailAddress, "change", old.pk),
        {"email": old.email, "user": superuser.pk, "verified": "on"},
    )

    old.refresh_from_db()
    assert old.verified
