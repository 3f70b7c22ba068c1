"""The mails about accounts: how many are sent, what a failure reveals, and which codes stay valid."""

from __future__ import annotations

import re
import threading
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from allauth.account.internal.flows.password_reset_by_code import PASSWORD_RESET_VERIFICATION_SESSION_KEY
from allauth.account.models import EmailAddress
from django.contrib.auth.models import User
from django.core import mail
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from config import account_mail
from config.account_mail import DAY, MAILS_PER_DAY, MAILS_PER_DAY_TO_OTHERS
from config.models import Attempt
from plans.quotas import mailbox_of
from tests.server import free_port

pytestmark = pytest.mark.django_db

PASSWORD = "correct horse battery staple"
ADDRESS = "newcomer@example.com"
API = "/_allauth/app/v1"
LINE = "A mail about an account failed: ConnectionRefusedError"


@pytest.fixture
def no_mail_server(settings: Settings) -> None:
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", free_port()


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "config.account_mail"]


def sign_up(client: Client, email: str = ADDRESS) -> Any:
    return client.post("/accounts/signup/", {"email": email, "password1": PASSWORD, "password2": PASSWORD})


def ask_for_reset(client: Client, email: str = ADDRESS) -> Any:
    return client.post("/accounts/password/reset/", {"email": email})


def code_of(message: mail.EmailMessage) -> str:
    found = re.search(r"^([A-Z0-9]{3,}-?[A-Z0-9]+)$", str(message.body), re.MULTILINE)
    assert found
    return found[1]


@pytest.fixture
def dana() -> User:
    user = User.objects.create_user(username="opaque", email="dana@example.com", password=PASSWORD)
    EmailAddress.objects.create(user=user, email=user.email, verified=True, primary=True)
    return user


def use_up(address: str) -> None:
    """Use up all the mails that strangers can cause to an address."""
    for _ in range(MAILS_PER_DAY):
        Attempt.objects.take_place(
            f"mail, to {mailbox_of(address)}", limit=MAILS_PER_DAY, window=DAY, now=timezone.now()
        )


# --- A mail server that accepts nothing ----------------------------------------------------------------


def test_a_person_who_signs_up_without_a_mail_server_gets_their_code_later(
    client: Client, no_mail_server: None, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    # when the mail server refuses the mail with the code
    answer = sign_up(client)

    # then the response is as usual, and one line of the log says why, without the address
    assert (answer.status_code, answer.headers["Location"]) == (302, "/accounts/confirm-email/")
    assert told(caplog) == [LINE]
    assert ADDRESS not in caplog.text
    assert list(EmailAddress.objects.values_list("email", "verified")) == [(ADDRESS, False)]

    # and when the mail server is back, signing in sends the code
    settings.EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
    answer = Client().post("/accounts/login/", {"login": ADDRESS, "password": PASSWORD})
    assert answer.headers["Location"] == "/accounts/confirm-email/"
    assert [message.to for message in mail.outbox] == [[ADDRESS]]


def test_a_signed_in_person_hears_that_the_mail_they_asked_for_was_not_sent(
    client: Client, dana: User, no_mail_server: None, caplog: pytest.LogCaptureFixture
) -> None:
    client.post("/accounts/login/", {"login": dana.email, "password": PASSWORD})  # a fresh sign-in
    answer = client.post("/accounts/email/", {"action_add": "", "email": "dana@home.example"})

    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "30")
    assert "The email could not be sent" in answer.content.decode()
    assert told(caplog) == [LINE]


def test_a_signed_in_client_of_the_api_hears_it_in_json(
    client: Client, dana: User, no_mail_server: None
) -> None:
    headers = {"X-Session-Token": sign_in(client, dana)}
    answer = client.post(
        f"{API}/account/email",
        {"email": "dana@home.example"},
        content_type="application/json",
        headers=headers,
    )

    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "30")
    error = {"code": "mail_unavailable", "message": "The email could not be sent. Try again soon."}
    assert answer.json() == {"status": 503, "errors": [error]}


def sign_in(client: Client, person: User) -> str:
    answer = client.post(
        f"{API}/auth/login",
        {"email": person.email, "password": PASSWORD},
        content_type="application/json",
    )
    token: str = answer.json()["meta"]["session_token"]
    return token


def test_whether_an_address_has_an_account_is_not_told_by_a_failure(dana: User, no_mail_server: None) -> None:
    for ask in (sign_up, ask_for_reset):
        known, unknown = ask(Client(), dana.email), ask(Client(), "nobody@example.com")

        assert known.status_code == unknown.status_code == 302
        assert known.headers["Location"] == unknown.headers["Location"]


def test_mails_that_too_many_wait_for_are_given_up_and_the_answer_is_the_same(
    client: Client, dana: User, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(account_mail, "_waiting", threading.BoundedSemaphore(1))
    assert account_mail._waiting.acquire(blocking=False)

    assert ask_for_reset(client, dana.email).status_code == 302
    assert told(caplog) == ["A mail about an account failed: TooManyWaiting"]
    assert mail.outbox == []


def test_any_other_failure_stays_what_it_is(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_arguments: object, **_more: object) -> None:
        raise RuntimeError("a bug of ours")

    monkeypatch.setattr("config.adapter.post", broken)
    client.raise_request_exception = False

    assert sign_up(client).status_code == 500


# --- How many ------------------------------------------------------------------------------------------


def test_a_reset_for_an_address_without_an_account_mails_nothing(client: Client) -> None:
    assert ask_for_reset(client, "nobody@example.com").status_code == 302
    assert mail.outbox == []


@pytest.mark.parametrize(
    "spelling", ["dana@example.com", "DANA@example.com", "dana+tag@example.com", "dana+a+b@EXAMPLE.com"]
)
def test_strangers_cause_ten_mails_a_day_however_they_spell_the_address(
    settings: Settings, dana: User, spelling: str
) -> None:
    settings.ACCOUNT_RATE_LIMITS = {"signup": "", "reset_password": "", "confirm_email": ""}
    with time_machine.travel("2026-03-02T09:00:00Z", tick=False) as clock:
        for _ in range(MAILS_PER_DAY - 1):
            ask_for_reset(Client(), dana.email)
        sign_up(Client(), spelling)
        assert len(mail.outbox) == MAILS_PER_DAY

        over = [sign_up(Client(), spelling), ask_for_reset(Client(), dana.email)]

        assert [answer.status_code for answer in over] == [302, 302]
        assert len(mail.outbox) == MAILS_PER_DAY
        clock.shift(timedelta(days=1))
        ask_for_reset(Client(), dana.email)
        assert len(mail.outbox) == MAILS_PER_DAY + 1


def test_the_device_of_a_person_gets_a_reset_that_strangers_have_used_up(client: Client, dana: User) -> None:
    client.post("/accounts/login/", {"login": dana.email, "password": PASSWORD})
    client.post("/accounts/logout/")
    use_up(dana.email)

    ask_for_reset(Client(), dana.email)
    assert mail.outbox == []
    ask_for_reset(client, dana.email)

    assert [message.to for message in mail.outbox] == [[dana.email]]


def test_a_device_of_one_account_has_no_more_mails_for_another(client: Client, dana: User) -> None:
    client.post("/accounts/login/", {"login": dana.email, "password": PASSWORD})
    client.post("/accounts/logout/")
    victim = User.objects.create_user(username="victim", email="victim@example.com", password=PASSWORD)
    use_up(victim.email)

    ask_for_reset(client, victim.email)

    assert mail.outbox == []


def test_what_a_signed_in_person_asks_for_does_not_count(client: Client, dana: User) -> None:
    client.post("/accounts/login/", {"login": dana.email, "password": PASSWORD})  # a fresh sign-in
    new = "dana@home.example"
    client.post("/accounts/email/", {"action_add": "", "email": new})
    assert [message.to for message in mail.outbox] == [[new]]

    for _ in range(MAILS_PER_DAY):
        sign_up(Client(), new)
    assert [message.to for message in mail.outbox] == [[new]] * (MAILS_PER_DAY + 1)


def test_a_signed_in_person_cannot_flood_addresses_that_are_not_theirs(
    client: Client, dana: User, settings: Settings
) -> None:
    settings.ACCOUNT_RATE_LIMITS = {"manage_email": "", "confirm_email": ""}
    client.post("/accounts/login/", {"login": dana.email, "password": PASSWORD})  # a fresh sign-in

    for number in range(MAILS_PER_DAY_TO_OTHERS + 2):
        client.post("/accounts/email/", {"action_add": "", "email": f"victim{number}@example.com"})

    assert len(mail.outbox) == MAILS_PER_DAY_TO_OTHERS


def test_security_notices_do_not_count(client: Client, dana: User, settings: Settings) -> None:
    settings.ACCOUNT_EMAIL_NOTIFICATIONS = True
    use_up(dana.email)
    client.force_login(dana)

    client.post(
        "/accounts/password/change/",
        {"oldpassword": PASSWORD, "password1": "another-passphrase", "password2": "another-passphrase"},
    )

    assert [message.to for message in mail.outbox] == [[dana.email]]


# --- A mailed code stays valid ----------------------------------------------------------------------------


def test_a_reset_code_stays_valid_when_another_is_over_the_limit(client: Client, dana: User) -> None:
    ask_for_reset(client, dana.email)
    code = code_of(mail.outbox[-1])
    use_up(dana.email)

    again = ask_for_reset(client, dana.email)

    assert (len(mail.outbox), again.status_code) == (1, 302)
    answer = client.post(again.headers["Location"], {"code": code})
    assert answer.headers["Location"] == "/accounts/password/reset/complete/"


def test_a_code_of_sign_up_stays_valid_when_another_is_over_the_limit(client: Client) -> None:
    sign_up(client)
    code = code_of(mail.outbox[-1])
    use_up(ADDRESS)

    again = client.post("/accounts/confirm-email/", {"action": "resend"})

    assert (len(mail.outbox), again.status_code) == (1, 302)
    client.post("/accounts/confirm-email/", {"code": code})
    assert EmailAddress.objects.filter(email=ADDRESS, verified=True).exists()


def test_asking_again_over_the_limit_gives_no_more_attempts(client: Client, dana: User) -> None:
    ask_for_reset(client, dana.email)
    code = code_of(mail.outbox[-1])
    use_up(dana.email)
    for _ in range(2):
        client.post("/accounts/password/reset/confirm/", {"code": "AAA-AAA"})
    ask_for_reset(client, dana.email)
    client.post("/accounts/password/reset/confirm/", {"code": "AAA-AAA"})

    answer = client.post("/accounts/password/reset/confirm/", {"code": code})

    assert answer.headers["Location"] == "/accounts/login/"


def test_no_code_counts_that_was_never_mailed(client: Client, dana: User) -> None:
    use_up(dana.email)

    ask_for_reset(client, dana.email)

    assert client.session[PASSWORD_RESET_VERIFICATION_SESSION_KEY]["code"] == ""


def test_a_right_password_within_seconds_of_a_mail_gets_in_to_confirm_the_address(client: Client) -> None:
    sign_up(client)

    answer = Client().post("/accounts/login/", {"login": ADDRESS, "password": PASSWORD})

    assert (answer.status_code, answer.headers["Location"]) == (302, "/accounts/confirm-email/")
