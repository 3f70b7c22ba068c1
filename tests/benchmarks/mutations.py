"""createInvite, acceptInvite and detachMember: their cost, how they scale, and who waits for whom."""

from __future__ import annotations

import datetime
import json
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from statistics import median

import psycopg

from tests.benchmarks.bench import WARM_UP, Bench
from tests.benchmarks.dataset import DataSet
from tests.benchmarks.families import (
    ANSWERS,
    Client,
    Family,
    Refused,
    at_once,
    days_of,
    families,
    graphql,
    let_invite_often,
    load_of,
    mutate,
    node_id,
    zammad,
)
from tests.benchmarks.load import Load, Request, ask
from tests.benchmarks.servers import SERVICE
from tests.server import BASE_DIR, Server
from zammad.client import ZammadClient
from zammad.sandbox import Fault, Sandbox

WHO_ASKS = "{ viewer { __typename id } }"
SCALES = (1, 2, 4)  # processes
THREADS = 16  # each, as manage.py serve has by default
TOKENS = 300  # to Zammad, one after the other
HANGING = 50


def run(bench: Bench) -> str:
    data = DataSet(plans=bench.plans)
    with bench.database(data) as database_url, zammad() as zammad_url:
        let_invite_often(database_url)
        parts = [
            f"## Mutations, {bench.plans} plans",
            costs(bench, data, database_url, zammad_url),
            scaling(bench, data, database_url, zammad_url),
            slow_family(bench, data, database_url, zammad_url),
            slow_zammad(bench, data, database_url),
        ]
    return "\n\n".join(parts)


@contextmanager
def serving(bench: Bench, database_url: str, zammad_url: str) -> Iterator[Server]:
    # Half of a process's threads may wait for Zammad: with few threads, a crowd is refused.
    server = bench.server_of(SERVICE, database_url, zammad_url=zammad_url, WEB_THREADS=str(THREADS))
    try:
        server.start()
        yield server
    finally:
        server.kill()


# --- What each costs ------------------------------------------------------------------------------


def costs(bench: Bench, data: DataSet, database_url: str, zammad_url: str) -> str:
    """Print each mutation's statements and its time without other load, with Zammad's part in it."""
    statements = count_statements(bench, families(data)[0], database_url, zammad_url)
    with serving(bench, database_url, zammad_url) as server:
        at_once(server.port, [days_of(families(data))], WARM_UP)
        answered = at_once(server.port, [days_of(families(data))], bench.seconds)
    token = token_p50(zammad_url)
    lines = [
        "| mutation | SQL statements | beside who asks | p50 | p99 | p50 without Zammad's call |",
        "|---|---|---|---|---|---|",
    ]
    for name in ANSWERS:
        load = load_of([each for each in answered if each.kind == name], bench.seconds)
        alone = load.p50 - (token if name == "createInvite" else 0)
        lines.append(
            f"| {name} | {statements[name]} | {statements[name] - statements['who asks']} "
            f"| {load.p50:.1f} ms | {load.p99:.1f} ms | {alone:.1f} ms |"
        )
    return "\n".join([*lines, "", f"Zammad's call alone, to the sandbox: p50 {token:.1f} ms."])


def count_statements(bench: Bench, family: Family, database_url: str, zammad_url: str) -> dict[str, int]:
    server = bench.server_of(SERVICE, database_url, zammad_url=zammad_url)
    counts: dict[str, int] = {}
    with subprocess.Popen(
        [server.python, "-m", "tests.benchmarks.count_statements"],
        cwd=BASE_DIR,
        env=server.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=server.log.open("ab"),
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        stdin, stdout = process.stdin, process.stdout

        def counted(kind: str, request: Request) -> bytes:
            stdin.write(json.dumps(asdict(request)) + "\n")
            stdin.flush()
            counts[kind], body = json.loads(stdout.readline())
            return str(body).encode()

        # The first run fills caches.
        for _ in range(2):
            counted("who asks", graphql(family.owner, WHO_ASKS))
            for _ in family.day(counted):
                pass
    return counts


def token_p50(zammad_url: str) -> float:
    """Return the milliseconds that the service's own client waits for a token."""
    client = ZammadClient(url=zammad_url, token="sandbox-api-token")
    tomorrow = datetime.datetime.now(datetime.UTC).date() + datetime.timedelta(days=1)
    times = []
    for _ in range(TOKENS):
        started = time.monotonic()
        client.create_access_token(name=f"benchmark-{uuid.uuid4()}", expires_on=tomorrow)
        times.append(time.monotonic() - started)
    client.close()
    return median(times) * 1e3


# --- In parallel ----------------------------------------------------------------------------------


def scaling(bench: Bench, data: DataSet, database_url: str, zammad_url: str) -> str:
    """Print how many mutations more processes handle, each family in a plan of its own."""
    rates: dict[int, list[float]] = {processes: [] for processes in SCALES}
    with ExitStack() as running:
        servers = {
            processes: running.enter_context(
                serving(replace(bench, processes=processes), database_url, zammad_url)
            )
            for processes in SCALES
        }
        for number in range(bench.rounds + 1):  # the first run warms up
            for processes, server in servers.items():
                load = together(server, data, processes * bench.threads, bench.seconds)
                if number:
                    rates[processes].append(load.rate)
    alone = median(rates[1])
    lines = ["| processes | mutations a second | of linear | of rounds |", "|---|---|---|---|"]
    for processes, found in rates.items():
        ratios = [rate / one / processes for rate, one in zip(found, rates[1], strict=True)]
        lines.append(
            f"| {processes} | {median(found):.0f} | {median(found) / alone / processes:.2f} "
            f"| {min(ratios):.2f} to {max(ratios):.2f} |"
        )
    return "\n".join(lines)


def together(server: Server, data: DataSet, connections: int, seconds: float, *, but: int = 0) -> Load:
    """Run all families but the first ones on this many connections."""
    others = families(data)[but:]
    jobs = [days_of(others[place::connections]) for place in range(connections)]
    started = time.monotonic()
    answered = at_once(server.port, jobs, seconds)
    return load_of(answered, time.monotonic() - started)


# --- Who waits for whom ---------------------------------------------------------------------------


def slow_family(bench: Bench, data: DataSet, database_url: str, zammad_url: str) -> str:
    """Compare how long other families wait while one plan's row is locked and its people send requests."""
    usual: list[Load] = []
    meanwhile: list[Load] = []
    family = families(data)[0]
    connections = bench.processes * bench.threads // 2
    with serving(bench, database_url, zammad_url) as server:
        together(server, data, connections, WARM_UP, but=1)
        for _ in range(bench.rounds):
            usual.append(together(server, data, connections, bench.seconds, but=1))
            with ThreadPoolExecutor() as pool:
                with psycopg.connect(database_url) as holder:
                    holder.execute("SELECT FROM plans_familyplan WHERE id = %s FOR UPDATE", [family.plan])
                    waiting = pool.submit(days_of([family]), Client(server.port), ended())
                    meanwhile.append(together(server, data, connections, bench.seconds, but=1))
                    assert not waiting.done()
                waiting.result()
    ratios = [slow.p50 / fast.p50 for slow, fast in zip(meanwhile, usual, strict=True)]
    return (
        f"While one family waits for its plan's lock, the p50 of the others is {median(ratios):.2f} times "
        f"the usual ({min(ratios):.2f} to {max(ratios):.2f}), "
        f"the p99 {median(load.p99 for load in meanwhile) / median(load.p99 for load in usual):.2f} times."
    )


def ended() -> threading.Event:
    over = threading.Event()
    over.set()
    return over


def slow_zammad(bench: Bench, data: DataSet, database_url: str) -> str:
    """Count the database connections of a server whose Zammad is silent."""
    people = families(data)[:HANGING]
    with (
        Sandbox() as sandbox,
        serving(bench, database_url, sandbox.url) as server,
        ThreadPoolExecutor(HANGING) as pool,
    ):
        for _ in range(5):  # so that each thread has its connection
            list(pool.map(lambda one: ask(graphql(one.owner, WHO_ASKS), server.port), people))
        usual = connections_to(database_url)
        sandbox.faults.set("POST /api/v1/user_access_token", Fault.HANG)
        hanging = [pool.submit(refusal, server.port, family) for family in people]
        time.sleep(1)
        queueing = connections_to(database_url)
        time.sleep(3)  # everybody who found no place to wait was refused by now
        still = sum(not each.done() for each in hanging)
        meanwhile = connections_to(database_url)
        assert all("INVITE_TOKEN_UNAVAILABLE" in each.result() for each in hanging)
    return (
        f"Of {HANGING} createInvite on a Zammad that says nothing, {still} hang after 4 s: "
        f"{usual} database connections before, {queueing} after 1 s, {meanwhile} after 4 s."
    )


def refusal(port: int, family: Family) -> str:
    """Create an invite, and return the code of the refusal, if any."""
    try:
        mutate(Client(port).ask, family.owner, "createInvite", planId=node_id("FamilyPlan", family.plan))
    except Refused as refused:
        return str(refused)
    return ""


def connections_to(database_url: str) -> int:
    with psycopg.connect(database_url) as connection:
        row = connection.execute(
            """SELECT count(*) FROM pg_stat_activity
               WHERE datname = current_database() AND pid <> pg_backend_pid()"""
        ).fetchone()
    assert row is not None
    return int(row[0])
