"""Families over HTTP: an owner invites, a guest accepts, and the owner detaches the guest again."""

from __future__ import annotations

import base64
import http.client
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import quantiles
from typing import Any

import psycopg
from constance.codecs import dumps

from tests.benchmarks.dataset import DataSet, session_token
from tests.benchmarks.load import BadAnswers, Load, Request
from tests.server import BASE_DIR, free_port

MUTATION = """mutation ($input: %sInput!) { answer: %s(input: $input) {
  ... on %s ... on OperationInfo { messages { code } } } }"""
ANSWERS = {
    "createInvite": "CreatedInvite { token url invite { id status expiresAt } }",
    "acceptInvite": "AcceptedInvite { membership { id role } plan { id name seatsTaken } redirectUrl }",
    "detachMember": "DetachedMember { plan { id seatsTaken } invite { id status } }",
}

Ask = Callable[[str, Request], bytes]


class Refused(BadAnswers):
    """A mutation returned the code of a refusal."""


@dataclass(frozen=True, slots=True)
class Answered:
    """A request, its time, and how many seconds the response took."""

    kind: str
    at: float
    seconds: float


@dataclass
class Client:
    """A connection that stays open, and the responses on it."""

    port: int
    answered: list[Answered] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def ask(self, kind: str, request: Request) -> bytes:
        """:raises BadAnswers:"""
        started = time.monotonic()
        self.connection.request(request.method, request.path, request.whole_body, dict(request.headers))
        response = self.connection.getresponse()
        body = response.read()
        self.answered.append(Answered(kind, started, time.monotonic() - started))
        if response.status != 200 or b'"errors"' in body:
            raise BadAnswers(f"{kind} answers {response.status}: {body[:1000].decode()}")
        return body


@dataclass(frozen=True, slots=True)
class Family:
    """One plan of a data set, with its owner and a guest who are signed in."""

    plan: int
    owner: int
    guest: int

    def day(self, ask: Ask) -> Iterator[None]:
        """Run one step after the other, and leave everything as it was."""
        invited = mutate(ask, self.owner, "createInvite", planId=node_id("FamilyPlan", self.plan))
        yield
        joined = mutate(ask, self.guest, "acceptInvite", token=invited["token"])
        yield
        mutate(ask, self.owner, "detachMember", membershipId=joined["membership"]["id"])
        yield


def families(data: DataSet) -> list[Family]:
    return [
        Family(plan, data.owner(plan), data.guest(number))
        for number, plan in enumerate(data.owners_signed_in, start=1)
    ]


def graphql(person: int, query: str, **variables: object) -> Request:
    return Request(
        path="/graphql/",
        body=json.dumps({"query": query, "variables": variables}),
        headers={"Content-Type": "application/json", "X-Session-Token": session_token(person)},
    )


def mutate(ask: Ask, person: int, name: str, /, **values: object) -> dict[str, Any]:
    """:raises Refused:"""
    query = MUTATION % (name[0].upper() + name[1:], name, ANSWERS[name])
    answer: dict[str, Any] = json.loads(ask(name, graphql(person, query, input=values)))["data"]["answer"]
    if "messages" in answer:
        raise Refused(f"{name} is refused: {answer['messages'][0]['code']}")
    return answer


def node_id(kind: str, key: int) -> str:
    return base64.b64encode(f"{kind}:{key}".encode()).decode()


# --- Setup ----------------------------------------------------------------------------------------


def let_invite_often(database_url: str) -> None:
    """Let a plan create as many invites a day as the setting allows."""
    with psycopg.connect(database_url) as connection:
        connection.execute(
            """INSERT INTO constance_constance (key, value) VALUES ('INVITES_PER_DAY', %s)
               ON CONFLICT (key) DO UPDATE SET value = excluded.value""",
            [dumps(10_000)],
        )


@contextmanager
def zammad() -> Iterator[str]:
    """Yield the address of a sandbox in a process of its own, which takes no time from the measurement."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "manage.py", "zammad_sandbox", f"--port={port}"],
        cwd=BASE_DIR,
        env={"ENV_FILE": "", "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()  # it says that it listens
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.communicate()


# --- Load -----------------------------------------------------------------------------------------


def at_once(
    port: int, jobs: Sequence[Callable[[Client, threading.Event], None]], seconds: float
) -> list[Answered]:
    """Give each job a connection, stop all of them after some seconds, and return the responses."""
    clients = [Client(port) for _ in jobs]
    over = threading.Event()
    with ThreadPoolExecutor(len(jobs)) as pool:
        running = [pool.submit(job, client, over) for job, client in zip(jobs, clients, strict=True)]
        timer = threading.Timer(seconds, over.set)
        timer.start()
        try:
            for each in running:
                each.result()
        finally:
            timer.cancel()
            over.set()  # one has failed
    return [answered for client in clients for answered in client.answered]


def days_of(own: Sequence[Family]) -> Callable[[Client, threading.Event], None]:
    """Return a job: a day of each of these families, over and over; no family is left halfway."""

    def live(client: Client, over: threading.Event) -> None:
        while True:
            for family in own:
                for _ in family.day(client.ask):
                    pass
                if over.is_set():
                    return

    return live


def load_of(answered: Sequence[Answered], seconds: float) -> Load:
    percentiles = quantiles([each.seconds for each in answered], n=100)
    return Load(rate=len(answered) / seconds, p50=percentiles[49] * 1e3, p99=percentiles[98] * 1e3)
