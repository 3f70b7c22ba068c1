"""The production server with a database and a Zammad of its own, and what tests do with it.

Every test can use the fixtures here: tests/conftest.py imports them. Tests that share a server
are one group of xdist (`--dist loadgroup`), so that it starts once.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from constance.models import Constance
from django.contrib.auth.hashers import PBKDF2PasswordHasher
from django.contrib.auth.models import User
from django.db import connections
from django.db.models import Count, F, Model, Q
from django.db.utils import ConnectionHandler
from django.test import Client, override_settings
from django.utils import timezone
from environs import Env
from pytest_django import DjangoDbBlocker

from plans.models import FamilyPlan, FamilyPlanInvite, Membership
from tests.api import JSON
from tests.factories import UserFactory
from tests.questions import seats_taken
from tests.server import Answer, Server, scratch_database
from zammad.models import RefusedDelivery, WebhookDelivery, ZammadUser
from zammad.sandbox import Call, Sandbox

OK = "OK"

# The fields of each mutation that tests need.
ANSWERS = {
    "createPlan": "CreatedPlan { plan { id } }",
    "createInvite": "CreatedInvite { token invite { id mailStatus } }",
    "acceptInvite": "AcceptedInvite { membership { id } }",
    "reissueInvite": "CreatedInvite { token invite { id } }",
    "revokeInvite": "RevokedInvite { invite { id } }",
    "detachMember": "DetachedMember { plan { id } }",
    "closePlan": "ClosedPlan { plan { id } }",
}


# --- The ORM on a server's database -----------------------------------------------------------------


@contextmanager
def orm_on(database_url: str) -> Iterator[None]:
    """Let the ORM of this thread use another database."""
    with mock.patch.dict(os.environ, {"DATABASE_URL": database_url}):
        settings: Any = Env().dj_db_url("DATABASE_URL")
    if settings["ENGINE"].endswith("sqlite3"):
        settings["OPTIONS"] = {"transaction_mode": "IMMEDIATE", "timeout": 20}
    theirs = ConnectionHandler({"default": settings}).create_connection("default")
    ours = connections["default"]
    connections["default"] = theirs
    try:
        yield
    finally:
        theirs.close()
        connections["default"] = ours


# --- The server ----------------------------------------------------------------------------------


class ProductionServer(Server):
    """A server with helpers for tests: people, operations, deliveries."""

    @contextmanager
    def database(self) -> Iterator[None]:
        """Let the ORM of this thread use the server's database, with the server's key."""
        with orm_on(self.database_url), override_settings(SECRET_KEY=self.environment["SECRET_KEY"]):
            yield

    def make_account(self, email: str, password: str, **fields: object) -> User:
        """Create a person who can sign in with a password here: the tests' own hash is weaker."""
        hashed = PBKDF2PasswordHasher().encode(password, secrets.token_hex(11))
        person: User = UserFactory(email=email, **fields)
        User.objects.filter(pk=person.pk).update(password=hashed)
        return person

    def session_of(self, person: User) -> str:
        """Sign a person in, faster than by a password, and return their session token."""
        client = Client()
        client.force_login(person)
        return str(client.session.session_key)

    def ask(self, session: str, query: str, **variables: object) -> Answer:
        """Send a GraphQL operation with a session token."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        return self.request("POST", "/graphql/", body, {"Content-Type": JSON, "X-Session-Token": session})

    def mutate(self, session: str, name: str, /, **values: object) -> tuple[str, dict[str, Any]]:
        """Run a mutation, and return OK or the code of its refusal, with its result.

        Anything but a typed response with status 200 fails the test.
        """
        query = (
            f"mutation($input: {name[0].upper()}{name[1:]}Input!) {{ answer: {name}(input: $input) "
            f"{{ ... on OperationInfo {{ messages {{ code }} }} ... on {ANSWERS[name]} }} }}"
        )
        response = self.ask(session, query, input=values)
        assert response.status == 200, response.body
        answered = response.json()
        assert "errors" not in answered, answered
        answer: dict[str, Any] = answered["data"]["answer"]
        return (answer["messages"][0]["code"] if "messages" in answer else OK), answer

    def deliver(self, zammad_id: int, updated_at: datetime, **customer: object) -> Answer:
        """Send a signed webhook about one customer, each version with something new."""
        version = updated_at.isoformat()
        data = {"id": zammad_id, "email": "", "login": version, "updated_at": version, **customer}
        body = json.dumps({"ticket": {"customer": data}, "article": {}}).encode()
        signature = hmac.new(self.webhook_secret.encode(), body, hashlib.sha1).hexdigest()
        headers = {
            "Content-Type": JSON,
            "X-Hub-Signature": f"sha1={signature}",
            "X-Zammad-Delivery": str(uuid.uuid4()),
            "X-Zammad-Trigger": "Family Plans: update",
        }
        return self.request("POST", "/webhooks/zammad/", body, headers)

    def complaints(self) -> list[str]:
        """List the log lines about unexpected failures."""
        bad = (
            "Traceback",
            '"level": "error"',
            '"level": "critical"',
            "database is locked",
            "deadlock",
            "panicked",
        )
        return [line for line in self.log.read_text().splitlines() if any(word in line for word in bad)]


@contextmanager
def running_server(
    kind: str,
    directory: Path,
    *,
    zammad_url: str = "http://127.0.0.1:9",
    command: str = "serve",
    **more: str,
) -> Iterator[ProductionServer]:
    """Serve with a database of the test's own."""
    if kind == "postgresql":
        # Each thread holds a connection, and several servers share PostgreSQL's usual hundred.
        more = {"WEB_THREADS": "8", **more}
    with scratch_database(kind, directory) as database_url:
        server = ProductionServer(directory, database_url, zammad_url, more, ("manage.py", command))
        try:
            server.start()
            yield server
        finally:
            server.kill()


@contextmanager
def production_server(kind: str, directory: Path, **options: str) -> Iterator[ProductionServer]:
    """Serve with a database of the test's own, which the ORM of this thread uses, too.

    For one test only: concurrent code would find itself on that database.
    """
    with running_server(kind, directory, **options) as server, server.database():
        yield server


# --- Fixtures ------------------------------------------------------------------------------------

KINDS = [
    pytest.param("sqlite", marks=pytest.mark.xdist_group("production-sqlite")),
    pytest.param(
        "postgresql", marks=[pytest.mark.xdist_group("production-postgresql"), pytest.mark.postgresql]
    ),
]


class WithholdingSandbox(Sandbox):
    """A Zammad that can do what it is asked for and then withhold its response."""

    withholds = False

    def answer(self, call: Call) -> tuple[int, object]:
        answer = super().answer(call)
        if self.withholds and call.method == "POST":
            self.stopping.wait()
        return answer


@dataclass(frozen=True, slots=True)
class Production:
    """A running server with its Zammad."""

    server: ProductionServer
    zammad: WithholdingSandbox


@pytest.fixture(scope="session", params=KINDS)
def _production(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Production]:
    with WithholdingSandbox() as zammad:
        directory = tmp_path_factory.mktemp("production")
        with running_server(request.param, directory, zammad_url=zammad.url) as server:
            yield Production(server, zammad)


@pytest.fixture
def server_databases(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """Let a test use the databases of servers, once the tests' own has been set up."""
    with django_db_blocker.unblock():
        yield


@pytest.fixture
def production(_production: Production, server_databases: None) -> Iterator[Production]:
    """Share a running server, empty at first; whatever a test does, its log reports no failure."""
    before = len(_production.server.complaints())
    with _production.server.database():
        empty_database()
        _production.zammad.calls.clear()
        yield _production
        _production.zammad.faults.clear()
    assert _production.server.complaints()[before:] == []


def empty_database() -> None:
    # In this order, because a seat protects its person.
    models: list[type[Model]] = [
        FamilyPlanInvite,
        Membership,
        FamilyPlan,
        WebhookDelivery,
        RefusedDelivery,
        ZammadUser,
        User,
        Constance,
    ]
    for model in models:
        model._default_manager.all().delete()


# --- At once -------------------------------------------------------------------------------------


def at_once(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """Make all calls concurrently, and return their results, in order."""
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], Any]) -> Any:
        barrier.wait(timeout=30)
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until something outside this process has happened."""
    ends_at = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < ends_at
        time.sleep(0.01)


def check_promises() -> None:
    """Check what must never happen, whatever the order: oversold seats, two plans, torn invites."""
    now = timezone.now()
    for plan in FamilyPlan.objects.all():
        if plan.user_limit:
            assert plan.memberships.count() <= plan.user_limit
        owners = plan.memberships.filter(role=Membership.Role.OWNER).count()
        assert owners == (0 if plan.closed_at else 1)
        if plan.closed_at:
            assert seats_taken(plan, now=now) == 0
    assert not User.objects.annotate(seats=Count("membership")).filter(seats__gt=1).exists()
    used = FamilyPlanInvite.objects.exclude(user=None)
    assert not used.exclude(user__membership__family_plan=F("family_plan")).exists()
    torn = Q(user=None, is_used=True) | Q(user__isnull=False, is_used=False)
    assert not FamilyPlanInvite.objects.filter(torn).exists()
