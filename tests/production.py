"""The production server on a database of its own, with a Zammad of its own, and what tests do with it.

The fixtures here are for every test: tests/conftest.py imports them. A server runs as
`manage.py serve` starts it, in a process group that is killed as a whole in the end. Tests that
share a server are one group of xdist (`--dist loadgroup`), so that it is started once.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import urlsplit, urlunsplit

import psycopg
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
from zammad.models import WebhookDelivery, ZammadUser
from zammad.sandbox import Call, Sandbox

BASE_DIR = Path(__file__).resolve().parent.parent
WORKERS = 3
START_TIMEOUT = 90.0  # seconds; a busy machine takes its time to migrate
ANSWER_TIMEOUT = 60.0
OK = "OK"

# What each mutation answers, as far as a test follows it up.
ANSWERS = {
    "createPlan": "CreatedPlan { plan { id } }",
    "createInvite": "CreatedInvite { token invite { id mailStatus } }",
    "acceptInvite": "AcceptedInvite { membership { id } }",
    "reissueInvite": "CreatedInvite { token invite { id } }",
    "revokeInvite": "RevokedInvite { invite { id } }",
    "detachMember": "DetachedMember { plan { id } }",
    "closePlan": "ClosedPlan { plan { id } }",
}


# --- A database of one's own ---------------------------------------------------------------------


@contextmanager
def scratch_database(kind: str, directory: Path) -> Iterator[str]:
    """Yield the address of an empty database: a file, or one made on the server of TEST_DATABASE_URL."""
    name = f"family_plans_{uuid.uuid4().hex[:12]}"
    if kind == "sqlite":
        yield f"sqlite:///{directory}/{name}.sqlite3"
        return
    server = os.environ["TEST_DATABASE_URL"]
    maintenance = urlunsplit(urlsplit(server)._replace(path="/postgres"))
    with psycopg.connect(maintenance, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"'.encode())
    try:
        yield urlunsplit(urlsplit(server)._replace(path=f"/{name}"))
    finally:
        with psycopg.connect(maintenance, autocommit=True) as connection:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())


@contextmanager
def orm_on(database_url: str) -> Iterator[None]:
    """Let the ORM of this thread work on another database."""
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


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back for one request, and after how many seconds."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes
    seconds: float

    def json(self) -> Any:
        return json.loads(self.body)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class ProductionServer:
    """`manage.py serve` and its workers: one process group, one environment, one log."""

    directory: Path
    database_url: str
    zammad_url: str = "http://127.0.0.1:9"
    more: Mapping[str, str] = field(default_factory=dict)
    command: str = "serve"
    arguments: tuple[str, ...] = ()
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.webhook_secret = secrets.token_hex(16)
        self.log = self.directory / f"server-{self.port}.log"
        self.environment = {
            "PATH": os.environ["PATH"],
            "ENV_FILE": "",
            "DEBUG": "false",
            "SECRET_KEY": secrets.token_urlsafe(50),
            "PUBLIC_URL": f"http://127.0.0.1:{self.port}",
            "PORT": str(self.port),
            "WEB_CONCURRENCY": str(WORKERS),
            "DATABASE_URL": self.database_url,
            "CACHE_URL": f"file://{self.directory}/cache",
            "EMAIL_URL": "dummy:",
            "LOGIN_RATE_PER_IP": "1000/m",
            "ZAMMAD_URL": self.zammad_url,
            "ZAMMAD_API_TOKEN": "sandbox-api-token",
            "ZAMMAD_WEBHOOK_SECRETS": self.webhook_secret,
            **self.more,
        }

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Serve, and return once it answers."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "manage.py", self.command, *self.arguments],
                cwd=BASE_DIR,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        ends_at = time.monotonic() + START_TIMEOUT
        while not self.is_healthy():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < ends_at, self.log.read_text()
            time.sleep(0.05)

    def is_healthy(self) -> bool:
        try:
            host = urlsplit(self.environment["PUBLIC_URL"]).netloc
            return self.get("/healthz", Host=host).status == 200
        except (OSError, http.client.HTTPException):
            return False

    def kill(self) -> None:
        """Kill every process at once, with no chance to finish anything."""
        if self.process is not None:
            with suppress(ProcessLookupError):  # it has stopped in good order
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(timeout=10)
            self.process = None

    def manage(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of manage.py as whoever operates this server would."""
        return subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=BASE_DIR,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=START_TIMEOUT,
            check=False,
        )

    @contextmanager
    def database(self) -> Iterator[None]:
        """Let the ORM of this thread work on the server's database, with the server's key."""
        with orm_on(self.database_url), override_settings(SECRET_KEY=self.environment["SECRET_KEY"]):
            yield

    def make_account(self, email: str, password: str, **fields: object) -> User:
        """Make a person who can sign in with a password here: the tests' own hash is weaker."""
        hashed = PBKDF2PasswordHasher().encode(password, secrets.token_hex(11))
        person: User = UserFactory(email=email, **fields)
        User.objects.filter(pk=person.pk).update(password=hashed)
        return person

    def session_of(self, person: User) -> str:
        """Sign a person in, faster than by a password, and return their session token."""
        client = Client()
        client.force_login(person)
        return str(client.session.session_key)

    # --- requests: each on a connection of its own, so that the workers share them

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_TIMEOUT)
        started = time.monotonic()
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        return Answer(response.status, response.headers, content, time.monotonic() - started)

    def get(self, path: str, **headers: str) -> Answer:
        return self.request("GET", path, headers=headers)

    def ask(self, session: str, query: str, **variables: object) -> Answer:
        """Send a GraphQL operation with a session token."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        return self.request("POST", "/graphql/", body, {"Content-Type": JSON, "X-Session-Token": session})

    def mutate(self, session: str, name: str, /, **values: object) -> tuple[str, dict[str, Any]]:
        """Run a mutation, and return OK or the code of its refusal, with what it answered.

        Everything but a typed answer with status 200 fails the test.
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
        """Send a signed webhook about one customer."""
        data = {"id": zammad_id, "email": "", "updated_at": updated_at.isoformat(), **customer}
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
        """List the lines of the log that tell of an unforeseen failure."""
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
    """Serve on a database of the test's own."""
    if kind == "postgresql":
        # Each thread holds a connection, and several servers share PostgreSQL's usual hundred.
        more = {"WEB_THREADS": "8", **more}
    with scratch_database(kind, directory) as database_url:
        server = ProductionServer(directory, database_url, zammad_url, more, command)
        try:
            server.start()
            yield server
        finally:
            server.kill()


@contextmanager
def production_server(kind: str, directory: Path, **options: str) -> Iterator[ProductionServer]:
    """Serve on a database of the test's own, which the ORM of this thread works on, too.

    For one test only: whatever runs beside would find itself on that database.
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
    """A Zammad that can do what it is asked for and then keep its answer to itself."""

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
    """Let a test work on the databases of servers, once the tests' own has been set up."""
    with django_db_blocker.unblock():
        yield


@pytest.fixture
def production(_production: Production, server_databases: None) -> Iterator[Production]:
    """Share a running server, empty at first; whatever a test does to it, its log complains of nothing."""
    before = len(_production.server.complaints())
    with _production.server.database():
        empty_database()
        _production.zammad.calls.clear()
        yield _production
        _production.zammad.faults.clear()
    assert _production.server.complaints()[before:] == []


def empty_database() -> None:
    # In this order, for a seat protects its person.
    models: list[type[Model]] = [
        FamilyPlanInvite,
        Membership,
        FamilyPlan,
        WebhookDelivery,
        ZammadUser,
        User,
        Constance,
    ]
    for model in models:
        model._default_manager.all().delete()


# --- At once -------------------------------------------------------------------------------------


def at_once(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """Make all calls at the same moment, and return what they return, in order."""
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], Any]) -> Any:
        barrier.wait(timeout=30)
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until something outside of this process has come about."""
    ends_at = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < ends_at
        time.sleep(0.01)


def check_promises() -> None:
    """Hold what must never happen, whatever happened: oversold seats, two plans, torn invites."""
    now = timezone.now()
    for plan in FamilyPlan.objects.all():
        if plan.user_limit:
            assert plan.memberships.count() <= plan.user_limit
        owners = plan.memberships.filter(role=Membership.Role.OWNER).count()
        assert owners == (0 if plan.closed_at else 1)
        if plan.closed_at:
            assert plan.seats_taken(now=now) == 0
    assert not User.objects.annotate(seats=Count("membership")).filter(seats__gt=1).exists()
    used = FamilyPlanInvite.objects.exclude(user=None)
    assert not used.exclude(user__membership__family_plan=F("family_plan")).exists()
    torn = Q(user=None, is_used=True) | Q(user__isnull=False, is_used=False)
    assert not FamilyPlanInvite.objects.filter(torn).exists()
