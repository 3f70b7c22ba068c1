"""What Sentry gets: where an error happened and under which ID, and nothing about anybody."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sentry_sdk
from django.contrib.auth.models import User
from django.db import DatabaseError
from django.test import Client
from sentry_sdk.envelope import Envelope
from sentry_sdk.transport import Transport

from config import sentry
from tests.api import client_of, post
from tests.factories import InviteFactory
from tests.test_settings import BASE_DIR, PRODUCTION, start

TOKEN = "OocgJHQ6X4i-lWlw3puDq4jo17HM3-Y6LXagcZRlulw"
QUOTED = (
    "no {token} for lena@acme.example: /invites/{token}/ {length}\n"
    "DETAIL:  Failing row contains (57, Lena, Vogt)."
)
SECRETS = ["lena@", "Lena", "acme", TOKEN, "a-secret-of-the-body", "s3cret-value", "of-the-variables"]


class KeepingTransport(Transport):
    """Keep what would be sent."""

    def __init__(self) -> None:
        super().__init__()
        self.envelopes: list[Envelope] = []

    def capture_envelope(self, envelope: Envelope) -> None:
        self.envelopes.append(envelope)

    @property
    def events(self) -> list[dict[str, Any]]:
        return [dict(event) for each in self.envelopes if (event := each.get_event())]

    @property
    def sent(self) -> str:
        return b"".join(each.serialize() for each in self.envelopes).decode()


@pytest.fixture
def transport() -> Iterator[KeepingTransport]:
    transport = KeepingTransport()
    with sentry_sdk.isolation_scope():
        sentry.start("https://key@sentry.example.com/1", transport=transport)
        yield transport
    sentry_sdk.get_global_scope().set_client(None)


@pytest.mark.django_db
def test_a_page_that_fails_is_told_without_who_asked_or_what(
    carol: User, transport: KeepingTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a page that fails with text such as databases and mail servers quote
    def fail(*, actor: User, token: str) -> None:
        password = "a-secret-of-the-variables"
        raise DatabaseError(QUOTED.format(token=token, length=len(password)))

    monkeypatch.setattr("plans.views.accept_invite", fail)
    InviteFactory(token=TOKEN)
    client = Client(raise_request_exception=False)
    client.force_login(carol)

    # when a signed-in person posts to it
    response = client.post(
        f"/invites/{TOKEN}/?asked=s3cret-value",
        {"field": "a-secret-of-the-body"},
        headers={"X-Request-ID": "request-42", "Authorization": "Bearer s3cret-value"},
    )

    # then Sentry knows the place and the ID
    assert response.status_code == 500
    [event] = transport.events
    assert event["tags"] == {"request_id": "request-42"}
    [error] = event["exception"]["values"]
    assert (error["type"], error["value"]) == ("DatabaseError", "no *** for ***@***: /invites/***/ 25")
    frames = [(frame["module"], frame["function"]) for frame in error["stacktrace"]["frames"]]
    assert ("plans.views", "post") in frames
    assert event["logentry"] == {"message": "%s: %s"}

    # and nothing else: neither variables, request, person, nor machine
    assert set(event) <= {*sentry.EVENT_FIELDS, "logentry", "exception", "tags"}
    assert all(set(frame) == set(sentry.FRAME_FIELDS) for frame in error["stacktrace"]["frames"])
    code = {frame.pop("context_line") for frame in error["stacktrace"]["frames"]}
    assert "        raise DatabaseError(QUOTED.format(token=token, length=len(password)))" in code
    told = json.dumps(event)
    for secret in SECRETS:
        assert secret not in told, secret


@pytest.mark.django_db
def test_a_failing_operation_is_told_once_under_the_id_that_is_answered(
    alice: User, transport: KeepingTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_: object) -> None:
        raise RuntimeError("a bug for lena@acme.example")

    monkeypatch.setattr("graphql_api.queries.services.preview_invite", fail)

    response = post(client_of(alice), "query ($t: String!) { invite(token: $t) { status } }", {"t": TOKEN})

    [event] = transport.events
    [error] = response.json()["errors"]
    assert event["tags"] == {"request_id": error["extensions"]["requestId"]}
    assert event["exception"]["values"][0]["value"] == "a bug for ***@***"
    assert event["logentry"] == {"message": "GraphQL request %s failed"}
    assert TOKEN not in transport.sent


@pytest.mark.django_db
def test_what_is_no_error_of_ours_is_not_told(alice: User, transport: KeepingTransport) -> None:
    client_of(alice).get("/nothing/")
    Client().get("/", headers={"Host": "evil.example"})
    post(client_of(alice), "{ nothing }")
    logging.getLogger("plans.mail").warning("The mail of invite %s failed: %s", 7, "OSError")

    assert transport.envelopes == []


def test_a_text_is_cut_and_masked() -> None:
    assert sentry.clean("key 0123456789abcdef0123456789abcdef of lena@acme.example") == "key *** of ***@***"
    assert sentry.clean("sha1=c28e33b2e56e548956c446e890929a6cbec3ac89") == "***"
    assert sentry.clean("duplicate key\nDETAIL:  Key (email)=(x) exists.\nand more") == "duplicate key"
    assert (
        sentry.clean("relation plans_familyplaninvite is gone") == "relation plans_familyplaninvite is gone"
    )


def running_client(**environment: str) -> str:
    """Return the client of a process with this environment, once Django is set up."""
    code = "import django; django.setup(); import sentry_sdk; print(sentry_sdk.get_client().dsn)"
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(BASE_DIR),
        env={**PRODUCTION, "ENV_FILE": "", "DJANGO_SETTINGS_MODULE": "config.settings", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return result.stdout.strip()


def test_only_a_dsn_starts_it() -> None:
    assert running_client() == "None"
    assert running_client(SENTRY_DSN="http://key@127.0.0.1:9/1") == "http://key@127.0.0.1:9/1"


@pytest.mark.parametrize("dsn", ["http://key@sentry.example.com/1", "https://sentry.example.com/1", "weak"])
def test_a_dsn_that_is_none_or_in_clear_is_refused(dsn: str) -> None:
    result = start("check", **{**PRODUCTION, "SENTRY_DSN": dsn})

    assert result.returncode == 1
    assert "Set SENTRY_DSN to the https:// URL" in result.stderr
    assert dsn not in result.stderr
