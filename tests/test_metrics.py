"""What is counted, under which words, and who may read it."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest import mock

import pytest
from django.contrib.auth.models import User
from django.db import DatabaseError
from django.test import Client
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families
from pytest_django import Settings

from plans.models import FamilyPlan
from tests.api import URL, answer, ask, client_of, node_id, post
from tests.factories import InviteFactory
from tests.test_healthz import dead_database
from zammad.client import ZammadError, get_client
from zammad.models import WebhookDelivery
from zammad.sandbox import BROKEN_JSON, Fault, Sandbox

pytestmark = pytest.mark.django_db

LAST_DELIVERY = ("family_plans_last_delivery_timestamp_seconds",)
TOKEN = "metrics-token-of-the-tests"
SECRET = "secret-of-the-tests"
CREATE_INVITE = """mutation ($plan: ID!) { createInvite(input: {planId: $plan}) {
    __typename ... on OperationInfo { messages { code } } } }"""

Count = Callable[..., float]


@pytest.fixture
def counted() -> Count:
    """Return how much a sample has grown since the test began."""
    before = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for metric in REGISTRY.collect()
        for sample in metric.samples
    }

    def grown(name: str, **labels: str) -> float:
        value = REGISTRY.get_sample_value(name, labels) or 0
        return value - before.get((name, *sorted(labels.items())), 0)

    return grown


def operations(counted: Count, operation: str, outcome: str) -> float:
    return counted("family_plans_graphql_operations_total", operation=operation, outcome=outcome)


def read(client: Client, authorization: str = f"Bearer {TOKEN}") -> Any:
    return client.get("/metrics", headers={"Authorization": authorization, "Host": "10.0.0.7:8000"})


def samples_of(response: Any) -> dict[tuple[str, ...], float]:
    """Parse a page as Prometheus does."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


# --- Who may read ------------------------------------------------------------------------------


@pytest.mark.parametrize("authorization", ["", "Bearer ", f"Bearer {TOKEN}"])
def test_without_a_token_configured_there_is_no_page(authorization: str, client: Client) -> None:
    assert read(client, authorization).status_code == 404


@pytest.mark.parametrize(
    "authorization", ["", "Bearer", "Bearer ", f"Bearer {TOKEN}x", f"Basic {TOKEN}", TOKEN, "Bearer \xe9"]
)
def test_without_the_token_nothing_is_told(authorization: str, client: Client, settings: Settings) -> None:
    settings.METRICS_TOKEN = TOKEN

    response = read(client, authorization)

    assert (response.status_code, response.content) == (401, b"token missing or wrong\n")
    assert response.headers["WWW-Authenticate"] == "Bearer"


def test_staff_have_no_way_around_the_token(support: User, settings: Settings) -> None:
    settings.METRICS_TOKEN = TOKEN

    assert client_of(support).get("/metrics").status_code == 401


def test_with_the_token_the_page_is_what_prometheus_reads(
    client: Client, settings: Settings, plan: FamilyPlan
) -> None:
    settings.METRICS_TOKEN = TOKEN
    settings.SECURE_SSL_REDIRECT = True  # it comes without TLS, too
    InviteFactory.create_batch(2, family_plan=plan)
    client.get("/healthz")

    response = read(client)

    assert response.status_code == 200
    assert response.headers["Content-Type"].startswith("text/plain; version=")
    samples = samples_of(response)
    assert samples[("family_plans_open_invites",)] == 2
    assert samples[("family_plans_request_seconds_count", "GET", "200", "healthz")] >= 1


def test_it_tells_when_the_last_authentic_delivery_came(client: Client, settings: Settings) -> None:
    settings.METRICS_TOKEN = TOKEN
    assert samples_of(read(client))[LAST_DELIVERY] == 0

    came = datetime(2026, 8, 3, 8, 15, tzinfo=UTC)
    for outcome, hours in (("IGNORED", 0), ("APPLIED", 1)):
        WebhookDelivery.objects.create(
            body_digest="0" * 64, outcome=outcome, last_received_at=came - timedelta(hours=hours)
        )

    assert samples_of(read(client))[LAST_DELIVERY] == came.timestamp()


def test_without_its_database_it_still_tells_what_was_counted(client: Client, settings: Settings) -> None:
    settings.METRICS_TOKEN = TOKEN
    client.get("/healthz")

    with dead_database():
        response = read(client)

    assert response.status_code == 200
    samples = samples_of(response)
    assert ("family_plans_open_invites",) not in samples
    assert samples[("family_plans_request_seconds_count", "GET", "200", "healthz")] >= 1


# --- Requests ----------------------------------------------------------------------------------


def requests(counted: Count, view: str, method: str, status: str) -> float:
    return counted("family_plans_request_seconds_count", view=view, method=method, status=status)


def test_requests_are_counted_by_the_view_that_answered(counted: Count) -> None:
    client = Client()

    for path in ("/accounts/login/", "/accounts/login/?next=/", "/nothing/", "/something/"):
        client.get(path)
    client.post("/webhooks/zammad/", "{}", content_type="application/json")

    assert requests(counted, "account_login", "GET", "200") == 2
    assert requests(counted, "", "GET", "404") == 2
    assert requests(counted, "zammad-webhook", "POST", "403") == 1


def test_a_method_of_the_clients_own_makes_no_series_of_its_own(counted: Count) -> None:
    Client().generic("BREW", "/accounts/login/")

    assert requests(counted, "account_login", "other", "405") == 1
    assert requests(counted, "account_login", "BREW", "405") == 0


# --- GraphQL -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "operation"),
    [
        ("{ viewer { id } }", "viewer"),
        ("query Anything { me: viewer { id } }", "viewer"),
        ("query A { viewer { id } } query B { plans { edges { cursor } } }", "plans"),
        ("{ __typename }", "__typename"),
        ("{ viewer { id } plans { edges { cursor } } }", "several"),
        ("query { ...All } fragment All on Query { viewer { id } }", "several"),
    ],
)
def test_an_operation_is_counted_by_its_field_whatever_clients_call_it(
    query: str, operation: str, alice: User, counted: Count
) -> None:
    body: dict[str, Any] = {"query": query, "operationName": "B" if "query B" in query else None}

    response = client_of(alice).post(URL, json.dumps(body), content_type="application/json")

    assert "errors" not in response.json()
    assert operations(counted, operation, "OK") == 1


@pytest.mark.parametrize(
    "body",
    [
        {"query": "{"},
        {"query": "{ nothing }"},
        {"query": "query ($a: Int!) { planByZammadUser(zammadUserId: $a) { id } }"},
        {"query": "{ viewer { id } }", "operationName": "Other"},
        {"query": "fragment F on Query { viewer { id } }"},
        {"query": ""},
        {"query": "{ " + " ".join(f"a{n}: __typename" for n in range(16)) + " }"},
    ],
    ids=["syntax", "field", "variable", "operation", "fragment", "empty", "limit"],
)
def test_what_was_not_executed_is_counted_without_a_name(
    body: dict[str, str], client: Client, counted: Count
) -> None:
    response = client.post(URL, json.dumps(body), content_type="application/json")

    assert response.json()["errors"]
    assert operations(counted, "none", "INVALID") == 1


def test_a_refused_mutation_is_counted_by_its_code(
    plan: FamilyPlan, carol: User, alice: User, counted: Count
) -> None:
    for person in (carol, None):
        ask(person, CREATE_INVITE, plan=node_id(plan))
    FamilyPlan.objects.update(user_limit=1)
    ask(alice, CREATE_INVITE, plan=node_id(plan))

    for code in ("PLAN_NOT_FOUND", "NOT_AUTHENTICATED", "PLAN_FULL"):
        assert operations(counted, "createInvite", code) == 1
    assert operations(counted, "createInvite", "OK") == 0


def test_a_refusal_counts_for_its_own_operation_only(carol: User, plan: FamilyPlan, counted: Count) -> None:
    client = client_of(carol)

    post(client, CREATE_INVITE, {"plan": node_id(plan)})
    post(client, "{ viewer { id } }")

    assert operations(counted, "viewer", "OK") == 1


def test_a_failure_is_counted_as_one(alice: User, monkeypatch: pytest.MonkeyPatch, counted: Count) -> None:
    monkeypatch.setattr("graphql_api.queries.services.preview_invite", mock.Mock(side_effect=DatabaseError))
    answer(alice, '{ invite(token: "x") { status } }')
    assert operations(counted, "invite", "INTERNAL_ERROR") == 1

    monkeypatch.setattr("graphql_api.operations.may_explore", mock.Mock(side_effect=RuntimeError))
    answer(alice, "{ viewer { id } }")
    assert operations(counted, "none", "INTERNAL_ERROR") == 1


# --- Zammad ------------------------------------------------------------------------------------


def deliver(body: bytes, *, secret: str) -> int:
    signature = "sha1=" + hmac.new(secret.encode(), body, hashlib.sha1).hexdigest()
    response = Client().post(
        "/webhooks/zammad/", body, content_type="application/json", headers={"X-Hub-Signature": signature}
    )
    return int(response.status_code)


def test_deliveries_are_counted_by_outcome(counted: Count) -> None:
    body = json.dumps(
        {"ticket": {"customer": {"id": 57, "updated_at": "2026-08-03T08:15:02.230Z"}}, "article": {}}
    ).encode()

    assert deliver(body, secret=SECRET) == 200
    assert deliver(body, secret=SECRET) == 200
    assert deliver(body, secret=SECRET) == 200
    assert deliver(b"{}", secret=SECRET) == 200
    assert deliver(body, secret="another") == 403
    with dead_database():
        assert deliver(body, secret=SECRET) == 500

    found = {
        outcome: counted("family_plans_deliveries_total", outcome=outcome)
        for outcome in ("APPLIED", "STALE", "IGNORED", "REFUSED", "FAILED")
    }
    assert found == {"APPLIED": 1, "STALE": 2, "IGNORED": 1, "REFUSED": 1, "FAILED": 1}


def calls(counted: Count, call: str, outcome: str) -> float:
    return counted("family_plans_zammad_call_seconds_count", call=call, outcome=outcome)


def test_calls_of_zammad_are_counted_by_outcome(sandbox: Sandbox, settings: Settings, counted: Count) -> None:
    client = get_client()

    client.me()
    client.delete_access_token(123)
    for fault in (Fault.RESET, BROKEN_JSON):
        sandbox.faults.set("GET /api/v1/users/me", fault)
        with pytest.raises(ZammadError):
            client.me()

    assert calls(counted, "GET users/me", "OK") == 1
    assert calls(counted, "GET users/me", "UNREACHABLE") == 1
    assert calls(counted, "GET users/me", "UNREADABLE") == 1
    assert calls(counted, "DELETE user_access_token/{id}", "REFUSED") == 1


def test_the_tries_of_one_call_are_measured_together(sandbox: Sandbox, counted: Count) -> None:
    sandbox.faults.set("GET /api/v1/users/me", Fault.RESET, times=2)

    get_client().me()

    # It waited 0.2 and 0.6 seconds between attempts.
    assert calls(counted, "GET users/me", "OK") == 1
    seconds = counted("family_plans_zammad_call_seconds_sum", call="GET users/me", outcome="OK")
    assert 0.8 <= seconds < 8
