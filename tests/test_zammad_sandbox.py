"""The stand-in responds as Zammad does, in the words of its own sources."""

import hashlib
import hmac
import io
import json
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from unittest import mock

import pytest
import requests
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from pytest_django import Settings

from plans.models import FamilyPlan
from zammad.models import ZammadUser
from zammad.sandbox import Fault, Sandbox, Version
from zammad.webhooks import parse_customer, verify_signature

TOKENS = "user_access_token"
OBJECTS = "object_manager_attributes"


@pytest.fixture
def zammad() -> Iterator[Sandbox]:
    with Sandbox(retry_factor=0.001) as zammad:
        yield zammad


def ask(
    zammad: Sandbox,
    method: str,
    path: str,
    body: object = None,
    token: str | None = None,
    headers: dict[str, str] | None = None,
) -> Any:
    """Send a request with a token, and return status and response."""
    token = zammad.token if token is None else token
    response = requests.request(
        method,
        f"{zammad.url}/api/v1/{path}",
        json=body,
        headers={**(headers or {}), **({"Authorization": f"Token token={token}"} if token else {})},
        timeout=5,
    )
    return response.status_code, response.json()


def refused(status: int, error: str) -> tuple[int, dict[str, str]]:
    return status, {"error": error, "error_human": error}


def assert_masked(answered: tuple[int, dict[str, str]]) -> None:
    status, answer = answered
    assert (status, list(answer)) == (422, ["error"])
    assert re.fullmatch(r"Error ID [\w-]{8}: Please contact your administrator\.", answer["error"])


class Receiver:
    """A server that responds to webhooks as it is told, and keeps them."""

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
    token = listed["tokens"][1]  # the one in use was changed last
    assert {**token, "created_at": "", "updated_at": ""} == {
        "id": 2,
        "user_id": 2,
        "action": "api",
        "name": "a",
        "preferences": {"permission": []},
        "last_used_at": None,
        "expires_at": "2999-01-31T00:00:00.000Z",
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
    zammad.version = Version.V6_0

    status, answer = ask(zammad, "POST", TOKENS, {"label": "a", "permission": []})

    assert status == 200
    assert answer == {"name": zammad.records["tokens"][2]["value"]}


@pytest.mark.parametrize("body", [{}, {"name": "", "permission": []}, {"label": "a", "permission": []}])
def test_a_token_needs_a_name(zammad: Sandbox, body: object) -> None:
    assert ask(zammad, "POST", TOKENS, body) == refused(422, "Name can't be blank")
    assert list(zammad.records["tokens"]) == [1]


def test_a_token_needs_a_list_of_permissions(zammad: Sandbox) -> None:
    assert_masked(ask(zammad, "POST", TOKENS, {"name": "a"}))


def test_an_unreadable_date_made_a_token_that_never_expires_on_old_versions(zammad: Sandbox) -> None:
    asked = {"name": "a", "label": "a", "permission": [], "expires_at": "someday"}

    assert_masked(ask(zammad, "POST", TOKENS, asked))
    zammad.version = Version.V6_0
    assert ask(zammad, "POST", TOKENS, asked)[0] == 200
    assert zammad.records["tokens"][2]["expires_at"] is None


def test_tokens_are_listed_by_their_last_change_and_that_in_use_is_first(zammad: Sandbox) -> None:
    for name in ("b", "a"):
        zammad.add_token(2, name, name=name)
    with zammad.lock:
        zammad.records["tokens"][2]["updated_at"] = zammad.records["tokens"][3]["updated_at"]

    assert [token["name"] for token in ask(zammad, "GET", TOKENS)[1]["tokens"]] == ["Family Plans", "a", "b"]


def test_a_token_of_somebody_who_may_not_cannot_act_as_others(zammad: Sandbox) -> None:
    agent = zammad.add_user("agent@helpdesk.example", permissions=frozenset({"ticket.agent"}))
    zammad.add_token(agent["id"], "powerless", name="a")

    assert ask(
        zammad, "GET", "users/me", token="powerless", headers={"From": "alice@example.com"}
    ) == refused(403, "Current user has no permission to use 'From'/'X-On-Behalf-Of'!")


def test_even_a_powerless_token_of_an_admin_acts_as_anybody(zammad: Sandbox) -> None:
    agent = zammad.add_user("agent@helpdesk.example", permissions=frozenset({"ticket.agent"}))
    zammad.add_token(2, "powerless", name="a")

    _, me = ask(zammad, "GET", "users/me", token="powerless", headers={"From": "AGENT@helpdesk.example"})
    assert me["id"] == agent["id"]
    _, users = ask(zammad, "GET", "users", token="powerless", headers={"From": str(agent["id"])})
    assert len(users) == 8
    assert ask(zammad, "GET", "users", token="powerless", headers={"From": "nobody"})[0] == 403


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


@pytest.mark.parametrize(
    ("token", "status", "error"),
    [
        ("", 403, "Authentication required"),
        ("nobody's", 401, "Can't find User for Token"),
        ("pässword", 401, "Can't find User for Token"),
    ],
)
def test_a_caller_without_a_known_token_is_refused(
    zammad: Sandbox, token: str, status: int, error: str
) -> None:
    assert ask(zammad, "GET", "users/me", token=token) == refused(status, error)


def test_a_bearer_is_believed_too(zammad: Sandbox) -> None:
    headers = {"Authorization": f"Bearer {zammad.token}"}

    response = requests.get(f"{zammad.url}/api/v1/users/me", headers=headers, timeout=5)

    assert response.json()["id"] == 2


def test_a_token_without_permissions_may_only_say_who_it_is(zammad: Sandbox) -> None:
    zammad.add_token(2, "powerless", name="a")

    assert ask(zammad, "GET", "users/me", token="powerless")[0] == 200
    for method, path in (("GET", TOKENS), ("POST", TOKENS), ("DELETE", f"{TOKENS}/1"), ("GET", "webhooks")):
        assert ask(zammad, method, path, token="powerless") == refused(403, "Token authorization failed.")
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


def test_the_search_finds_users_by_their_last_change(zammad: Sandbox) -> None:
    for user in zammad.records["users"].values():
        user["updated_at"] = "2020-01-01T00:00:00.000Z"
    now = datetime.now(UTC)
    for user_id, minutes in ((4, 10), (3, 5)):
        moment = now - timedelta(minutes=minutes)
        zammad.records["users"][user_id]["updated_at"] = moment.isoformat().replace("+00:00", "Z")
    condition = "condition[user.updated_at]"
    within = f"{condition}[operator]=within last (relative)&{condition}[range]=hour&{condition}[value]=1"

    def found(query: str) -> list[int]:
        return [user["id"] for user in ask(zammad, "GET", f"users/search?{query}")[1]]

    assert found(f"{within}&sort_by=updated_at&order_by=asc") == [4, 3]
    assert found(within) == [3, 4]
    assert found(f"{within}&order_by=asc&limit=1&page=2") == [3]
    assert found(f"{within}&page=2") == []
    assert len(found("query=*")) == 7
    for odd in (within.replace("hour", "year"), within.replace("=1", "=a"), within.replace("last", "next")):
        assert_masked(ask(zammad, "GET", f"users/search?{odd}"))
    assert_masked(ask(zammad, "GET", "users/search?sort_by=password"))

    zammad.version = Version.V6_0
    assert len(found(within)) == 7


def test_the_search_answers_fifty_users_unless_told_and_200_at_most(zammad: Sandbox) -> None:
    for _ in range(200):
        zammad.add_user("")

    assert len(ask(zammad, "GET", "users/search")[1]) == 50
    assert len(ask(zammad, "GET", "users/search?limit=500")[1]) == 200
    assert len(ask(zammad, "GET", "users/search?limit=200&page=2")[1]) == 7


def test_the_search_is_for_agents(zammad: Sandbox) -> None:
    zammad.add_token(2, "powerless", name="a")

    assert ask(zammad, "GET", "users/search", token="powerless") == refused(
        403, "Token authorization failed."
    )


ATTRIBUTE = {"object": "User", "name": "family_plan", "display": "Family plan", "data_type": "input"}


def test_an_attribute_of_users_is_there_after_its_migration(zammad: Sandbox) -> None:
    zammad.add_token(2, "agent's", name="a", permissions=frozenset({"ticket.agent"}))
    for method, path in (("POST", OBJECTS), ("POST", f"{OBJECTS}_execute_migrations"), ("GET", OBJECTS)):
        assert ask(zammad, method, path, ATTRIBUTE, token="agent's")[0] == 403

    status, attribute = ask(zammad, "POST", OBJECTS, ATTRIBUTE)
    assert (status, attribute["to_create"]) == (201, True)
    assert ask(zammad, "POST", OBJECTS, ATTRIBUTE) == refused(422, "already exists")
    assert_masked(ask(zammad, "POST", OBJECTS, {**ATTRIBUTE, "name": "Family plan"}))
    status, user = ask(zammad, "PUT", "users/3", {"family_plan": "too early"}, token="agent's")
    assert (status, "family_plan" in user) == (200, False)

    assert ask(zammad, "POST", f"{OBJECTS}_execute_migrations") == (200, {})
    assert [row["to_create"] for row in ask(zammad, "GET", OBJECTS)[1]] == [False]
    assert ask(zammad, "GET", "users/3")[1]["family_plan"] is None
    status, user = ask(zammad, "PUT", "users/3", {"family_plan": "ours"}, token="agent's")
    assert (status, user["family_plan"]) == (200, "ours")
    assert ask(zammad, "GET", "users/3")[1] == user


def test_a_changed_user_is_newer_and_sends_no_webhook(zammad: Sandbox) -> None:
    zammad.install_webhook("http://127.0.0.1:9/", secret="s")
    before = ask(zammad, "GET", "users/3")[1]

    status, after = ask(zammad, "PUT", "users/3", {"phone": "1", "id": 99, "nonsense": "x"})

    assert status == 200
    assert after["updated_at"] > before["updated_at"]
    assert after == {**before, "phone": "1", "updated_by_id": 2, "updated_at": after["updated_at"]}
    assert zammad.deliveries == []


def test_an_agent_changes_customers_alone(zammad: Sandbox) -> None:
    agent = zammad.add_user("agent@helpdesk.example", permissions=frozenset({"ticket.agent"}))
    zammad.add_token(agent["id"], "agent's", name="a", permissions=frozenset({"ticket.agent"}))
    zammad.add_token(3, "alice's", name="a", permissions=frozenset({"ticket.customer"}))

    for user_id, token in ((2, "agent's"), (agent["id"], "agent's"), (4, "alice's"), (3, "alice's")):
        assert ask(zammad, "PUT", f"users/{user_id}", {"phone": "1"}, token=token)[0] == 403
    assert ask(zammad, "GET", "users/4", token="alice's")[0] == 403
    assert ask(zammad, "PUT", "users/2", {"phone": "1"})[0] == 200  # whose token has admin.user
    assert ask(zammad, "PUT", "users/99", {}, token="agent's") == refused(
        404, "Couldn't find User with 'id'=\"99\""
    )


# --- Webhooks and triggers -----------------------------------------------------------------------


def test_a_webhook_is_made_changed_and_removed(zammad: Sandbox) -> None:
    status, webhook = ask(
        zammad, "POST", "webhooks", {"name": "a", "endpoint": "http://x.example/", "signature_token": "s"}
    )
    assert (status, webhook["id"], webhook["signature_token"]) == (201, 1, "s")
    assert {"basic_auth_username", "basic_auth_password", "custom_payload", "preferences"} <= set(webhook)
    assert (webhook["pre_defined_webhook_type"], webhook["created_by_id"]) == (None, 2)

    status, webhook = ask(zammad, "PUT", "webhooks/1", {"endpoint": "http://y.example/"})
    assert (status, webhook["name"], webhook["endpoint"]) == (200, "a", "http://y.example/")
    assert zammad.records["webhooks"][1]["signature_token"] == "s"
    assert ask(zammad, "GET", "webhooks/1") == (200, webhook)
    assert ask(zammad, "GET", "webhooks?per_page=500") == (200, [webhook])

    assert ask(zammad, "DELETE", "webhooks/1") == (200, {})
    assert ask(zammad, "GET", "webhooks") == (200, [])


def test_a_new_version_masks_the_signature_token_and_knows_methods(zammad: Sandbox) -> None:
    asked = {"name": "a", "signature_token": "s", "http_method": "put", "nonsense": 1}

    assert {"http_method", "nonsense"}.isdisjoint(ask(zammad, "POST", "webhooks", asked)[1])
    zammad.version = Version.V7
    _, webhook = ask(zammad, "POST", "webhooks", asked)
    assert (webhook["signature_token"], webhook["http_method"]) == ("**********", "put")
    assert "nonsense" not in webhook


def test_a_host_that_zammad_does_not_know_is_refused(zammad: Sandbox) -> None:
    zammad.unknown_hosts.add("plans.example.com")

    assert ask(
        zammad, "POST", "webhooks", {"name": "a", "endpoint": "https://plans.example.com/"}
    ) == refused(422, "The provided endpoint is invalid, it could not be resolved to a safe IP address.")
    assert zammad.records["webhooks"] == {}


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
    assert ask(zammad, "POST", "triggers", trigger("same")) == refused(422, "Name has already been taken")
    assert ask(zammad, "POST", "triggers", trigger("Other"))[0] == 201
    assert ask(zammad, "PUT", "triggers/2", {"name": "SAME"})[0] == 422
    assert ask(zammad, "PUT", "triggers/2", {"active": False})[0] == 200


def test_a_trigger_needs_to_know_when_and_what(zammad: Sandbox) -> None:
    assert ask(zammad, "POST", "triggers", {"name": "a"})[0] == 422
    assert ask(zammad, "POST", "triggers", {**trigger("a"), "perform": {}})[0] == 422


def test_a_webhook_goes_after_its_triggers(zammad: Sandbox) -> None:
    zammad.install_webhook("http://x.example/", secret="s")

    assert ask(zammad, "DELETE", "triggers/1")[0] == 200
    assert ask(zammad, "DELETE", "webhooks/1") == refused(
        422, "Cannot delete! This webhook is referenced by Trigger: Family Plans: ticket updated (#2)"
    )
    assert ask(zammad, "DELETE", "triggers/2")[0] == 200
    assert ask(zammad, "DELETE", "webhooks/1")[0] == 200


def test_what_is_unknown_is_not_found(zammad: Sandbox) -> None:
    for method, path in (("GET", "webhooks/9"), ("PUT", "triggers/9"), ("DELETE", "webhooks/9")):
        assert ask(zammad, method, path, {})[0] == 404
    assert ask(zammad, "GET", "webhooks/77") == refused(404, "Couldn't find Webhook with 'id'=\"77\"")
    assert ask(zammad, "PUT", "tickets/9", {})[0] == 404
    for path in ("users", "users/search", "webhooks", "triggers"):
        assert_masked(ask(zammad, "GET", f"{path}?per_page=-1"))
        # Ruby reads a text as 0
        assert ask(zammad, "GET", f"{path}?per_page=many") == (200, [])
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
    with mock.patch.object(zammad, "payload", lambda *event: {**rendered(*event), "n": time.monotonic()}):
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


UPDATES = [
    # the change, and whether a selective trigger whose condition names the title fires
    pytest.param({"title": "Hello again"}, True, id="the title"),
    pytest.param({"state": "open"}, False, id="the state"),
    pytest.param({"customer": "bob@example.com"}, False, id="the customer"),
    pytest.param({"article": {"body": "Hello again"}}, True, id="an article"),
]


@pytest.mark.parametrize(("change", "named"), UPDATES)
@pytest.mark.parametrize("mode", ["always", "selective", "selective, with the title in its condition"])
def test_a_selective_trigger_misses_updates_without_an_article_or_a_change_of_what_it_names(
    zammad: Sandbox, receiver: Receiver, change: dict[str, object], named: bool, mode: str
) -> None:
    zammad.install_webhook(receiver.url, secret="s")
    condition = {"ticket.action": {"operator": "is", "value": "update"}}
    if mode.endswith("condition"):
        condition["ticket.title"] = {"operator": "is not", "value": "Goodbye"}
    ask(
        zammad,
        "PUT",
        "triggers/2",
        {"execution_condition_mode": mode.partition(",")[0], "condition": condition},
    )
    _, ticket = ask(zammad, "POST", "tickets", {"title": "Hello", "customer_id": 3})
    zammad.settle()
    assert len(receiver.bodies) == 1

    assert ask(zammad, "PUT", f"tickets/{ticket['id']}", change)[0] == 200
    zammad.settle()

    fires = mode == "always" or "article" in change or (named and mode.endswith("condition"))
    assert len(receiver.bodies) == 1 + fires


def test_an_update_that_changes_nothing_fires_nothing(zammad: Sandbox, receiver: Receiver) -> None:
    zammad.install_webhook(receiver.url, secret="s")
    ticket = zammad.create_ticket("alice@example.com", title="Hello")

    zammad.update_ticket(ticket["id"], title="Hello")
    zammad.settle()

    assert len(receiver.bodies) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"activator": "time"},
        {"condition": {"ticket.title": {"operator": "is", "value": ["Goodbye"]}}},
        {"perform": {"ticket.title": {"value": "a"}}},
    ],
)
def test_a_trigger_for_something_else_does_not_fire(zammad: Sandbox, change: dict[str, object]) -> None:
    zammad.install_webhook("http://127.0.0.1:9/", secret="s")
    ask(zammad, "PUT", "triggers/1", change)

    zammad.create_ticket("alice@example.com", title="Hello")

    assert zammad.deliveries == []


def test_triggers_fire_by_the_alphabet(zammad: Sandbox, receiver: Receiver) -> None:
    ask(zammad, "POST", "webhooks", {"name": "a", "endpoint": receiver.url})
    for name in ("b", "C", "a"):
        ask(zammad, "POST", "triggers", trigger(name))

    zammad.create_ticket("alice@example.com")
    zammad.settle()

    assert [delivery.trigger for delivery in zammad.deliveries] == ["a", "b", "C"]


def test_an_article_comes_with_its_event(zammad: Sandbox, receiver: Receiver) -> None:
    zammad.install_webhook(receiver.url, secret="s")

    ticket = zammad.create_ticket("alice@example.com", article="<b>Where & when?</b>")
    zammad.settle()
    zammad.update_ticket(ticket["id"], title="Hello again")
    zammad.settle()

    assert b"\\u003cb\\u003eWhere \\u0026 when?" in receiver.bodies[0]
    assert json.loads(receiver.bodies[0])["article"]["body"] == "<b>Where & when?</b>"
    assert json.loads(receiver.bodies[1])["article"] == {}


@pytest.mark.parametrize(
    ("change", "body"),
    [
        ({"customized_payload": True, "custom_payload": '{"a": 1}'}, {"a": 1}),
        ({"pre_defined_webhook_type": "Slack"}, {"text": "Hello"}),
    ],
)
def test_a_webhook_may_send_another_shape(
    zammad: Sandbox, receiver: Receiver, change: dict[str, object], body: object
) -> None:
    zammad.install_webhook(receiver.url, secret="s")
    ask(zammad, "PUT", "webhooks/1", change)

    zammad.create_ticket("alice@example.com", title="Hello")
    zammad.settle()

    assert json.loads(receiver.bodies[0]) == body


def test_another_method_than_post_is_used_by_new_versions_alone(zammad: Sandbox, receiver: Receiver) -> None:
    zammad.install_webhook(receiver.url, secret="s")
    ask(zammad, "PUT", "webhooks/1", {"http_method": "put"})
    zammad.create_ticket("alice@example.com")
    zammad.settle()

    zammad.version = Version.V7
    ask(zammad, "PUT", "webhooks/1", {"http_method": "put"})
    zammad.create_ticket("alice@example.com")
    zammad.settle()

    assert [delivery.statuses[0] for delivery in zammad.deliveries] == [200, 501]
    assert len(receiver.bodies) == 1


def test_credentials_are_sent_where_an_admin_set_them(zammad: Sandbox, receiver: Receiver) -> None:
    zammad.version = Version.V6_0
    zammad.install_webhook(receiver.url, secret="s")
    ask(zammad, "PUT", "webhooks/1", {"basic_auth_username": "kim", "basic_auth_password": "pw"})

    zammad.create_ticket("alice@example.com")
    zammad.settle()

    assert receiver.headers[0]["Authorization"] == "Basic a2ltOnB3"
    assert receiver.headers[0]["Content-Type"] == "application/json"


@pytest.mark.parametrize(("version", "sends"), [(Version.V6_5, 5), (Version.V7, 1)])
def test_a_host_that_is_not_found_at_sending_is_given_up_by_new_versions(
    zammad: Sandbox, version: Version, sends: int
) -> None:
    zammad.version = version
    zammad.install_webhook("http://gone.example.com/", secret="s")
    zammad.unknown_hosts.add("gone.example.com")

    zammad.create_ticket("alice@example.com")
    zammad.settle()

    assert zammad.deliveries[0].statuses == [None] * sends


def test_a_customer_becomes_newer_some_moments_after_a_ticket(zammad: Sandbox) -> None:
    def updated_at(user_id: int) -> str:
        return str(zammad.records["users"][user_id]["updated_at"])

    before = {user_id: updated_at(user_id) for user_id in (3, 4, 5)}
    ticket = zammad.create_ticket("alice@example.com")
    zammad.update_ticket(ticket["id"], customer="bob@example.com")
    assert {user_id: updated_at(user_id) for user_id in (3, 4, 5)} == before

    zammad.count_tickets()
    assert updated_at(3) > before[3]
    assert updated_at(4) > before[4]
    assert updated_at(5) == before[5]

    counted = updated_at(3)
    zammad.count_tickets()
    assert updated_at(3) == counted


def test_tickets_are_counted_without_a_test_too() -> None:
    with Sandbox(count_after=0.001) as zammad:
        before = zammad.records["users"][3]["updated_at"]
        zammad.create_ticket("alice@example.com")
        zammad.settle()

        assert zammad.records["users"][3]["updated_at"] > before


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
        zammad.create_ticket("alice@example.com")  # whose next attempt is ten seconds away
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


# --- Our commands against it ---------------------------------------------------------------------


@pytest.mark.django_db
@pytest.mark.parametrize("version", Version)
def test_each_command_of_ours_that_asks_zammad_gets_along_with_it(
    sandbox: Sandbox, version: Version, settings: Settings, plan: FamilyPlan, alice: User
) -> None:
    sandbox.version = version
    settings.ZAMMAD_WEBHOOK_SECRETS = ["a-secret"]
    settings.ZAMMAD_WEBHOOK_MAX_BYTES = 16 * 1024 * 1024
    lost = sandbox.add_token(2, "lost", name=f"{settings.ZAMMAD_TOKEN_PREFIX}-{uuid.uuid4()}")
    lost["created_at"] = "2020-01-01T00:00:00.000Z"

    def run(*arguments: str) -> str:
        out = io.StringIO()
        call_command(*arguments, stdout=out, stderr=out)
        return out.getvalue()

    assert run("install_zammad_webhook").count(": created.") == 3
    assert run("install_zammad_webhook").count(": unchanged") == 3
    with mock.patch.dict(os.environ, INSTALLING=sandbox.token):
        assert run("check_zammad", "--token-from-env=INSTALLING").count("is as install_zammad_webhook") == 3
    assert "6 created" in run("import_zammad_users")
    assert ZammadUser.objects.get(zammad_id=3).user == alice
    run("reconcile_invites")
    assert [token["name"] for token in sandbox.records["tokens"].values()] == ["Family Plans"]
    assert run("install_zammad_webhook", "--remove").count(": removed.") == 3
    assert (sandbox.records["webhooks"], sandbox.records["triggers"]) == ({}, {})


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
