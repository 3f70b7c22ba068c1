"""The import of all Zammad users: its speed compared with the sandbox that serves them, and its memory."""

from __future__ import annotations

import http.client
import multiprocessing
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

from tests.benchmarks.bench import Bench
from tests.benchmarks.dataset import email_of
from tests.benchmarks.load import BadAnswers
from tests.benchmarks.processes import memory_of
from tests.benchmarks.servers import SERVICE
from tests.server import BASE_DIR, Server, postgresql_database
from zammad.sandbox import Sandbox

USERS = 100_000
PER_PAGE = 500
EARLY = 10_000 // PER_PAGE  # the page after which memory is measured first


@dataclass(frozen=True, slots=True, kw_only=True)
class Import:
    """One run of the command: users per second, and the memory of its process in MB."""

    rate: float
    early: float  # after 10,000 users
    late: float  # after all of them


def run(bench: Bench) -> str:
    fresh, again, bare = [], [], []
    with (
        sandbox() as url,
        postgresql_database(bench.server, f"family_plans_bench_{uuid.uuid4().hex[:12]}") as database,
    ):
        server = bench.server_of(SERVICE, database, zammad_url=url)
        server.manage("migrate")
        for number in range(bench.rounds):
            sys.stderr.write(f"Round {number + 1} of {bench.rounds}\n")
            if number:
                server.manage("flush", "--no-input")
            bare.append(fetch_all(url))
            fresh.append(import_all(server, f"{USERS} created"))
            again.append(import_all(server, f"{USERS} already known"))
    lines = [
        "| | ratio | of rounds | users a second | memory after 10,000 | and in the end |",
        "|---|---|---|---|---|---|",
    ]
    lines.append(f"| the pages fetched, and nothing else | 1.00 | | {median(bare):.0f} | | |")
    for name, imports in (("all are new", fresh), ("all are known", again)):
        ratios = [each.rate / rate for each, rate in zip(imports, bare, strict=True)]
        lines.append(
            f"| {name} | {median(ratios):.2f} | {min(ratios):.2f} to {max(ratios):.2f} "
            f"| {median(each.rate for each in imports):.0f} "
            f"| {median(each.early for each in imports):.0f} MB "
            f"| {median(each.late for each in imports):.0f} MB |"
        )
    return f"## The import of {USERS} users\n\n" + "\n".join(lines)


@contextmanager
def sandbox() -> Iterator[str]:
    """Run a sandbox with many users in a process of its own, and yield its address."""
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,), daemon=True)
    process.start()
    try:
        yield ours.recv()
    finally:
        ours.send("done")
        process.join()


def serve(pipe: Connection) -> None:
    with Sandbox() as running:
        users = len(running.records["users"]) - 1  # the first is Zammad's own
        for number in range(users, USERS):
            running.add_user(email_of(number), firstname="Ada", lastname=f"Person{number}")
        pipe.send(running.url)
        pipe.recv()


def fetch_all(url: str) -> float:
    """Fetch the same pages as the import, and return users per second."""
    headers = {"Authorization": "Token token=sandbox-api-token"}
    started = time.perf_counter()
    with closing(http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)) as connection:
        for page in range(1, USERS // PER_PAGE + 2):
            connection.request(
                "GET", f"/api/v1/users?expand=true&page={page}&per_page={PER_PAGE}", headers=headers
            )
            response = connection.getresponse()
            if response.read() == b"" or response.status != 200:
                raise BadAnswers(f"The sandbox answers {response.status}")
    return USERS / (time.perf_counter() - started)


def import_all(server: Server, wanted: str) -> Import:
    """:raises BadAnswers: when the command did something else."""
    started = time.perf_counter()
    with subprocess.Popen(
        [server.python, "manage.py", "import_zammad_users", "--per-page", str(PER_PAGE)],
        cwd=BASE_DIR,
        env=server.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        told, memory = "", []
        for line in process.stdout:
            told = line
            if line.startswith("Page "):
                memory.append(memory_of(Path(f"/proc/{process.pid}")).rss)
    if process.returncode or wanted not in told:
        raise BadAnswers(f"Wanted {wanted}, and the import tells: {told}")
    return Import(rate=USERS / (time.perf_counter() - started), early=memory[EARLY - 1], late=memory[-1])
