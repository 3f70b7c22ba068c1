"""A slow statement of a request is ended, its client gets an error, and nothing is half-done."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from django.contrib.auth.models import User
from django.db import OperationalError, connection, transaction
from django.test import Client

from config.postgresql.statements import StatementTooLong, statements_within
from plans.models import FamilyPlan, PlanEvent
from tests.api import JSON, node_id
from tests.factories import PASSWORD, OwnerFactory
from tests.production import ProductionServer, production_server, server_databases  # noqa: F401
from zammad.models import WebhookDelivery, ZammadUser

pytestmark = pytest.mark.postgresql
in_process = pytest.mark.django_db(transaction=True)

SHORT = 0.3  # seconds


def run(statement: str) -> object:
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchone()


def backend_pid() -> object:
    return run("SELECT pg_backend_pid()")


@in_process
def test_a_long_statement_is_ended_and_the_connection_goes_on() -> None:
    pid = backend_pid()

    with statements_within(SHORT) as limit:
        with pytest.raises(OperationalError) as error:
            run("SELECT pg_sleep(60)")
        assert isinstance(error.value.__cause__, StatementTooLong)
        assert limit.passed

        assert run("SELECT 1") == (1,)
    assert backend_pid() == pid


@in_process
def test_what_a_transaction_had_done_before_is_undone(alice: User) -> None:
    @transaction.atomic
    def change_and_sleep() -> None:
        User.objects.filter(pk=alice.pk).update(first_name="Half")
        run("SELECT pg_sleep(60)")

    with statements_within(SHORT), pytest.raises(OperationalError):
        change_and_sleep()

    alice.refresh_from_db()
    assert alice.first_name == "Alice"


@in_process
def test_a_savepoint_survives_what_was_ended_after_it(alice: User) -> None:
    with statements_within(SHORT), transaction.atomic():
        User.objects.filter(pk=alice.pk).update(first_name="Whole")
        with pytest.raises(OperationalError), transaction.atomic():
            run("SELECT pg_sleep(60)")

    alice.refresh_from_db()
    assert alice.first_name == "Whole"


@in_process
def test_outside_of_requests_a_statement_takes_what_it_needs() -> None:
    with statements_within(SHORT) as limit:
        pass

    run(f"SELECT pg_sleep({2 * SHORT})")

    assert not limit.passed


@in_process
def test_a_server_that_does_not_end_the_statement_loses_the_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connection.ensure_connection()
    monkeypatch.setattr("config.postgresql.statements.CANCELLING", SHORT)
    monkeypatch.setattr(connection.connection, "cancel_safe", lambda **_: None)

    with statements_within(SHORT), pytest.raises(OperationalError):
        run("SELECT pg_sleep(5)")

    assert connection.connection is None or connection.connection.closed
    connection.close()
    assert run("SELECT 1") == (1,)


@in_process
def test_a_request_has_no_parameter_of_the_start_and_sets_nothing_in_the_session(client: Client) -> None:
    client.get("/readyz")

    assert run("SHOW statement_timeout") == ("0",)
    assert "options" not in connection.get_connection_params()


# --- From outside -------------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path: Path, server_databases: None) -> Iterator[ProductionServer]:  # noqa: F811
    with production_server("postgresql", tmp_path, DATABASE_STATEMENT_SECONDS="0.5") as server:
        yield server


@contextmanager
def locked(server: ProductionServer, table: str) -> Iterator[None]:
    """Keep everybody else from reading a table."""
    with psycopg.connect(server.database_url) as holder:
        holder.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE".encode())
        yield
        holder.rollback()


def test_clients_hear_in_their_own_form_that_the_database_takes_too_long(server: ProductionServer) -> None:
    alice = server.make_account("alice@example.com", PASSWORD)
    alice.refresh_from_db()
    plan: FamilyPlan = OwnerFactory(user=alice).family_plan
    session = server.session_of(alice)
    query = "query ($id: ID!) { plan(id: $id) { name events { edges { cursor } } } }"
    sign_in = json.dumps({"email": alice.email, "password": PASSWORD}).encode()

    # A query, and a mutation that has already locked its plan.
    with locked(server, "plans_planevent"):
        answers = [server.ask(session, query, id=node_id(plan))]
        answers.append(
            server.ask(
                session,
                "mutation ($id: ID!) { closePlan(input: {planId: $id}) { __typename } }",
                id=node_id(plan),
            )
        )
    # Even the client is not identified yet.
    with locked(server, "config_session"):
        answers.append(server.ask(session, query, id=node_id(plan)))
    for answer in answers:
        assert answer.status == 503
        assert answer.headers["Retry-After"] == "30"
        assert answer.headers["Content-Type"].startswith("application/json")
        [error] = answer.json()["errors"]
        assert error["extensions"] == {"code": "SERVICE_UNAVAILABLE"}
        assert "data" not in answer.json()
    assert FamilyPlan.objects.get().closed_at is None
    assert not PlanEvent.objects.filter(kind=PlanEvent.Kind.PLAN_CLOSED).exists()

    with locked(server, "auth_user"):
        signed = server.request("POST", "/_allauth/app/v1/auth/login", sign_in, {"Content-Type": JSON})
        page = server.get("/", Cookie=f"sessionid={session}")
    assert (signed.status, signed.headers["Retry-After"]) == (503, "30")
    assert signed.json()["status"] == 503
    assert signed.json()["errors"][0]["code"] == "service_unavailable"
    assert (page.status, page.headers["Retry-After"]) == (503, "30")
    assert b"Please try again soon" in page.body

    # The last step of a response is limited as well.
    with locked(server, "constance_constance"):
        invite = server.get("/invites/unknown/", Cookie=f"sessionid={session}")
    assert invite.seconds < 30
    assert "form-action 'self';" in invite.headers["Content-Security-Policy"]

    # Zammad takes any other status for a refusal, too, and sends again.
    with locked(server, "zammad_webhookdelivery"):
        delivery = server.deliver(4, datetime.now(tz=UTC))
    assert (delivery.status, delivery.body) == (500, b"could not be stored, try again\n")
    assert not ZammadUser.objects.exists()
    assert not WebhookDelivery.objects.exists()

    assert server.ask(session, query, id=node_id(plan)).json()["data"]["plan"]["name"] == plan.name
    assert server.deliver(4, datetime.now(tz=UTC)).status == 200
    assert (
        server.manage(
            "shell", "-c", "from django.db import connection as c; c.cursor().execute('SELECT pg_sleep(1)')"
        ).returncode
        == 0
    )
