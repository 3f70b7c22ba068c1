"""Servers: ours, as manage.py serve starts it, and gunicorn, on the plan query and on an empty view."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from statistics import mean

from tests.benchmarks.bench import Bench, Target, table
from tests.benchmarks.dataset import DataSet
from tests.benchmarks.plan_query import MEMBERS, candidates
from tests.benchmarks.processes import memory_of_workers
from tests.benchmarks.servers import SERVICE, Candidate, OverHTTP, Stack

LOCK = Path(__file__).with_name("rivals") / "gunicorn.txt"
MEASURED = {"this service": "the plan query", "an empty view": "an empty view"}


def stacks(threads: int) -> list[Stack]:
    """Return the servers, each with this many processes, and, except gunicorn's sync, this many threads."""

    def gunicorn(kind: str, *arguments: str) -> Stack:
        # It takes the number of processes and the port from the environment.
        program = ("-m", "gunicorn", f"--worker-class={kind}", *arguments, "config.wsgi:application")
        return replace(SERVICE, name=f"gunicorn, {kind}", lock=LOCK, program=program)

    return [
        replace(SERVICE, name="ours"),
        gunicorn("gthread", f"--threads={threads}"),
        gunicorn("sync"),
    ]


def run(bench: Bench) -> str:
    data = DataSet(plans=bench.plans, members=MEMBERS)
    servers = stacks(bench.threads)
    jobs = {job.name: job for job in candidates(data) if job.name in MEASURED}
    parts = [f"## Servers, {bench.processes} processes of {bench.threads} threads"]
    lines = ["| server | RSS of a worker | PSS of a worker | until it answers |", "|---|---|---|---|"]
    with bench.database(data) as database_url, ExitStack() as running:
        targets: dict[Stack, Target] = {}
        starts: dict[Stack, float] = {}
        for stack in servers:
            stack.install()
            started = time.monotonic()
            targets[stack] = running.enter_context(bench.target(stack, database_url))
            starts[stack] = time.monotonic() - started
        for name, what in MEASURED.items():
            on_each = [on(stack, jobs[name]) for stack in servers]
            measured = bench.compare_on(targets, on_each)
            parts.append(f"### {what[0].upper()}{what[1:]}\n\n{table(measured, servers[0].name)}")
        for stack, target in targets.items():
            assert isinstance(target, OverHTTP)
            memory = memory_of_workers(target.server, bench.processes).values()
            lines.append(
                f"| {stack.name} | {mean(each.rss for each in memory):.0f} MB "
                f"| {mean(each.pss for each in memory):.0f} MB | {starts[stack]:.1f} s |"
            )
    return "\n\n".join([*parts, "\n".join(lines)])


def on(stack: Stack, job: Candidate) -> Candidate:
    return replace(job, name=stack.name, stack=stack)
