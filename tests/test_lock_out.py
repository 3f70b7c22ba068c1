"""Guessing ends after a few wrong passwords, and strangers lock nobody out of their own device."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

import pytest
import time_machine
from allauth.account.models import EmailAddress
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from config.models import Attempt
from config.settings import ACCOUNT_RATE_LIMITS

pytestmark = pytest.mark.django_db

API = "/_allauth/app/v1"
PASSWORD = "correct-horse-battery"
DANA = "dana@example.com"
MORNING = "2026-03-02T09:00:00Z"


@pytest.fixture(autouse=True)
def dana(settings: Settings) -> User:
    settings.ACCOUNT_RATE_LIMITS = {"login": "", "reset_password": "", "confirm_email": ""}
    user = User.objects.create_user(username="opaque", email=DANA, password=PASSWORD)
    EmailAddress.objects.create(user=user, email=DANA, verified=True, primary=True)
    return user


def by_page(client: Client, password: str = PASSWORD, email: str = DANA) -> Any:
    return client.post("/accounts/login/", {"login": email, "password": password})


def by_api(client: Client, password: str = PASSWORD, email: str = DANA, device: str = "") -> Any:
    headers = {"X-Device-Token": device} if device else {}
    body = {"email": email, "password": password}
    return client.post(f"{API}/auth/login", body, content_type="application/json", headers=headers)


def guess(times: int, email: str = DANA) -> None:
    for number in range(times):
        by_page(Client(), f"guess-{number}", email)


@pytest.mark.parametrize("email", [DANA, "nobody@example.com"])
def test_after_five_wrong_passwords_none_is_looked_at_for_five_minutes(email: str) -> None:
    with time_machine.travel(MORNING, tick=False) as clock:
        guess(5, email)

        page, answer = by_page(Client(), email=email), by_api(Client(), email=email)

        assert (page.status_code, page.headers["Retry-After"]) == (429, "300")
        assert "Too many failed login attempts. Try again later." in page.content.decode()
        assert (answer.status_code, answer.headers["Retry-After"]) == (429, "300")
        assert answer.json()["status"] == 429
        assert [error["code"] for error in answer.json()["errors"]] == ["too_many_login_attempts"]
        clock.shift(301)
        assert by_page(Client(), email=email).status_code == (302 if email == DANA else 200)


def test_in_a_day_fifty_wrong_passwords_are_looked_at() -> None:
    with time_machine.travel(MORNING, tick=False) as clock:
        for _ in range(10):
            guess(5)
            clock.shift(301)

        locked = by_page(Client())
        assert locked.status_code == 429
        assert int(locked.headers["Retry-After"]) == 24 * 60 * 60 - 10 * 301
        clock.shift(24 * 60 * 60 - 10 * 301 + 1)
        assert by_page(Client()).status_code == 302


def test_right_passwords_never_count() -> None:
    guess(4)

    assert [by_api(Client()).status_code for _ in range(12)] == [200] * 12


def test_an_account_has_one_counter_for_all_its_addresses(dana: User) -> None:
    EmailAddress.objects.create(user=dana, email="dana@home.example", verified=True)
    guess(3)
    guess(2, "dana@home.example")

    assert by_page(Client()).status_code == 429


def test_a_right_guess_among_many_at_the_same_moment_counts_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    # given that five others were found wrong while this one was checked
    check_password = User.check_password

    def meanwhile(user: User, password: str) -> bool:
        monkeypatch.setattr(User, "check_password", check_password)
        guess(5)
        return check_password(user, password)

    monkeypatch.setattr(User, "check_password", meanwhile)

    assert by_page(Client()).status_code == 429


# --- Devices ------------------------------------------------------------------------------------------


def test_a_browser_that_the_person_signed_in_with_is_not_locked_out(client: Client) -> None:
    answer = by_page(client)
    cookie = answer.cookies["device"]
    assert (cookie["httponly"], cookie["samesite"], cookie["secure"]) == (True, "Lax", "")
    client.post("/accounts/logout/")

    guess(5)

    assert by_page(Client()).status_code == 429
    assert by_page(client).status_code == 302


def test_over_https_the_cookie_is_secure(client: Client, settings: Settings) -> None:
    settings.SESSION_COOKIE_SECURE = True

    assert by_page(client).cookies["device"]["secure"] is True


def test_a_client_of_the_api_brings_its_token_in_a_header() -> None:
    device = by_api(Client()).json()["meta"]["device_token"]
    guess(5)

    assert by_api(Client()).status_code == 429
    assert by_api(Client(), device=device).status_code == 200


def test_a_device_has_its_own_counter_and_no_endless_one() -> None:
    devices = [by_api(Client()).json()["meta"]["device_token"] for _ in range(2)]
    for number in range(5):
        assert by_api(Client(), f"guess-{number}", device=devices[0]).status_code == 400

    assert by_api(Client(), device=devices[0]).status_code == 429
    assert by_api(Client(), device=devices[1]).status_code == 200
    assert by_api(Client()).status_code == 200


def test_a_device_keeps_its_counter_when_its_token_is_renewed() -> None:
    device = by_api(Client()).json()["meta"]["device_token"]
    for _ in range(4):
        by_api(Client(), "wrong", device=device)
    renewed = by_api(Client(), device=device).json()["meta"]["device_token"]

    by_api(Client(), "wrong", device=renewed)

    assert by_api(Client(), device=renewed).status_code == 429


def test_a_device_token_is_of_one_account(dana: User) -> None:
    other = User.objects.create_user(username="other", email="erin@example.com", password=PASSWORD)
    EmailAddress.objects.create(user=other, email=other.email, verified=True, primary=True)
    device = by_api(Client(), email=other.email).json()["meta"]["device_token"]
    guess(5)

    assert by_api(Client(), device=device).status_code == 429


def test_a_device_token_ends_with_the_password(dana: User) -> None:
    device = by_api(Client()).json()["meta"]["device_token"]
    dana.set_password(PASSWORD)
    dana.save()
    guess(5)

    assert by_api(Client(), device=device).status_code == 429


def test_whoever_changes_the_password_keeps_the_device(client: Client) -> None:
    new = "another-passphrase"
    by_page(client)
    client.post("/accounts/password/change/", {"oldpassword": PASSWORD, "password1": new, "password2": new})
    client.post("/accounts/logout/")
    guess(5)

    assert by_page(Client(), new).status_code == 429
    assert by_page(client, new).status_code == 302


@pytest.mark.parametrize("spoil", [lambda token: token[:-1] + "x", lambda _: "|||", lambda _: ":" * 3000])
def test_a_forged_device_token_is_none(spoil: Callable[[str], str]) -> None:
    device = by_api(Client()).json()["meta"]["device_token"]
    guess(5)

    assert by_api(Client(), device=spoil(device)).status_code == 429


def test_a_device_token_grants_nothing(client: Client) -> None:
    device = by_api(Client()).json()["meta"]["device_token"]
    headers = {"X-Device-Token": device, "X-Session-Token": device}

    assert client.get(f"{API}/auth/session", headers=headers).status_code == 410
    assert client.get(f"{API}/auth/session", headers={"X-Device-Token": device}).status_code == 401


def test_a_family_shares_a_browser(client: Client) -> None:
    erin = User.objects.create_user(username="erin", email="erin@example.com", password=PASSWORD)
    EmailAddress.objects.create(user=erin, email=erin.email, verified=True, primary=True)
    for email in (DANA, erin.email):
        by_page(client, email=email)
        client.post("/accounts/logout/")
    guess(5)
    guess(5, erin.email)

    for email in (DANA, erin.email):
        assert by_page(client, email=email).status_code == 302
        client.post("/accounts/logout/")


def test_strangers_do_not_keep_a_signed_in_person_from_confirming_a_password(client: Client) -> None:
    by_page(client)
    guess(5)

    assert client.post("/accounts/reauthenticate/", {"password": PASSWORD}).status_code == 302
    for _ in range(5):
        client.post("/accounts/reauthenticate/", {"password": "wrong"})
    assert client.post("/accounts/reauthenticate/", {"password": PASSWORD}).status_code == 429


def test_a_new_password_opens_the_door_again(dana: User, client: Client) -> None:
    by_page(client)
    guess(5)
    new = "another-passphrase"

    client.post("/accounts/password/change/", {"oldpassword": PASSWORD, "password1": new, "password2": new})

    assert by_page(Client(), new).status_code == 302


# --- What is kept ---------------------------------------------------------------------------------------


def test_what_is_counted_names_nobody_and_is_pruned() -> None:
    guess(1)
    with time_machine.travel(timezone.now() - datetime.timedelta(days=2)):
        guess(1)
    kept = Attempt.objects.all()
    assert kept.count() == 4
    assert {len(attempt.address_digest) for attempt in kept} == {64}
    assert str(kept[0]) == f"Attempt {kept[0].pk}"

    call_command("prune", older_than=1)

    assert kept.all().count() == 2


def test_a_session_that_is_not_ones_own_tries_no_passwords_for_days(settings: Settings) -> None:
    settings.ACCOUNT_RATE_LIMITS = ACCOUNT_RATE_LIMITS
    client = Client()
    by_page(client)
    tried = {"password1": "another-horse-battery", "password2": "another-horse-battery"}
    with time_machine.travel(timezone.now(), tick=False) as clock:
        for _ in range(10):
            for number in range(5):
                form = {"oldpassword": f"guess-{number}", **tried}
                assert client.post("/accounts/password/change/", form).status_code == 200
            clock.shift(61)

        refused = client.post("/accounts/password/change/", {"oldpassword": PASSWORD, **tried})

    assert refused.status_code == 429
    assert int(refused.headers["Retry-After"]) > 60
    assert by_page(Client()).status_code == 302
