"""The stand-in answers as Zammad does, in the words of its own sources."""

import hashlib
import hmac
import io
import json
import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from unittest import mock

import pytest
import requests
from django.core.management import CommandError, call_command

from zammad.sandbox import Fault, Sandbox
from zammad.webhooks import parse_customer, verify_signature

TOKENS = "user_access_token"


@pytest.fixture
def zammad() -> Iterator[Sandbox]:
    with Sandbox(retry_factor=0.001) as zammad:
        yield zammad


def ask(zammad: Sandbox, method: str, path: str, body: object = None, token: str | None = None) -> Any:
    """Ask with a token, and return status and answer."""
    token = zammad.token if token is None else token
    response = requests.request(
        method,
        f"{zammad.url}/api/v1/{path}",
        json=body,
        headers={"Authorization": f"Token token={token}"} if token else {},
        timeout=5,
    )
    return response.status_code, response.json()


class Receiver:
    """A server that answers webhooks with what it is told, and keeps them."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
                receiver.headers.append(dict(self.headers))
                self.send_response(receiver.statuses.pop(0) if receiver.statuses else 200)
                self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook/"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    thread = threading.Thread(target=receiver.server.serve_forever, args=(0.02,))
    thread.start()
    yield receiver
    receiver.server.shutdown()
    receiver.server.server_close()
    thread.join()


# --- Tokens --------------------------------------------------------------------------------------


def test_a_token_is_shown_once_and_has_no_id(zammad: Sandbox) -> None:
    status, answer = ask(zammad, "POST", TOKENS, {"name": "a", "permission": [], "expires_at": "2999-01-31"})
    _, listed = ask(zammad, "GET", TOKENS)

    assert status == 200
    assert list(answer) == ["token"]
    assert len(answer["token"]) == 64
    token = listed["tokens"][0]
    assert {**token, "created_at": "", "updated_at": ""} == {
        "id": 2,
        "user_id": 2,
        "action": "api",
        "name": "a",
        "preferences": {"permission": []},
        "last_used_at": None,
        "expires_at": "2999-01-31",
        "created_at": "",
        "updated_at": "",
    }
    assert answer["token"] not in json.dumps(listed)
    assert listed["permissions"][0] == {"name": "admin", "preferences": {"disabled": True}, "active": True}
    assert {"name": "user_preferences.access_token", "preferences": {}, "active": True} in listed[
        "permissions"
    ]


def test_names_of_tokens_are_not_unique(zammad: Sandbox) -> None:
    for _ in range(2):
        assert ask(zammad, "POST", TOKENS, {"name": "a", "permission": []})[0] == 200


def test_old_versions_know_a_label_and_answer_a_name(zammad: Sandbox) -> None:
    zammad.old_tokens = True

    status, answer = ask(zammad, "POST", TOKENS, {"label": "a", "permission": []})

    assert status == 200
    assert answer == {"name": zammad.records["tokens"][2]["value"]}


@pytest.mark.parametrize("body", [{}, {"name": "", "permission": []}, {"label": "a", "permission": []}])
def test_a_token_needs_a_name(zammad: Sandbox, body: object) -> None:
    assert ask(zammad, "POST", TOKENS, body)[0] == 422
    assert list(zammad.records["tokens"]) == [1]


def test_a_token_needs_a_list_of_permissions(zammad: Sandbox) -> None:
    assert ask(zammad, "POST", TOKENS, {"name": "a"})[0] == 422


def test_an_unreadable_date_makes_a_token_that_never_expires(zammad: Sandbox) -> None:
    ask(zammad, "POST", TOKENS, {"name": "a", "permission": [], "expires_at": "someday"})

    assert zammad.records["tokens"][2]["expires_at"] is None


def test_a_token_is_dead_from_the_start_of_its_day(zammad: Sandbox) -> None:
    today = datetime.now(UTC).date()
    zammad.add_token(2, "dead", name="a", expires_at=today.isoformat())
    zammad.add_token(2, "alive", name="b", expires_at=(today + timedelta(days=2)).isoformat())

    assert ask(zammad, "GET", "users/me", token="alive")[0] == 200
    status, answer = ask(zammad, "GET", "users/me", token="dead")
    assert (status, answer["error"]) == (401, "Not authorized (token expired)!")


def test_access_by_tokens_can_be_switched_off(zammad: Sandbox) -> None:
    zammad.api_token_access = False

    status, answer = ask(zammad, "POST", TOKENS, {"name": "a", "permission": []})
    assert (status, answer["error"]) == (422, "API token access disabled!")
    assert ask(zammad, "GET", "users/me")[0] == 403


@pytest.mark.parametrize(("token", "status"), [("", 403), ("nobody's", 401), ("pässword", 401)])
def test_who_has_no_token_that_is_known_is_refused(zammad: Sandbox, token: str, status: int) -> None:
    assert ask(zammad, "GET", "users/me", token=token)[0] == status


def test_a_bearer_is_believed_too(zammad: Sandbox) -> None:
    headers = {"Authorization": f"Bearer {zammad.token}"}

    response = requests.get(f"{zammad.url}/api/v1/users/me", headers=headers, timeout=5)

    assert response.json()["id"] == 2


def test_a_token_without_permissions_may_only_say_who_it_is(zammad: Sandbox) -> None:
    zammad.add_token(2, "powerless", name="a")

    assert ask(zammad, "GET", "users/me", token="powerless")[0] == 200
    for method, path in (("GET", TOKENS), ("POST", TOKENS), ("DELETE", f"{TOKENS}/1"), ("GET", "webhooks")):
        assert ask(zammad, method, path, token="powerless")[0] == 403
    status, users = ask(zammad, "GET", "users", token="powerless")
    assert (status, [user["id"] for user in users]) == (200, [2])


def test_a_token_of_somebody_else_is_unknown(zammad: Sandbox) -> None:
    zammad.add_token(3, "alice's", name="a")

    for token_id in (2, 99):
        status, answer = ask(zammad, "DELETE", f"{TOKENS}/{token_id}")
        assert (status, answer["error"]) == (422, "The API token could not be found.")
    assert ask(zammad, "DELETE", f"{TOKENS}/1") == (200, {})


# --- Users ---------------------------------------------------------------------------------------


def test_users_come_in_pages_by_id(zammad: Sandbox) -> None:
    _, users = ask(zammad, "GET", "users?page=2&per_page=2&expand=true")

    assert [(user["id"], user["email"], user["roles"]) for user in users] == [
        (3, "alice@example.com", ["Customer"]),
        (4, "bob@example.com", ["Customer"]),
    ]


def test_names_are_told_only_when_asked_for(zammad: Sandbox) -> None:
    _, [system, *_] = ask(zammad, "GET", "users")
    _, me = ask(zammad, "GET", "users/me")

    assert (system["id"], system["login"], system["active"]) == (1, "-", False)
    assert me["role_ids"] == [1, 2]
    assert "roles" not in me
    assert "organization" not in me
    assert "permissions" not in me


# --- Webhooks and triggers -----------------------------------------------------------------------


def test_a_webhook_is_made_changed_and_removed(zammad: Sandbox) -> None:
    status, webhook = ask(
        zammad, "POST", "webhooks", {"name": "a", "endpoint": "http://x.example/", "signature_token": "s"}
    )
    assert (status, webhook["id"], webhook["signature_token"]) == (201, 1, "**********")

    status, webhook = ask(zammad, "PUT", "webhooks/1", {"endpoint": "http://y.example/"})
    assert (status, webhook["name"], webhook["endpoint"]) == (200, "a", "http://y.example/")
    assert zammad.records["webhooks"][1]["signature_token"] == "s"
    assert ask(zammad, "GET", "webhooks/1") == (200, webhook)
    assert ask(zammad, "GET", "webhooks?per_page=500") == (200, [webhook])

    assert ask(zammad, "DELETE", "webhooks/1") == (200, {})
    assert ask(zammad, "GET", "webhooks") == (200, [])


def test_older_versions_show_the_signature_token(zammad: Sandbox) -> None:
    zammad.masked_signatures = False

    assert ask(zammad, "POST", "webhooks", {"name": "a", "signature_token": "s"})[1]["signature_token"] == "s"


def trigger(name: str, webhook_id: int = 1) -> dict[str, object]:
    return {
        "name": name,
        "condition": {"ticket.action": {"operator": "is", "value": "create"}},
        "perform": {"notification.webhook": {"webhook_id": webhook_id}},
    }


def test_only_names_of_triggers_are_unique(zammad: Sandbox) -> None:
    for _ in range(2):
        assert ask(zammad, "POST", "webhooks", {"name": "Same"})[0] == 201
    assert ask(zammad, "POST", "triggers", trigger("Same"))[0] == 201
    assert ask(zammad, "POST", "triggers", trigger("same"))[0] == 422
    assert ask(zammad, "POST", "triggers", trigger("Other"))[0] == 201
    assert ask(zammad, "PUT", "triggers/2", {"name": "SAME"})[0] == 422
    assert ask(zammad, "PUT", "triggers/2", {"active": False})[0] == 200


def test_a_trigger_needs_to_know_when_and_what(zammad: Sandbox) -> None:
    assert ask(zammad, "POST", "triggers", {"name": "a"})[0] == 422
    assert ask(zammad, "POST", "triggers", {**trigger("a"), "perform": {}})[0] == 422


def test_a_webhook_goes_after_its_triggers(zammad: Sandbox) -> None:
    zammad.install_webhook("http://x.example/", secret="s")

    assert ask(zammad, "DELETE", "webhooks/1")[0] == 422
    assert ask(zammad, "DELETE", "triggers/1")[0] == 200
    assert ask(zammad, "DELETE", "triggers/2")[0] == 200
    assert ask(zammad, "DELETE", "webhooks/1")[0] == 200


def test_what_is_unknown_is_not_found(zammad: Sandbox) -> None:
    for method, path in (("GET", "webhooks/9"), ("PUT", "triggers/9"), ("DELETE", "webhooks/9")):
        assert ask(zammad, method, path, {})[0] == 404
    assert ask(zammad, "PUT", "tickets/9", {})[0] == 404
    assert ask(zammad, "GET", "nonsense")[0] == 404
    assert ask(zammad, "POST", "webhooks", {})[0] == 422
    assert ask(zammad, "POST", "webhooks", [])[0] == 400
    assert ask(zammad, "POST", "webhooks")[0] == 400


# --- Tickets and deliveries ----------------------------------------------------------------------


def test_a_ticket_sends_what_zammad_sends(zammad: Sandbox, receiver: Receiver) -> None:
    _, webhook = ask(
        zammad, "POST", "webhooks", {"name": "a", "endpoint": receiver.url, "signature_token": "s€cret"}
    )
    ask(zammad, "POST", "triggers", trigger("Kündigung", webhook["id"]))

    status, ticket = ask(
        zammad,
        "POST",
        "tickets",
        {"title": "Hello", "customer_id": "guess:New@example.com", "group": "Users"},
    )
    zammad.settle()

    assert (status, ticket["customer_id"]) == (201, 8)
    [body], [headers] = receiver.bodies, receiver.headers
    [delivery] = zammad.deliveries
    assert headers == {
        "Host": receiver.url.split("/")[2],
        "User-Agent": "Zammad User Agent",
        "Accept": "*/*",
        "X-Zammad-Trigger": "Kündigung".encode().decode("latin-1"),
        "X-Zammad-Delivery": delivery.delivery_id,
        "Content-Type": "application/json; charset=utf-8",
        "Connection": "close",
        "Content-Length": str(len(body)),
        "X-Hub-Signature": "sha1=" + hmac.new("s€cret".encode(), body, hashlib.sha1).hexdigest(),
    }
    verify_signature(body, signature=headers["X-Hub-Signature"], secrets=["s€cret"])
    customer = parse_customer(body, now=datetime.now(UTC))
    assert (customer.zammad_id, customer.email) == (8, "new@example.com")
    payload = json.loads(body)
    assert list(payload) == ["ticket", "article"]
    assert (payload["ticket"]["owner"]["id"], payload["article"]) == (1, {})
    assert delivery.statuses == [200]


def test_a_webhook_without_a_secret_is_not_signed(zammad: Sandbox, receiver: Receiver) -> None:
    zammad.install_webhook(receiver.url, secret="")

    zammad.create_ticket("alice@example.com")
    zammad.settle()

    assert "X-Hub-Signature" not in receiver.headers[0]


def test_a_delivery_is_sent_five_times_at_most_and_rendered_anew(zammad: Sandbox, receiver: Receiver) -> None:
    zammad.install_webhook(receiver.url, secret="s")
    receiver.statuses = [301, 403, 500, 410, 200]
    rendered = zammad.payload
    with mock.patch.object(
        zammad, "payload", lambda ticket_id: {**rendered(ticket_id), "n": time.monotonic()}
    ):
        zammad.create_ticket("alice@example.com")
        zammad.settle()

    assert [delivery.statuses for delivery in zammad.deliveries] == [[301, 403, 500, 410, 200]]
    assert len({headers["X-Zammad-Delivery"] for headers in receiver.headers}) == 1
    assert len(set(receiver.bodies)) == 5


def test_nobody_there_is_a_failed_send(zammad: Sandbox) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    zammad.install_webhook(f"http://127.0.0.1:{port}/", secret="s")

    zammad.create_ticket("alice@example.com")
    zammad.settle()

    assert zammad.deliveries[0].statuses == [None] * 5


def test_only_active_triggers_of_the_event_fire(zammad: Sandbox, receiver: Receiver) -> None:
    zammad.install_webhook(receiver.url, secret="s")
    ask(zammad, "PUT", "triggers/1", {"active": False})

    status, ticket = ask(zammad, "POST", "tickets", {"title": "Hello", "customer_id": 3})
    zammad.settle()
    assert (status, receiver.bodies) == (201, [])

    assert ask(zammad, "PUT", f"tickets/{ticket['id']}", {"title": "Hello again"})[0] == 200
    zammad.settle()
    assert json.loads(receiver.bodies[0])["ticket"]["title"] == "Hello again"
    assert [delivery.trigger for delivery in zammad.deliveries] == ["Family Plans: ticket updated"]


@pytest.mark.parametrize(
    "body", [{"title": "a"}, {"customer": "a@b.example"}, {"title": "a", "customer_id": 99}]
)
def test_a_ticket_needs_a_title_and_a_customer(zammad: Sandbox, body: object) -> None:
    assert ask(zammad, "POST", "tickets", body)[0] == 422


# --- The server ----------------------------------------------------------------------------------


def test_a_launcher_can_see_that_it_listens(zammad: Sandbox) -> None:
    response = requests.get(zammad.url, timeout=5)

    assert (response.status_code, response.text) == (200, "Zammad sandbox\n")


def test_it_ends_at_once_whatever_hangs() -> None:
    with Sandbox() as zammad:
        zammad.install_webhook("http://127.0.0.1:9/", secret="s")
        zammad.create_ticket("alice@example.com")  # whose next try is ten seconds away
        for path, fault in (("hang", Fault.HANG), ("drip", Fault.DRIP_BODY)):
            zammad.faults.set(f"GET /{path}", fault)
            idle = socket.create_connection(("127.0.0.1", int(zammad.url.rpartition(":")[2])))
            idle.sendall(f"GET /{path} HTTP/1.1\r\n\r\n".encode())
            idle.close()
        started = time.monotonic()

    assert time.monotonic() - started < 2
    with pytest.raises(requests.ConnectionError):
        requests.get(zammad.url, timeout=5)


def test_a_fault_stays_on_its_route(zammad: Sandbox) -> None:
    zammad.faults.set("GET /api/v1/users", Fault.RESET, times=1)

    assert ask(zammad, "GET", TOKENS)[0] == 200
    with pytest.raises(requests.ConnectionError):
        ask(zammad, "GET", "users/me")
    assert ask(zammad, "GET", "users/me")[0] == 200


def test_faults_can_be_cleared(zammad: Sandbox) -> None:
    zammad.faults.set("GET /", Fault.RESET)
    with pytest.raises(requests.ConnectionError):
        requests.get(zammad.url, timeout=5)

    zammad.faults.clear()

    assert requests.get(zammad.url, timeout=5).status_code == 200


# --- The command ---------------------------------------------------------------------------------


def test_the_command_serves_until_it_is_interrupted(receiver: Receiver) -> None:
    out = io.StringIO()
    asked = []

    def visit() -> None:
        url = out.getvalue().splitlines()[0].rpartition(" ")[2]
        body = {"title": "a", "customer": "alice@example.com"}
        headers = {"Authorization": "Token token=mine"}
        asked.append(
            requests.post(f"{url}/api/v1/tickets", json=body, headers=headers, timeout=5).status_code
        )
        raise KeyboardInterrupt

    with mock.patch("zammad.management.commands.zammad_sandbox.Event") as event:
        event.return_value.wait.side_effect = visit
        call_command(
            "zammad_sandbox",
            "--port=0",
            "--token=mine",
            f"--webhook-endpoint={receiver.url}",
            "--webhook-secret=s",
            stdout=out,
        )

    assert asked == [201]
    assert len(receiver.bodies) == 1
    assert f"Webhooks go to: {receiver.url}" in out.getvalue()
    assert out.getvalue().endswith("Stopped.\n")


def test_the_command_says_when_the_port_is_taken(zammad: Sandbox) -> None:
    port = zammad.url.rpartition(":")[2]

    with pytest.raises(CommandError, match=r"^The sandbox cannot listen there"):
        call_command("zammad_sandbox", f"--port={port}")
