"""The production server, as `make serve` starts it."""

import json
import os
import re
import secrets
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from django.utils import timezone
from prometheus_client.parser import text_string_to_metric_families

from plans.models import FamilyPlanInvite
from tests.api import node_id
from tests.factories import OwnerFactory
from tests.production import OK, ProductionServer, at_once, production_server
from tests.server import WORKERS
from zammad.sandbox import Call, Sandbox

BASE_DIR = Path(__file__).resolve().parent.parent


def environment(tmp_path: Path, port: int, **more: str) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "ENV_FILE": "",
        "DEBUG": "false",
        "SECRET_KEY": secrets.token_urlsafe(50),
        "PUBLIC_URL": f"http://127.0.0.1:{port}",
        "PORT": str(port),
        "WEB_CONCURRENCY": "1",
        "DATABASE_URL": f"sqlite:///{tmp_path}/db.sqlite3",
        "CACHE_URL": f"file://{tmp_path}/cache",
        "ZAMMAD_URL": "http://127.0.0.1:9",
        "ZAMMAD_API_TOKEN": secrets.token_hex(16),
        "ZAMMAD_WEBHOOK_SECRETS": secrets.token_hex(16),
        **more,
    }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310  # our own server
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError:
        return 0, ""


def test_the_production_server_serves_pages_and_static_files_and_stops_when_asked(tmp_path: Path) -> None:
    # given a server on an empty database
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    log = tmp_path / "log"
    with log.open("w") as output:
        server = subprocess.Popen(
            [sys.executable, "manage.py", "serve"],
            cwd=BASE_DIR,
            env=environment(tmp_path, port),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + 90
        while get(f"{url}/healthz") != (200, "ok\n"):
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)

        # when its pages are opened, then they are there, and nothing of development is
        status, page = get(f"{url}/accounts/login/")
        assert status == 200
        assert "Sign In" in page
        status, page = get(f"{url}/nothing-here/")
        assert status == 404
        assert "Not found" in page
        assert "DEBUG" not in page
        manifest = (BASE_DIR / "staticfiles" / "staticfiles.json").read_text()
        hashed = re.search(r'"admin/css/base\.css": "([^"]+)"', manifest)
        assert hashed
        assert get(f"{url}/static/{hashed[1]}")[0] == 200
    finally:
        server.send_signal(signal.SIGTERM)
        code = server.wait(timeout=30)

    # and it stops in order
    assert code == 0
    assert "Server stopped" in log.read_text()


def test_a_number_of_processes_that_is_none_is_refused(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "manage.py", "serve"],
        cwd=BASE_DIR,
        env=environment(tmp_path, free_port(), WEB_CONCURRENCY="many"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert result.returncode == 1
    assert "Set WEB_CONCURRENCY to the number of processes" in result.stderr
    # and nothing was migrated; the checks of Django 6.1 open the database
    with closing(sqlite3.connect(tmp_path / "db.sqlite3")) as database:
        assert database.execute("SELECT name FROM sqlite_master").fetchall() == []


def test_development_is_not_served_as_production(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "manage.py", "serve"],
        cwd=BASE_DIR,
        env=environment(tmp_path, free_port(), DEBUG="true"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert result.returncode == 1
    assert "Set DEBUG=false to serve" in result.stderr


# --- Stopping ------------------------------------------------------------------------------------


class ThinkingSandbox(Sandbox):
    """A Zammad that responds once it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.was_asked = threading.Event()
        self.may_answer = threading.Event()

    def answer(self, call: Call) -> tuple[int, object]:
        self.was_asked.set()
        assert self.may_answer.wait(30)
        return super().answer(call)


def wait_for_workers(server: ProductionServer, event: str) -> None:
    """Wait until each worker has written such a line."""
    ends_at = time.monotonic() + 30
    while (log := server.log.read_text()).count(f"{event} worker-") < WORKERS:
        assert time.monotonic() < ends_at, log
        time.sleep(0.05)


def test_a_server_that_is_told_to_stop_finishes_what_it_has_begun(
    tmp_path: Path, server_databases: None
) -> None:
    with (
        ThinkingSandbox() as zammad,
        production_server("sqlite", tmp_path, zammad_url=zammad.url) as server,
        ThreadPoolExecutor(1) as pool,
    ):
        # given an owner who waits for an invite, as Zammad takes its time
        assert server.process is not None
        wait_for_workers(server, "Started")  # a worker stopped before that would be killed after a while
        owner = OwnerFactory()
        session = server.session_of(owner.user)
        inviting = pool.submit(server.mutate, session, "createInvite", planId=node_id(owner.family_plan))
        assert zammad.was_asked.wait(30)

        # when the server is told to stop
        server.process.send_signal(signal.SIGTERM)
        wait_for_workers(server, "Stopping")
        assert not inviting.done()
        zammad.may_answer.set()

        # then the owner gets the invite, which is there, and then the server is gone
        code, _answer = inviting.result(timeout=30)
        assert code == OK
        assert server.process.wait(timeout=30) == 0
        assert FamilyPlanInvite.objects.count() == 1
        assert server.complaints() == []


# --- Starting what is already prepared -----------------------------------------------------------


def test_a_server_that_finds_everything_prepared_neither_collects_nor_migrates(tmp_path: Path) -> None:
    # given static files, and a database without migrations
    server = ProductionServer(
        tmp_path, f"sqlite:///{tmp_path}/db.sqlite3", program=("manage.py", "serve", "--prepared")
    )
    assert server.manage("collectstatic", "--no-input").returncode == 0

    # when it starts
    try:
        server.start()
        healthy, ready = server.get("/healthz"), server.get("/readyz")

        # then it lives, and says what is missing
        assert (healthy.status, healthy.body) == (200, b"ok\n")
        assert (ready.status, ready.body) == (503, b"migrations missing\n")

        # and is ready as soon as the database is migrated
        assert server.manage("migrate", "--no-input").returncode == 0
        ready = server.get("/readyz")
        assert (ready.status, ready.body) == (200, b"ready\n")
    finally:
        server.kill()


# --- What operators see --------------------------------------------------------------------------


def lines_of(server: ProductionServer) -> list[dict[str, Any]]:
    """Read the log lines, without the sentences that `serve` prints before it starts."""
    lines = server.log.read_text().splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("{"))
    return [json.loads(line) for line in lines[first:]]


def counted(page: bytes, name: str) -> dict[tuple[str, ...], float]:
    """Return the samples of a name by their labels."""
    return {
        tuple(value for _, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
        if sample.name == name
    }


def test_all_processes_write_lines_of_json_and_count_together(tmp_path: Path, server_databases: None) -> None:
    metrics = tmp_path / "metrics"
    metrics.mkdir()
    (metrics / "counter_1.db").write_bytes(b"left behind by an earlier start")
    token = secrets.token_hex(16)
    settings = {"METRICS_TOKEN": token, "METRICS_DIR": str(metrics)}
    with production_server("sqlite", tmp_path, **settings) as server:
        # given requests that several processes have handled: the system chooses which
        ids: list[str] = []
        ends_at = time.monotonic() + 60
        while len(list(metrics.glob("histogram_*.db"))) < 2:
            assert time.monotonic() < ends_at
            batch = [f"request-{len(ids) + number:05}" for number in range(12)]
            answers = at_once(
                [partial(server.get, "/accounts/login/", **{"X-Request-ID": one}) for one in batch]
            )
            assert {answer.status for answer in answers} == {200}
            ids += batch

        # when any of them is scraped, then it reports for all
        for _ in range(10):
            page = server.get("/metrics", Authorization=f"Bearer {token}")
            assert page.status == 200
            requests = counted(page.body, "family_plans_request_seconds_count")
            assert requests["GET", "200", "account_login"] == len(ids)
            assert counted(page.body, "family_plans_open_invites") == {(): 0}

        # and each line of each process is an object, with the ID of its request
        lines = lines_of(server)
        assert all({"event", "level", "logger", "timestamp"} <= set(line) for line in lines)
        assert any(line["logger"] == "config.server" for line in lines)
        answered = Counter(line["request_id"] for line in lines if line.get("view") == "account_login")
        assert answered == dict.fromkeys(ids, 1)


def test_a_delivery_is_found_in_the_log_by_the_id_that_zammad_shows(
    tmp_path: Path, server_databases: None
) -> None:
    with production_server("sqlite", tmp_path) as server:
        server.deliver(57, timezone.now(), email="lena@acme.example")

        [line] = [line for line in lines_of(server) if line.get("view") == "zammad-webhook"]

    assert uuid.UUID(line["delivery_id"]).version == 4
    assert uuid.UUID(line["request_id"]).version == 4
    assert (line["status"], line["outcome"], line["answer"]) == (200, "APPLIED", "APPLIED")
    assert "lena" not in server.log.read_text()
