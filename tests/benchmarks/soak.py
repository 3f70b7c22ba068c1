"""A soak test: all operations mixed, for as long as you like, with the memory of the workers."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from statistics import mean

from tests.benchmarks.bench import Bench
from tests.benchmarks.dataset import DataSet
from tests.benchmarks.families import (
    Answered,
    Client,
    Family,
    Refused,
    at_once,
    families,
    graphql,
    let_invite_often,
    load_of,
    zammad,
)
from tests.benchmarks.load import BadAnswers, Request
from tests.benchmarks.mutations import serving
from tests.benchmarks.plan_query import QUERY
from tests.benchmarks.processes import Memory, memory_of_workers
from tests.benchmarks.webhook import SIZES, at, signed
from tests.server import Server

PLAN_QUERIES, DELIVERIES = 0.8, 0.1  # of all requests; the rest is mutations
PLAN = QUERY % "status: OPEN"
DIFFERENT_DELIVERIES = 10_000
EVERY = 10.0  # seconds, after which memory is measured

Samples = list[dict[int, Memory]]


def run(bench: Bench) -> str:
    data = DataSet(plans=bench.plans)
    connections = bench.processes * bench.threads
    refusals: Counter[str] = Counter()
    deliveries = at("/webhooks/zammad/", list(signed(data, DIFFERENT_DELIVERIES, SIZES["4 KB"])))
    people = families(data)
    jobs = [
        mixed(people[place::connections], deliveries[place::connections], refusals)
        for place in range(connections)
    ]
    with (
        bench.database(data) as database_url,
        zammad() as zammad_url,
        serving(bench, database_url, zammad_url) as server,
    ):
        let_invite_often(database_url)
        over = threading.Event()
        samples: Samples = []
        watching = threading.Thread(target=watch, args=(server, bench.processes, samples, over))
        watching.start()
        started = time.monotonic()
        try:
            answered = at_once(server.port, jobs, bench.seconds)
        finally:
            over.set()
            watching.join()
        complaints = [line for line in server.log.read_text().splitlines() if '"level": "error"' in line]
    if complaints:
        raise BadAnswers(f"The log has {len(complaints)} errors: {complaints[0][:2000]}")
    return "\n\n".join(
        [
            f"## A soak of {bench.seconds:.0f} seconds, {bench.plans} plans",
            f"{len(answered)} answers, no errors; refused: {dict(refusals) or 'none'}.",
            times(answered, started, bench.seconds),
            memory(samples),
        ]
    )


def mixed(
    own: Sequence[Family], deliveries: Sequence[Request], refusals: Counter[str]
) -> Callable[[Client, threading.Event], None]:
    """Return a job that picks a plan query, a mutation of the next family, or a delivery at random."""

    def live(client: Client, over: threading.Event) -> None:
        chance = random.Random(own[0].plan)  # noqa: S311  # the same each time
        turn = 0
        days = days_without_end(own, client, refusals)
        while not over.is_set():
            turn += 1
            drawn = chance.random()
            if drawn < PLAN_QUERIES:
                client.ask("plan query", graphql(own[turn % len(own)].owner, PLAN))
            elif drawn < PLAN_QUERIES + DELIVERIES:
                answer = client.ask("webhook", deliveries[turn % len(deliveries)])
                if not answer.startswith((b"APPLIED", b"STALE")):
                    raise BadAnswers(f"A delivery was answered {answer.decode()}")
            else:
                next(days)

    return live


def days_without_end(own: Sequence[Family], client: Client, refusals: Counter[str]) -> Iterator[None]:
    """Live one day of each family after the other, in steps; a refusal ends the day."""
    while True:
        for family in own:
            try:
                yield from family.day(client.ask)
            except Refused as refused:
                refusals[str(refused)] += 1


def watch(server: Server, workers: int, samples: Samples, over: threading.Event) -> None:
    while not over.wait(EVERY):
        samples.append(memory_of_workers(server, workers))


def times(answered: Sequence[Answered], started: float, seconds: float) -> str:
    """Print how long responses took in each third of the time."""
    lines = ["| kind | answers | p50 in thirds | p99 in thirds |", "|---|---|---|---|"]
    for kind in sorted({each.kind for each in answered}):
        thirds: list[list[Answered]] = [[], [], []]
        for each in answered:
            if each.kind == kind:
                thirds[min(2, int((each.at - started) / seconds * 3))].append(each)
        loads = [load_of(third, seconds / 3) for third in thirds]
        lines.append(
            f"| {kind} | {sum(map(len, thirds))} | {', '.join(f'{load.p50:.1f}' for load in loads)} ms "
            f"| {', '.join(f'{load.p99:.1f}' for load in loads)} ms |"
        )
    return "\n".join(lines)


def memory(samples: Samples) -> str:
    """Print the mean memory of each worker in the first and in the last third of the time."""
    third = len(samples) // 3
    if not third:
        return f"Memory is looked at every {EVERY:.0f} s: too short a time to tell."
    lines = ["| worker | first third | last third | ratio |", "|---|---|---|---|"]
    if any(each.keys() != samples[0].keys() for each in samples):
        raise BadAnswers("Workers have ended, and others came.")
    for number, pid in enumerate(samples[0], start=1):
        first = mean(each[pid].pss for each in samples[:third])
        last = mean(each[pid].pss for each in samples[-third:])
        lines.append(f"| {number} | {first:.1f} MB | {last:.1f} MB | {last / first:.3f} |")
    return "\n".join([*lines, "", "PSS, which shares what is shared."])
