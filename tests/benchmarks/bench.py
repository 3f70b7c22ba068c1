"""How benchmarks measure: on databases of their own, in rounds that interleave the candidates, as ratios."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median

import psycopg

from tests.benchmarks.dataset import DataSet
from tests.benchmarks.load import BadAnswers, Load
from tests.benchmarks.servers import SERVICE, Candidate, InProcess, OverHTTP, Stack
from tests.server import BASE_DIR, NO_ZAMMAD, Server, on_server, postgresql_database

# For benchmarks only: it signs the sessions of their data sets.
SECRET_KEY = "a-key-that-signs-nothing-but-the-sessions-of-benchmarks"
WEBHOOK_SECRET = "a-secret-of-the-webhooks-of-benchmarks"
WARM_UP = 2.0  # seconds for each candidate, before the first round
COMPARED = 20  # responses of each candidate

Target = OverHTTP | InProcess


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """The options of the command line."""

    server: str  # of PostgreSQL
    directory: Path  # for logs and prepared requests
    rounds: int = 5
    seconds: float = 5.0
    processes: int = field(default_factory=lambda: os.cpu_count() or 1)
    threads: int = 4  # of each process
    plans: int = 1000
    large: int = 1_000_000  # plans, where their number matters
    in_process: bool = False
    keep: bool = False

    # --- Databases

    @contextmanager
    def database(self, data: DataSet) -> Iterator[str]:
        """Yield the address of a database with a data set; drop it afterwards, or reuse it with `keep`."""
        made = f"family_plans_bench_{uuid.uuid4().hex[:12]}"
        with postgresql_database(self.server, made) as url:
            if not self.keep:
                self.fill(url, data)
                yield url
                return
            kept = f"family_plans_bench_kept_{fingerprint(data)}"
            with psycopg.connect(on_server(self.server, "postgres"), autocommit=True) as connection:
                if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [kept]).fetchone():
                    self.fill(url, data)
                    connection.execute(f'ALTER DATABASE "{made}" RENAME TO "{kept}"'.encode())
            yield on_server(self.server, kept)

    def fill(self, database_url: str, data: DataSet) -> None:
        sys.stderr.write(f"Making a database with {data.plans} plans\n")
        options = [f"--{name.replace('_', '-')}={value}" for name, value in asdict(data).items()]
        subprocess.run(
            [sys.executable, "-m", "tests.benchmarks.dataset", "--database", database_url, *options],
            cwd=BASE_DIR,
            env=self.server_of(SERVICE, database_url).environment,
            check=True,
        )

    # --- Servers

    def server_of(
        self, stack: Stack, database_url: str, *, zammad_url: str = NO_ZAMMAD, **more: str
    ) -> Server:
        """Describe a production server; `start()` starts it, `kill()` stops it with its workers."""
        environment = {
            "DJANGO_SETTINGS_MODULE": stack.settings,
            "SECRET_KEY": SECRET_KEY,
            "WEB_CONCURRENCY": str(self.processes),
            "WEB_THREADS": str(self.threads),
            "ZAMMAD_WEBHOOK_SECRETS": WEBHOOK_SECRET,
            **dict(stack.environment),
            **more,
        }
        return Server(
            self.directory,
            database_url,
            zammad_url,
            more=environment,
            program=stack.program,
            python=stack.python,
        )

    @contextmanager
    def target(self, stack: Stack, database_url: str) -> Iterator[Target]:
        """Run a stack during the block."""
        stack.install()
        server = self.server_of(stack, database_url)
        target = (
            InProcess(server)
            if self.in_process
            else OverHTTP(server, connections=self.processes * self.threads)
        )
        try:
            target.start()
            yield target
        finally:
            target.stop()

    # --- Rounds

    def compare(self, candidates: Sequence[Candidate], database_url: str) -> dict[str, list[Load]]:
        """Check that candidates return the same, then measure each of them once per round.

        :raises BadAnswers:
        """
        with ExitStack() as running:
            stacks = {candidate.stack for candidate in candidates}
            targets = {stack: running.enter_context(self.target(stack, database_url)) for stack in stacks}
            return self.compare_on(targets, candidates)

    def compare_on(
        self, targets: Mapping[Stack, Target], candidates: Sequence[Candidate]
    ) -> dict[str, list[Load]]:
        """Measure candidates that already run.

        :raises BadAnswers:
        """
        hold_to_the_same(candidates, targets)
        for candidate in candidates:
            candidate.prepare()
            targets[candidate.stack].measure(candidate, WARM_UP)
        measured: dict[str, list[Load]] = {candidate.name: [] for candidate in candidates}
        for number in range(self.rounds):
            sys.stderr.write(f"Round {number + 1} of {self.rounds}\n")
            first = number % len(candidates)
            for candidate in [*candidates[first:], *candidates[:first]]:
                candidate.prepare()
                load = targets[candidate.stack].measure(candidate, self.seconds)
                measured[candidate.name].append(load)
        return measured


def fingerprint(data: DataSet) -> str:
    """Name the contents of a kept database: another model or data set makes another database."""
    sources = [*sorted(BASE_DIR.glob("*/migrations/*.py")), Path(__file__).with_name("dataset.py")]
    content = b"".join([source.read_bytes() for source in sources]) + repr(data).encode()
    return f"{data.plans}_{hashlib.sha256(content).hexdigest()[:8]}"


def hold_to_the_same(candidates: Sequence[Candidate], targets: Mapping[Stack, Target]) -> None:
    """:raises BadAnswers: when candidates for the same job return different things."""
    said: dict[str, list[object]] = {}
    for candidate in candidates:
        requests = candidate.requests[:: max(1, len(candidate.requests) // COMPARED)]
        answers = targets[candidate.stack].answers(candidate, requests)
        for status, body in answers:
            if status != candidate.status or any(text.encode() in body for text in candidate.unwanted):
                raise BadAnswers(f"{candidate.name} answers {status}: {body[:1000].decode()}")
        if candidate.values is not None:
            said[candidate.name] = [candidate.values(body) for _, body in answers]
    for (first, expected), (name, values) in pairwise(said.items()):
        for ours, theirs in zip(expected, values, strict=True):
            if ours != theirs:
                raise BadAnswers(f"{first} and {name} say different things:\n{ours}\n{theirs}")


def table(measured: Mapping[str, Sequence[Load]], baseline: str) -> str:
    """Print each candidate's median rate as a ratio to the baseline's, with its spread, in Markdown."""
    base = measured[baseline]
    lines = [
        "| candidate | ratio | of rounds | a second | p50 | p99 |",
        "|---|---|---|---|---|---|",
    ]
    for name, loads in measured.items():
        rate = median(load.rate for load in loads)
        ratios = [load.rate / other.rate for load, other in zip(loads, base, strict=True)]
        lines.append(
            f"| {name} | {rate / median(load.rate for load in base):.2f} "
            f"| {min(ratios):.2f} to {max(ratios):.2f} | {rate:.0f} "
            f"| {median(load.p50 for load in loads):.1f} ms | {median(load.p99 for load in loads):.1f} ms |"
        )
    return "\n".join(lines)
