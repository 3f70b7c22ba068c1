"""Load: prepared requests, sent by wrk or run in process, and the results."""

from __future__ import annotations

import http.client
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, quantiles

SCRIPT = Path(__file__).with_name("requests.lua")
CONNECTION_THREADS = 2  # of wrk


class BadAnswers(Exception):
    """A run got unexpected responses, so its figures mean nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request of a candidate, wherever its server listens."""

    path: str
    body: str = ""
    ending: str = ""  # of the body; kept once, because it is long and the same in all requests
    headers: Mapping[str, str] = field(default_factory=dict)
    method: str = "POST"

    @property
    def whole_body(self) -> bytes:
        return self.body.encode() + self.ending.encode()

    def over_the_wire(self, port: int) -> bytes:
        """Return everything but the ending."""
        lines = [
            f"{self.method} {self.path} HTTP/1.1",
            f"Host: 127.0.0.1:{port}",
            f"Content-Length: {len(self.whole_body)}",
            *(f"{name}: {value}" for name, value in self.headers.items()),
        ]
        return "\r\n".join([*lines, "", ""]).encode() + self.body.encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What one round measured: requests per second (of CPU time, in process), and milliseconds each."""

    rate: float
    p50: float
    p99: float

    @classmethod
    def of_seconds(cls, seconds: Sequence[float]) -> Load:
        percentiles = quantiles(seconds, n=100)
        return cls(rate=1 / mean(seconds), p50=percentiles[49] * 1e3, p99=percentiles[98] * 1e3)


def ask(request: Request, port: int) -> tuple[int, bytes]:
    """Send one request, and return the status and body of the response."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(request.method, request.path, request.whole_body, dict(request.headers))
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def write_for_wrk(requests: Sequence[Request], port: int, file: Path) -> None:
    [ending] = {request.ending for request in requests}
    with file.open("wb") as stream:
        for raw in [ending.encode(), *(request.over_the_wire(port) for request in requests)]:
            stream.write(b"%d\n%s" % (len(raw), raw))


def run_wrk(
    port: int,
    file: Path,
    *,
    connections: int,
    seconds: float,
    status: int = 200,
    unwanted: Sequence[str] = (),
) -> Load:
    """Send a file's requests over and over, one after the other on each connection.

    :raises BadAnswers:
    """
    options = [f"-t{CONNECTION_THREADS}", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout=30s"]
    run = subprocess.run(
        [
            "wrk",
            *options,
            "-s",
            str(SCRIPT),
            f"http://127.0.0.1:{port}",
            "--",
            str(file),
            str(CONNECTION_THREADS),
            str(status),
            *unwanted,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if run.returncode:
        raise BadAnswers(run.stdout + run.stderr)
    sent, duration, bad, errors, p50, p99, _ = map(float, run.stdout.splitlines()[-1].split())
    if bad or errors or not sent:
        raise BadAnswers(
            f"{bad:.0f} of {sent:.0f} answers were bad, {errors:.0f} did not come:\n{run.stdout}"
        )
    return Load(rate=sent / duration, p50=p50, p99=p99)
