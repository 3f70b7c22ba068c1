"""Where candidates run: on the production server with its workers, or in one process without a server."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.load import BadAnswers, Load, Request, ask, run_wrk, write_for_wrk
from tests.server import BASE_DIR, Server


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """A settings module, and a virtual environment for candidates whose packages conflict with ours."""

    name: str
    settings: str
    lock: Path | None = None
    program: tuple[str, ...] = ("manage.py", "serve", "--prepared")
    environment: tuple[tuple[str, str], ...] = ()

    @property
    def python(self) -> str:
        return str(environment_of(self.lock) / "bin" / "python") if self.lock else sys.executable

    def install(self) -> None:
        """Make the virtual environment from the locked file, unless this very file made it."""
        if self.lock is None:
            return
        venv = environment_of(self.lock)
        stamp = venv / "installed"
        digest = hashlib.sha256(self.lock.read_bytes()).hexdigest()
        if not stamp.exists() or stamp.read_text() != digest:
            installer = [sys.executable, "requirements/install.py", str(venv), str(self.lock)]
            subprocess.run(installer, cwd=BASE_DIR, check=True, stdout=sys.stderr)
            stamp.write_text(digest)


def environment_of(lock: Path) -> Path:
    return BASE_DIR / ".venv" / f"bench-{lock.stem}"


# The service itself, and the rivals that run on its packages.
SERVICE = Stack(name="service", settings="tests.benchmarks.rivals.settings")


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One way to do a job. Requests at the same position in two candidates ask for the same."""

    name: str
    requests: Sequence[Request]
    stack: Stack = SERVICE
    # The contents of a response, to compare candidates with; None for another job.
    values: Callable[[bytes], Any] | None = None
    status: int = 200
    unwanted: Sequence[str] = ()  # what no response may have in its body
    prepare: Callable[[], None] = lambda: None  # before each measurement


class OverHTTP:
    """A production server with its workers, under wrk."""

    def __init__(self, server: Server, *, connections: int) -> None:
        self.server = server
        self.connections = connections

    def start(self) -> None:
        self.server.start()

    def stop(self) -> None:
        self.server.kill()

    def answers(self, candidate: Candidate, requests: Sequence[Request]) -> list[tuple[int, bytes]]:
        return [ask(request, self.server.port) for request in requests]

    def measure(self, candidate: Candidate, seconds: float) -> Load:
        path = candidate.requests[0].path.replace("/", " ")
        file = self.server.directory / f"{self.server.port} {candidate.name}{path}.requests"
        if not file.exists():
            write_for_wrk(candidate.requests, self.server.port, file)
        return run_wrk(
            self.server.port,
            file,
            connections=self.connections,
            seconds=seconds,
            status=candidate.status,
            unwanted=candidate.unwanted,
        )


class InProcess:
    """The application in one process without a server: less noise, and only its CPU time."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        with self.server.log.open("ab") as log:
            self.process = subprocess.Popen(
                [self.server.python, "-m", "tests.benchmarks.in_process"],
                cwd=BASE_DIR,
                env=self.server.environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()

    def answers(self, candidate: Candidate, requests: Sequence[Request]) -> list[tuple[int, bytes]]:
        return [(status, body.encode()) for status, body in self.call(candidate, requests, seconds=None)]

    def measure(self, candidate: Candidate, seconds: float) -> Load:
        return Load.of_seconds(self.call(candidate, candidate.requests, seconds=seconds))

    def call(self, candidate: Candidate, requests: Sequence[Request], *, seconds: float | None) -> Any:
        """Run requests: each once for its response, or over and over for the CPU time of each."""
        assert self.process is not None
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        asked = {
            "requests": [asdict(request) for request in requests],
            "seconds": seconds,
            "status": candidate.status,
            "unwanted": list(candidate.unwanted),
        }
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise BadAnswers(self.server.log.read_text())
        return json.loads(line)
