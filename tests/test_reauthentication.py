"""Changing how you sign in asks again for a password or code, and the old address gets a notice."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import time_machine
from allauth.account.models import EmailAddress
from django.contrib.auth.models import User
from django.core import mail
from django.test import Client
from pytest_django import Settings

from tests.factories import PASSWORD

pytestmark = pytest.mark.django_db

API = "/_allauth/app/v1"
NEW = "a-brand-new-password"
MORE = "more@example.com"
MORE_IN_MAILS = "more@ example. com"  # no mail program makes a link of it


@pytest.fixture
def clock() -> Iterator[Any]:
    with time_machine.travel("2026-08-03T08:00:00Z", tick=False) as clock:
        yield clock


def sign_in(person: User) -> Client:
    client = Client()
    client.post("/accounts/login/", {"login": person.email, "password": PASSWORD})
    return client


def api(method: str, path: str, body: Any = None, token: str = "") -> Any:
    headers = {"X-Session-Token": token} if token else {}
    return Client().generic(
        method,
        API + path,
        "" if body is None else json.dumps(body),
        content_type="application/json",
        headers=headers,
    )


def token_of(person: User) -> str:
    answer = api("POST", "/auth/login", {"email": person.email, "password": PASSWORD})
    token: str = answer.json()["meta"]["session_token"]
    return token


def code_in_the_last_mail() -> str:
    found = re.search(r"^([A-Z]{3,}-[A-Z]+)$", str(mail.outbox[-1].body), re.MULTILINE)
    assert found, mail.outbox[-1].body
    return found[1]


def addresses() -> list[tuple[str, bool, bool]]:
    return sorted(EmailAddress.objects.values_list("email", "verified", "primary"))


def second_address(person: User) -> EmailAddress:
    return EmailAddress.objects.create(user=person, email=MORE, verified=True)


CHANGES = {
    "add": {"action_add": "", "email": MORE},
    "remove": {"action_remove": "", "email": "spare@example.com"},
    "primary": {"action_primary": "", "email": "spare@example.com"},
}
API_CHANGES = {
    "add": ("POST", {"email": MORE}),
    "remove": ("DELETE", {"email": "spare@example.com"}),
    "primary": ("PATCH", {"email": "spare@example.com", "primary": True}),
}


# --- Addresses ------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", CHANGES)
def test_a_stale_sign_in_is_asked_again_by_page_and_then_goes_on(
    alice: User, clock: Any, change: str
) -> None:
    EmailAddress.objects.create(user=alice, email="spare@example.com", verified=True)
    before = addresses()
    client = sign_in(alice)
    clock.shift(301)

    asked = client.post("/accounts/email/", CHANGES[change])

    assert asked.headers["Location"].startswith("/accounts/reauthenticate/?")
    assert (addresses(), mail.outbox) == (before, [])
    wrong = client.post(asked.headers["Location"], {"password": "wrong", "next": "/accounts/email/"})
    assert (wrong.status_code, addresses()) == (200, before)

    client.post(asked.headers["Location"], {"password": PASSWORD, "next": "/accounts/email/"})
    assert mail.outbox
    assert change == "add" or addresses() != before


@pytest.mark.parametrize("change", API_CHANGES)
def test_a_stale_sign_in_is_asked_again_headless(alice: User, clock: Any, change: str) -> None:
    EmailAddress.objects.create(user=alice, email="spare@example.com", verified=True)
    before = addresses()
    method, body = API_CHANGES[change]
    token = token_of(alice)
    clock.shift(301)

    asked = api(method, "/account/email", body, token)

    assert asked.status_code == 401
    assert {"id": "reauthenticate"} in asked.json()["data"]["flows"]
    assert asked.json()["meta"]["is_authenticated"] is True
    assert (addresses(), mail.outbox) == (before, [])
    assert api("POST", "/auth/reauthenticate", {"password": "wrong"}, token).status_code == 400
    assert api("POST", "/auth/reauthenticate", {"password": PASSWORD}, token).status_code == 200
    assert api(method, "/account/email", body, token).status_code == 200
    assert mail.outbox


@pytest.mark.parametrize("change", API_CHANGES)
def test_a_fresh_sign_in_is_not_asked_again(alice: User, clock: Any, change: str) -> None:
    EmailAddress.objects.create(user=alice, email="spare@example.com", verified=True)
    method, body = API_CHANGES[change]
    token = token_of(alice)
    clock.shift(299)

    assert api(method, "/account/email", body, token).status_code == 200


def test_the_old_address_is_told_of_a_new_primary_one(alice: User) -> None:
    second_address(alice)

    sign_in(alice).post("/accounts/email/", {"action_primary": "", "email": MORE})

    [told] = mail.outbox
    assert told.to == ["alice@example.com"]
    assert f"from alice@ example. com to {MORE_IN_MAILS}" in told.body


def test_a_removed_address_is_told_and_the_one_that_stays(alice: User) -> None:
    second_address(alice)

    sign_in(alice).post("/accounts/email/", {"action_remove": "", "email": MORE})

    assert sorted(message.to[0] for message in mail.outbox) == ["alice@example.com", MORE]
    assert all(MORE_IN_MAILS in message.body for message in mail.outbox)


def test_the_old_address_is_told_of_an_added_one_once_it_is_verified(alice: User) -> None:
    client = sign_in(alice)
    client.post("/accounts/email/", {"action_add": "", "email": MORE})
    code = code_in_the_last_mail()
    mail.outbox.clear()

    client.post("/accounts/confirm-email/", {"code": code})

    [told] = mail.outbox
    assert (told.to, told.subject) == (["alice@example.com"], "An address was added to your account")
    assert MORE_IN_MAILS in told.body
    [(html, kind)] = told.alternatives  # type: ignore[attr-defined]
    assert kind == "text/html"
    assert MORE_IN_MAILS in html


def test_who_signs_up_is_told_of_nothing() -> None:
    client = Client()
    client.post("/accounts/signup/", {"email": MORE, "password1": NEW, "password2": NEW})
    client.post("/accounts/confirm-email/", {"code": code_in_the_last_mail()})

    assert len(mail.outbox) == 1
    # Signing up counts as a fresh sign-in.
    assert client.post("/accounts/email/", {"action_add": "", "email": "m@example.com"}).status_code == 302
    assert mail.outbox[-1].to == ["m@example.com"]


def test_a_failing_mail_server_undoes_no_change(
    alice: User, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    second_address(alice)
    client = sign_in(alice)
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", 9  # nobody listens

    answer = client.post("/accounts/email/", {"action_remove": "", "email": MORE})

    assert answer.status_code == 302
    assert not EmailAddress.objects.filter(email=MORE).exists()
    assert "A mail about an account failed: ConnectionRefusedError" in caplog.text


# --- Passwords ------------------------------------------------------------------------------------


def test_a_password_is_changed_with_the_present_one_only_and_told_by_mail(alice: User, clock: Any) -> None:
    client, token = sign_in(alice), token_of(alice)
    clock.shift(301)
    form = {"password1": NEW, "password2": NEW}

    client.post("/accounts/password/change/", {"oldpassword": "wrong", **form})
    for body in ({"new_password": NEW}, {"new_password": NEW, "current_password": "wrong"}):
        assert api("POST", "/account/password/change", body, token).status_code == 400
    alice.refresh_from_db()
    assert alice.check_password(PASSWORD)
    assert mail.outbox == []

    client.post("/accounts/password/change/", {"oldpassword": PASSWORD, **form})
    alice.refresh_from_db()
    assert alice.check_password(NEW)
    assert [message.to for message in mail.outbox] == [["alice@example.com"]]


# --- Without a password, by a mailed code ---------------------------------------------------------


@pytest.fixture
def guest(alice: User) -> User:
    """A person who did not sign in with a password."""
    alice.set_unusable_password()
    alice.save()
    return alice


def signed_in(person: User) -> Client:
    client = Client()
    client.force_login(person)
    return client


def test_without_a_password_a_mailed_code_is_asked_for_by_page(guest: User) -> None:
    client = signed_in(guest)
    asked = client.post("/accounts/email/", {"action_add": "", "email": MORE})
    page = "/accounts/reauthenticate/code/"
    assert asked.headers["Location"] == f"{page}?next=%2Faccounts%2Femail%2F"
    assert mail.outbox == []
    assert client.get(asked.headers["Location"]).status_code == 200
    assert mail.outbox == []

    sent = client.post(asked.headers["Location"], {"send": "1", "next": "/accounts/email/"})
    assert (sent.status_code, mail.outbox[-1].to) == (302, ["alice@example.com"])
    code = code_in_the_last_mail()
    assert client.post(page, {"code": "WRO-NGG", "next": "/accounts/email/"}).status_code == 200
    assert len(mail.outbox) == 1

    client.post(page, {"code": code, "next": "/accounts/email/"})
    assert mail.outbox[-1].to == [MORE]
    # It counts once.
    assert client.post(page, {"code": code, "next": "/accounts/email/"}).status_code == 200


def test_without_a_password_a_mailed_code_is_asked_for_headless(guest: User, clock: Any) -> None:
    token = str(signed_in(guest).session.session_key)

    asked = api("POST", "/account/email", {"email": MORE}, token)
    assert asked.status_code == 401
    assert {"id": "reauthenticate_by_code"} in asked.json()["data"]["flows"]

    assert api("POST", "/auth/reauthenticate/code", {}, token).status_code == 200
    code = code_in_the_last_mail()
    assert api("POST", "/auth/reauthenticate/code", {"code": "WRO-NGG"}, token).status_code == 400
    assert api("POST", "/account/email", {"email": MORE}, token).status_code == 401
    assert api("POST", "/auth/reauthenticate/code", {"code": code}, token).status_code == 200
    assert api("POST", "/account/email", {"email": MORE}, token).status_code == 200
    clock.shift(301)
    assert api("POST", "/account/email", {"email": "m@example.com"}, token).status_code == 401


def test_a_first_password_is_set_after_a_code_and_never_lies_in_the_session(guest: User) -> None:
    client = signed_in(guest)
    page, form = "/accounts/password/set/", {"password1": NEW, "password2": NEW}

    assert client.post(page, form).headers["Location"] == page
    assert client.get(page).headers["Location"].startswith("/accounts/reauthenticate/code/?")
    assert NEW not in str(dict(client.session))
    token = str(client.session.session_key)
    assert api("POST", "/account/password/change", {"new_password": NEW}, token).status_code == 401
    guest.refresh_from_db()
    assert not guest.has_usable_password()

    client.post("/accounts/reauthenticate/code/", {"send": "1"})
    client.post("/accounts/reauthenticate/code/", {"code": code_in_the_last_mail()})
    client.post(page, form)
    guest.refresh_from_db()
    assert guest.check_password(NEW)


def test_a_code_ends_after_a_few_wrong_ones(guest: User) -> None:
    client, page = signed_in(guest), "/accounts/reauthenticate/code/"
    client.post(page, {"send": "1"})
    code = code_in_the_last_mail()
    for _ in range(3):
        client.post(page, {"code": "WRO-NGG"})

    assert "Request a new code." in client.post(page, {"code": code}).content.decode()
    assert client.post("/accounts/email/", {"action_add": "", "email": MORE}).status_code == 302
    assert len(mail.outbox) == 1


def test_who_has_a_password_gets_no_code(alice: User) -> None:
    client = signed_in(alice)
    token = str(client.session.session_key)

    answer = client.post("/accounts/reauthenticate/code/", {"send": "1"})

    assert answer.headers["Location"] == "/accounts/reauthenticate/"
    assert api("POST", "/auth/reauthenticate/code", {}, token).status_code == 409
    assert api("POST", "/auth/reauthenticate/code", {}).status_code == 401
    assert mail.outbox == []
