"""A production server in processes of its own, and its database. Nothing here needs Django.

A server runs as `manage.py serve` starts it, in a process group that is killed as a whole.
"""

from __future__ import annotations

import http.client
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg

BASE_DIR = Path(__file__).resolve().parent.parent
WORKERS = 3
START_TIMEOUT = 90.0  # seconds; a busy machine takes longer to migrate
ANSWER_TIMEOUT = 60.0
NO_ZAMMAD = "http://127.0.0.1:9"  # nobody listens


@contextmanager
def scratch_database(kind: str, directory: Path) -> Iterator[str]:
    """Yield the address of an empty database: a file, or one created on the server of TEST_DATABASE_URL."""
    name = f"family_plans_{uuid.uuid4().hex[:12]}"
    if kind == "sqlite":
        yield f"sqlite:///{directory}/{name}.sqlite3"
        return
    with postgresql_database(os.environ["TEST_DATABASE_URL"], name) as url:
        yield url


def on_server(server: str, name: str) -> str:
    """Return the address of a database on the server of another database's address."""
    return urlunsplit(urlsplit(server)._replace(path=f"/{name}"))


@contextmanager
def postgresql_database(server: str, name: str) -> Iterator[str]:
    """Create an empty database, and drop it afterwards, even if a server still uses it."""
    maintenance = on_server(server, "postgres")
    with psycopg.connect(maintenance, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"'.encode())
    try:
        yield on_server(server, name)
    finally:
        with psycopg.connect(maintenance, autocommit=True) as connection:
            connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'.encode())


@dataclass(frozen=True, slots=True)
class Answer:
    """The response to one request, and its time in seconds."""

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
class Server:
    """`manage.py serve` and its workers: one process group, one environment, one log."""

    directory: Path
    database_url: str
    zammad_url: str = NO_ZAMMAD
    more: Mapping[str, str] = field(default_factory=dict)
    program: tuple[str, ...] = ("manage.py", "serve")
    python: str = sys.executable
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
        """Serve, and return once the server responds."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [self.python, *self.program],
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
        """Kill every process at once, without a chance to finish anything."""
        if self.process is not None:
            with suppress(ProcessLookupError):  # it has stopped in good order
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(timeout=10)
            self.process = None

    def manage(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of manage.py as the operator of this server would."""
        return subprocess.run(
            [self.python, "manage.py", *arguments],
            cwd=BASE_DIR,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=START_TIMEOUT,
            check=False,
        )

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
