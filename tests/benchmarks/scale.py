"""A million plans compared with a thousand: the same requests to two servers, in turn."""

from __future__ import annotations

import datetime
import http.client
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from statistics import median

import psycopg

from tests.benchmarks import operations
from tests.benchmarks.bench import WEBHOOK_SECRET, Bench
from tests.benchmarks.dataset import DataSet
from tests.benchmarks.load import BadAnswers, Load
from tests.benchmarks.operations import Operation
from tests.benchmarks.servers import SERVICE
from tests.server import BASE_DIR, Server

SMALL = 1000  # plans
REQUESTS = 1000  # per job and round, each for another plan
PAGES = 50  # at each place of a list, in a round
CONNECTIONS = 2  # few, because the time of a response counts, not its time in a queue
# What a round leaves: guests on plans, and the versions that webhooks sent.
UNDONE = [
    "UPDATE plans_familyplaninvite SET user_id = NULL WHERE user_id >= %(guests)s",
    "UPDATE zammad_zammaduser SET user_id = NULL WHERE user_id >= %(guests)s",
    "DELETE FROM plans_membership WHERE user_id >= %(guests)s",
    "DELETE FROM plans_planevent WHERE id > %(events)s",
    "DELETE FROM zammad_webhookdelivery WHERE id > %(plans)s",
    "DELETE FROM zammad_zammaduser WHERE zammad_id >= %(newcomers)s + 1000",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """A data set, and its server."""

    data: DataSet
    database_url: str
    server: Server

    def plans(self, number: int) -> list[int]:
        """Return the plans of a round: with a million, none that an earlier round has warmed."""
        plans = list(self.data.owners_signed_in)
        start = number * REQUESTS % len(plans)
        return plans[start : start + REQUESTS]

    def plan_queries(self, number: int) -> list[Operation]:
        return [operations.plan_query(self.data, plan) for plan in self.plans(number)]

    def accepts(self, number: int) -> list[Operation]:
        return [
            operations.accept_invite(self.data, plan, guest)
            for guest, plan in enumerate(self.plans(number), start=1)
        ]

    def deliveries(self, number: int) -> list[Operation]:
        now = datetime.datetime.now(datetime.UTC)
        return list(operations.deliveries(self.data, WEBHOOK_SECRET, self.plans(number), now=now))

    def undo(self) -> None:
        values = {
            "guests": self.data.guest(1),
            "newcomers": self.data.newcomer(1),
            "plans": self.data.plans,
            "events": self.data.events,
        }
        with psycopg.connect(self.database_url) as connection:
            for statement in UNDONE:
                connection.execute(statement.encode(), values)


JOBS: dict[str, Callable[[Installation, int], list[Operation]]] = {
    "plan query": Installation.plan_queries,
    "acceptInvite": Installation.accepts,
    "webhook": Installation.deliveries,
}


def run(bench: Bench) -> str:
    with ExitStack() as running:
        small, large = [
            running.enter_context(installation(bench, DataSet(plans=plans))) for plans in (SMALL, bench.large)
        ]
        jobs = compare(small, large, rounds=bench.rounds)
        pages = turn_pages(large, rounds=bench.rounds)
        explained = explain(large)
    return "\n\n".join(
        [
            f"## {large.data.plans} plans beside {small.data.plans}",
            table(jobs, f"p50 with {small.data.plans}", f"p50 with {large.data.plans}"),
            f"## `plans(first: 100)` with {large.data.plans} plans",
            table(pages, "the first page", "this page"),
            f"## The statements of what is asked often, with {large.data.plans} plans",
            explained,
        ]
    )


@contextmanager
def installation(bench: Bench, data: DataSet) -> Iterator[Installation]:
    with bench.database(data) as database_url:
        made = Installation(
            data=data, database_url=database_url, server=bench.server_of(SERVICE, database_url)
        )
        made.undo()
        try:
            made.server.start()
            yield made
        finally:
            made.server.kill()
            made.undo()


# The times of a job, by rounds: those of the small data set, and those of the large one.
Pairs = Mapping[str, Sequence[tuple[Load, Load]]]


def compare(small: Installation, large: Installation, *, rounds: int) -> Pairs:
    """Measure each job in each round, on both in turn; the first round only warms up."""
    measured: dict[str, list[tuple[Load, Load]]] = {job: [] for job in JOBS}
    for number in range(rounds + 1):
        sys.stderr.write(f"Round {number} of {rounds}\n")
        for job, requests in JOBS.items():
            loads = {}
            for each in (small, large) if number % 2 else (large, small):
                loads[each.data] = send_each(requests(each, number), each.server.port)
            if number:
                measured[job].append((loads[small.data], loads[large.data]))
        small.undo()
        large.undo()
    return measured


def turn_pages(large: Installation, *, rounds: int) -> Pairs:
    """Measure pages of the list of all plans: at its start, in its middle and at its end."""
    last = large.data.plans - PAGES * 100
    places = {"at the start": 0, "in the middle": last // 2, "at the end": last}
    measured: dict[str, list[tuple[Load, Load]]] = {place: [] for place in places}
    for _ in range(rounds):
        loads = {
            place: send_each(
                [operations.page_of_plans(large.data, after + page * 100) for page in range(PAGES)],
                large.server.port,
            )
            for place, after in places.items()
        }
        for place, load in loads.items():
            measured[place].append((loads["at the start"], load))
    return measured


def send_each(requests: Sequence[Operation], port: int) -> Load:
    """Send each request once, over a few connections, and check that each did its work.

    :raises BadAnswers:
    """
    left = iter(requests)

    def send(_: int) -> list[float]:
        seconds = []
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
            for operation in left:
                asked = operation.request
                started = time.perf_counter()
                connection.request(asked.method, asked.path, asked.whole_body, dict(asked.headers))
                response = connection.getresponse()
                body = response.read()
                seconds.append(time.perf_counter() - started)
                if not operation.is_done_by(response.status, body):
                    raise BadAnswers(f"{asked.body} is answered {response.status}: {body[:2000].decode()}")
        return seconds

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        return Load.of_seconds([second for part in pool.map(send, range(CONNECTIONS)) for second in part])


def explain(large: Installation) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.statements", "--plans", str(large.data.plans)],
        cwd=BASE_DIR,
        env=large.server.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=True,
    )
    return done.stdout


def table(measured: Pairs, base: str, other: str) -> str:
    """Print the ratio of the median times, with the spread of the rounds, in Markdown."""
    lines = [f"| | ratio | of rounds | {base} | {other} |", "|---|---|---|---|---|"]
    for name, pairs in measured.items():
        ratios = [load.p50 / with_base.p50 for with_base, load in pairs]
        lines.append(
            f"| {name} | {median(ratios):.2f} | {min(ratios):.2f} to {max(ratios):.2f} "
            f"| {median(with_base.p50 for with_base, _ in pairs):.1f} ms "
            f"| {median(load.p50 for _, load in pairs):.1f} ms |"
        )
    return "\n".join(lines)
