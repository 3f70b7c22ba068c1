"""The endpoint as Zammad meets it: what it returns, and what it leaves behind."""

import io
import logging
import socket
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import urlsplit

import pytest
from django.contrib.auth.models import User
from django.db import InterfaceError, OperationalError
from django.test import Client
from pytest_django import Settings
from pytest_django.live_server_helper import LiveServer

from tests.deliveries import SECRET, signed
from zammad.models import WebhookDelivery, ZammadUser
from zammad.sandbox import Sandbox

pytestmark = pytest.mark.django_db

ENDPOINT = "/webhooks/zammad/"
SAMPLE = (Path(__file__).parent / "samples" / "ticket_create.json").read_bytes()


@pytest.fixture(autouse=True)
def _secret(settings: Settings) -> None:
    settings.ZAMMAD_WEBHOOK_SECRETS = [SECRET]


def post(client: Client, body: bytes = SAMPLE, **environ: Any) -> Any:
    environ = {"HTTP_X_HUB_SIGNATURE": signed(body), **environ}
    return client.post(ENDPOINT, data=body, content_type="application/json; charset=utf-8", **environ)


def post_raw(client: Client, length: str, stream: io.BytesIO) -> Any:
    """Announce a given length."""
    environ = {"CONTENT_LENGTH": length, "wsgi.input": stream, "HTTP_X_HUB_SIGNATURE": signed(SAMPLE)}
    return post(client, b"", **environ)


def nothing_stored() -> bool:
    return not WebhookDelivery.objects.exists() and not ZammadUser.objects.exists()


def test_a_signed_delivery_is_applied(client: Client) -> None:
    response = post(
        client,
        HTTP_X_ZAMMAD_DELIVERY="0b1f3f9e-6a53-4a65-9a3e-0f1f2a9c7d11",
        HTTP_X_ZAMMAD_TRIGGER="Kündigung".encode().decode("latin-1"),
    )

    assert (response.status_code, response.content) == (200, b"APPLIED\n")
    assert response["Content-Type"] == "text/plain; charset=utf-8"
    receipt = WebhookDelivery.objects.get()
    assert str(receipt.delivery_id) == "0b1f3f9e-6a53-4a65-9a3e-0f1f2a9c7d11"
    assert receipt.trigger == "Kündigung"
    assert receipt.zammad_user == ZammadUser.objects.get(zammad_id=57)


def test_a_repeated_delivery_is_stale(client: Client) -> None:
    post(client)

    response = post(client)

    assert (response.status_code, response.content) == (200, b"STALE: an equally new version is stored\n")


def test_what_is_unusable_is_ignored_with_a_reason_and_not_sent_again(client: Client) -> None:
    response = post(client, b"[]")

    assert (response.status_code, response.content) == (
        200,
        b"IGNORED: the body has no ticket with a customer\n",
    )


@pytest.mark.parametrize("method", ["get", "head", "put", "patch", "delete", "options"])
def test_only_post_is_answered(client: Client, method: str) -> None:
    response = getattr(client, method)(ENDPOINT, HTTP_X_HUB_SIGNATURE=signed(b""))

    assert response.status_code == 405
    assert response["Allow"] == "POST"
    assert response["Content-Type"] == "text/plain; charset=utf-8"
    assert response.content == (b"" if method == "head" else b"only POST is accepted here\n")
    assert nothing_stored()


def test_no_browser_is_asked_for_a_csrf_token() -> None:
    assert post(Client(enforce_csrf_checks=True)).status_code == 200


@pytest.mark.parametrize(
    ("signature", "answer"),
    [
        ("", b"signature malformed\n"),
        ("sha1=00", b"signature malformed\n"),
        ("sha1=\xe9", b"signature malformed\n"),
        ("sha256=" + "0" * 64, b"signature malformed\n"),
        ("sha1=" + "0" * 40, b"signature wrong\n"),
    ],
)
def test_a_bad_signature_is_forbidden_and_leaves_nothing(
    client: Client, signature: str, answer: bytes
) -> None:
    response = post(client, HTTP_X_HUB_SIGNATURE=signature)

    assert (response.status_code, response.content) == (403, answer)
    assert nothing_stored()


def test_a_missing_signature_is_forbidden_and_leaves_nothing(client: Client) -> None:
    response = client.post(ENDPOINT, data=SAMPLE, content_type="application/json")

    assert (response.status_code, response.content) == (403, b"signature missing\n")
    assert nothing_stored()


def test_both_secrets_are_believed_during_a_rotation(client: Client, settings: Settings) -> None:
    settings.ZAMMAD_WEBHOOK_SECRETS = ["the new secret", "", SECRET]

    assert post(client, HTTP_X_HUB_SIGNATURE=signed(SAMPLE, "the new secret")).status_code == 200
    assert post(client, HTTP_X_HUB_SIGNATURE=signed(SAMPLE, SECRET)).status_code == 200
    assert post(client, HTTP_X_HUB_SIGNATURE=signed(SAMPLE, "a third")).status_code == 403


@pytest.mark.parametrize("secrets", [[], [""]])
def test_without_a_secret_nobody_is_believed(client: Client, settings: Settings, secrets: list[str]) -> None:
    settings.ZAMMAD_WEBHOOK_SECRETS = secrets

    response = post(client, HTTP_X_HUB_SIGNATURE=signed(SAMPLE, ""))

    assert response.status_code == 503
    assert nothing_stored()


def test_a_body_of_just_the_cap_is_read(client: Client, settings: Settings) -> None:
    settings.ZAMMAD_WEBHOOK_MAX_BYTES = len(SAMPLE)

    assert post(client).status_code == 200


def test_the_cap_of_webhooks_may_be_above_that_of_other_pages(client: Client, settings: Settings) -> None:
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 10

    assert post(client).status_code == 200


class Untouchable(io.BytesIO):
    def read(self, *args: object) -> bytes:
        raise AssertionError("the body was read")


@pytest.mark.parametrize("length", ["16777217", "9" * 15, "9" * 5000])
def test_a_body_over_the_cap_is_refused_unread(client: Client, length: str) -> None:
    response = post_raw(client, length, Untouchable())

    assert (response.status_code, response.content) == (413, b"body too large\n")
    assert nothing_stored()


@pytest.mark.parametrize("length", ["-1", "+5", "1e3", "5, 5", "\u0665", " "])
def test_a_body_of_unreadable_length_is_refused_unread(client: Client, length: str) -> None:
    response = post_raw(client, length, Untouchable())

    assert (response.status_code, response.content) == (400, b"length of the body unreadable\n")
    assert nothing_stored()


class Broken(io.BytesIO):
    def read(self, *args: object) -> bytes:
        raise ConnectionResetError


@pytest.mark.parametrize("stream", [io.BytesIO(SAMPLE[:-1]), Broken()])
def test_a_body_that_was_cut_is_no_body(client: Client, stream: io.BytesIO) -> None:
    response = post_raw(client, str(len(SAMPLE)), stream)

    assert (response.status_code, response.content) == (400, b"body incomplete\n")
    assert nothing_stored()


@pytest.mark.parametrize("failure", [OperationalError, InterfaceError])
def test_a_database_that_fails_asks_for_a_retry(
    client: Client, caplog: pytest.LogCaptureFixture, failure: type[Exception]
) -> None:
    with (
        caplog.at_level(logging.ERROR, logger="zammad"),
        mock.patch("zammad.views.apply_delivery", side_effect=failure("the server is gone")),
    ):
        response = post(client)

    assert (response.status_code, response.content) == (500, b"could not be stored, try again\n")
    [record] = [record for record in caplog.records if record.name == "zammad.views"]
    assert record.getMessage() == "A delivery of Zammad could not be stored"
    assert "lena.vogt" not in caplog.text
    assert SECRET not in caplog.text
    assert nothing_stored()


@pytest.mark.parametrize("path", ["/webhooks/zammad", "/webhooks/zammad/x", "/webhooks/"])
def test_no_other_path_answers(client: Client, path: str) -> None:
    assert client.post(path, data=SAMPLE, content_type="application/json").status_code == 404


def test_https_is_never_asked_for_by_a_redirect(client: Client, settings: Settings) -> None:
    settings.SECURE_SSL_REDIRECT = True

    assert post(client).status_code == 200


# --- Over real HTTP ---------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_a_ticket_in_zammad_links_its_customer(
    live_server: LiveServer, sandbox: Sandbox, alice: User
) -> None:
    sandbox.install_webhook(f"{live_server.url}{ENDPOINT}", secret=SECRET)

    sandbox.create_ticket("alice@example.com")
    sandbox.settle()

    [delivery] = sandbox.deliveries
    assert delivery.statuses == [200]
    zammad_user = ZammadUser.objects.get()
    assert (zammad_user.zammad_id, zammad_user.firstname, zammad_user.user) == (3, "Alice", alice)
    receipt = WebhookDelivery.objects.get()
    assert (str(receipt.delivery_id), receipt.trigger, receipt.attempts, receipt.outcome) == (
        delivery.delivery_id,
        "Family Plans: ticket created",
        1,
        "APPLIED",
    )


@pytest.mark.django_db(transaction=True)
def test_a_ticket_that_is_updated_brings_what_changed(live_server: LiveServer, sandbox: Sandbox) -> None:
    sandbox.install_webhook(f"{live_server.url}{ENDPOINT}", secret=SECRET)
    ticket = sandbox.create_ticket("alice@example.com")
    sandbox.settle()

    sandbox.change_user(3, phone="+49 30 1", active=False)
    sandbox.update_ticket(ticket["id"], title="Another title")
    sandbox.settle()

    zammad_user = ZammadUser.objects.get()
    assert (zammad_user.phone, zammad_user.active) == ("+49 30 1", False)


@pytest.mark.django_db(transaction=True)
def test_zammad_gives_up_after_five_refusals(live_server: LiveServer, sandbox: Sandbox) -> None:
    sandbox.install_webhook(f"{live_server.url}{ENDPOINT}", secret="another secret")

    sandbox.create_ticket("alice@example.com")
    sandbox.settle()

    assert [delivery.statuses for delivery in sandbox.deliveries] == [[403] * 5]
    assert nothing_stored()


@pytest.mark.django_db(transaction=True)
def test_a_sender_that_leaves_in_the_middle_of_its_body_changes_nothing(live_server: LiveServer) -> None:
    host, port = urlsplit(live_server.url).hostname, urlsplit(live_server.url).port
    head = (
        f"POST {ENDPOINT} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n"
        f"X-Hub-Signature: {signed(SAMPLE)}\r\nContent-Length: {len(SAMPLE)}\r\n\r\n"
    )

    with socket.create_connection((host or "", port or 0)) as connection:
        connection.sendall(head.encode() + SAMPLE[:100])
        connection.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.endswith(b"body incomplete\n")
    assert nothing_stored()
