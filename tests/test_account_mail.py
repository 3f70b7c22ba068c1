"""A mail about an account that cannot be sent is told to the person, who can ask for it again."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import timedelta

import pytest
import time_machine
from allauth.account.models import EmailAddress
from django.core import mail
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from plans import outside
from plans.outside import outside_world
from tests.server import free_port

pytestmark = pytest.mark.django_db

PASSWORD = "correct horse battery staple"
ADDRESS = "newcomer@example.com"
LINE = "A mail about an account failed: ConnectionRefusedError"


@pytest.fixture
def no_mail_server(settings: Settings) -> None:
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", free_port()


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "config.accounts"]


def test_a_person_who_signs_up_without_a_mail_server_gets_their_code_later(
    client: Client, no_mail_server: None, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    # when nobody takes the mail with the code
    form = {"email": ADDRESS, "password1": PASSWORD, "password2": PASSWORD}
    answer = client.post("/accounts/signup/", form)

    # then a page tells what to do, and one line why, without the address
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "30")
    assert "your account is there: sign in to get a new code" in answer.content.decode()
    assert told(caplog) == [LINE]
    assert ADDRESS not in caplog.text
    assert list(EmailAddress.objects.values_list("email", "verified")) == [(ADDRESS, False)]

    # and once there is a mail server again, signing in sends it
    settings.EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
    with time_machine.travel(timezone.now() + timedelta(minutes=1)):
        answer = Client().post("/accounts/login/", {"login": ADDRESS, "password": PASSWORD})
    assert answer.headers["Location"] == "/accounts/confirm-email/"
    assert [message.to for message in mail.outbox] == [[ADDRESS]]


def test_a_client_of_the_api_hears_it_in_json(
    client: Client, no_mail_server: None, caplog: pytest.LogCaptureFixture
) -> None:
    account = {"email": ADDRESS, "password": PASSWORD}
    answer = client.post("/_allauth/app/v1/auth/signup", account, content_type="application/json")

    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "30")
    error = {"code": "mail_unavailable", "message": "The mail could not be sent. Try again soon."}
    assert answer.json() == {"status": 503, "errors": [error]}
    assert told(caplog) == [LINE]


def test_whether_an_address_has_an_account_is_not_told_by_a_failure(
    client: Client, no_mail_server: None
) -> None:
    known = Client().post(
        "/accounts/signup/", {"email": ADDRESS, "password1": PASSWORD, "password2": PASSWORD}
    )

    answers = [
        client.post("/accounts/password/reset/", {"email": email}) for email in (ADDRESS, "x@example.com")
    ]

    assert known.status_code == 503
    assert [answer.status_code for answer in answers] == [503, 503]
    assert answers[0].content == answers[1].content


def test_a_mail_waits_for_no_place_when_too_many_wait_already(
    client: Client, settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # given a process, half of whose threads wait for the outside
    monkeypatch.setattr(outside, "PATIENCE", 0.01)
    with ExitStack() as held:
        for _ in range(settings.WEB_THREADS // 2):
            held.enter_context(outside_world())
        answer = client.post("/accounts/password/reset/", {"email": ADDRESS})

    assert answer.status_code == 503
    assert told(caplog) == ["A mail about an account failed: TooManyWaiting"]
    assert mail.outbox == []


def test_any_other_failure_stays_what_it_is(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_arguments: object, **_more: object) -> None:
        raise RuntimeError("a bug of ours")

    monkeypatch.setattr("config.accounts.outside_world", broken)
    client.raise_request_exception = False

    assert client.post("/accounts/password/reset/", {"email": ADDRESS}).status_code == 500
