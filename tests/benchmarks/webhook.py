"""Webhooks: deliveries about new, newer and stale customers, compared with an empty view and bare SQL."""

from __future__ import annotations

import datetime
import hashlib
import hmac
import json
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import count
from multiprocessing import get_context

import psycopg

from tests.benchmarks.bench import WARM_UP, WEBHOOK_SECRET, Bench, table
from tests.benchmarks.dataset import DataSet, email_of
from tests.benchmarks.load import BadAnswers, Load, Request
from tests.benchmarks.servers import Candidate
from tests.server import BASE_DIR

SIZES = {"4 KB": 4096, "40 KB": 40960}
SAMPLE = json.loads((BASE_DIR / "tests" / "samples" / "ticket_create.json").read_text())
RATE = 5000  # per second: more than a server handles, so that no delivery arrives twice
FIRST_NEW = 1_000_000_000  # Zammad IDs of unknown customers
LONG_AGO = datetime.timedelta(days=365)  # the data set's are younger
# The least that a delivery must write: its customer if newer, and its receipt.
BARE = """
    WITH newer AS (
        INSERT INTO zammad_zammaduser (zammad_id, email, login, firstname, lastname, phone, mobile,
                                       organization, active, vip, updated_at, synced_at, auto_link)
        VALUES (%(id)s, %(email)s, %(email)s, 'Lena', 'Vogt', '', '', '', true, false,
                %(updated_at)s, now(), true)
        ON CONFLICT (zammad_id) DO UPDATE SET email = excluded.email, login = excluded.login,
            firstname = excluded.firstname, lastname = excluded.lastname, phone = excluded.phone,
            mobile = excluded.mobile, organization = excluded.organization, active = excluded.active,
            vip = excluded.vip, updated_at = excluded.updated_at, synced_at = excluded.synced_at
        WHERE excluded.updated_at > zammad_zammaduser.updated_at
        RETURNING id
    ), customer AS (
        SELECT id, 'APPLIED' AS outcome FROM newer
        UNION ALL
        SELECT id, 'STALE' FROM zammad_zammaduser
        WHERE zammad_id = %(id)s AND NOT EXISTS (SELECT FROM newer)
    )
    INSERT INTO zammad_webhookdelivery (delivery_id, trigger, body_digest, received_at, attempts,
                                        outcome, detail, zammad_user_id)
    SELECT %(delivery_id)s, 'ticket created', repeat('0', 64), now(), 1, outcome, '', id FROM customer
    ON CONFLICT (delivery_id) DO UPDATE SET attempts = zammad_webhookdelivery.attempts + 1"""


def run(bench: Bench) -> str:
    data = DataSet(plans=bench.plans)
    many = round(RATE * max(bench.seconds, WARM_UP))
    lines = [
        f"## The webhook, {bench.plans} plans",
        "The empty view gets the same deliveries, and reads them.",
    ]
    with bench.database(data) as database_url:
        start_anew = partial(forget, database_url)
        for size, length in SIZES.items():
            deliveries = list(signed(data, many, length))
            candidates = [
                Candidate(name=f"an empty view, {size}", requests=at("/rivals/empty/", deliveries)),
                Candidate(
                    name=f"this service, {size}",
                    requests=at("/webhooks/zammad/", deliveries),
                    unwanted=["IGNORED"],
                    prepare=start_anew,
                ),
            ]
            measured = bench.compare(candidates, database_url)
            check_mix(database_url)
            measured["bare SQL"] = bare(bench, data, database_url)
            lines.append(table(measured, candidates[0].name))
        start_anew()
    return "\n\n".join(lines)


def customers(
    data: DataSet, *, first: int = 0, step: int = 1
) -> Iterator[tuple[int, str, datetime.datetime]]:
    """Send in turn a new person, a newer version of a person, and a stale one."""
    now = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1)
    for number in count(first, step):
        person = number // 3 % (data.plans * data.members) + 1
        match number % 3:
            case 0:
                yield FIRST_NEW + number, f"new{number}@example.com", now
            case 1:
                # Of two for the same person, the later one is newer.
                yield person + 1000, email_of(person), now + number * datetime.timedelta(milliseconds=1)
            case _:
                yield person + 1000, email_of(person), now - LONG_AGO


def signed(data: DataSet, many: int, length: int) -> Iterator[tuple[str, str, str]]:
    """Return deliveries of Zammad's default payload, this many bytes each: body, its ending, signature."""
    ending = "x" * (length - len(json.dumps(SAMPLE)))
    for (zammad_id, email, updated_at), _ in zip(customers(data), range(many), strict=False):
        told = {"id": zammad_id, "email": email, "login": email, "updated_at": updated_at.isoformat()}
        ticket = {**SAMPLE["ticket"], "customer": {**SAMPLE["ticket"]["customer"], **told}}
        # The text of the article comes last.
        article = {**SAMPLE["article"], "body": ""}
        article["body"] = article.pop("body")
        body = json.dumps({"ticket": ticket, "article": article}).removesuffix('"}}')
        signature = hmac.new(WEBHOOK_SECRET.encode(), f'{body}{ending}"}}}}'.encode(), hashlib.sha1)
        yield body, f'{ending}"}}}}', signature.hexdigest()


def at(path: str, deliveries: list[tuple[str, str, str]]) -> list[Request]:
    return [
        Request(
            path=path,
            body=body,
            ending=ending,
            headers={
                "Content-Type": "application/json",
                "X-Hub-Signature": f"sha1={signature}",
                "X-Zammad-Delivery": str(uuid.UUID(int=number)),
                "X-Zammad-Trigger": "ticket created",
            },
        )
        for number, (body, ending, signature) in enumerate(deliveries)
    ]


def forget(database_url: str) -> None:
    """Make all deliveries new, newer and stale again."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        with connection.transaction():
            # A server may still handle requests that nobody waits for any more.
            connection.execute("LOCK TABLE zammad_zammaduser, zammad_webhookdelivery IN EXCLUSIVE MODE")
            connection.execute("TRUNCATE zammad_webhookdelivery, zammad_linkchange")
            connection.execute("DELETE FROM zammad_zammaduser WHERE zammad_id >= %s", [FIRST_NEW])
            connection.execute("UPDATE zammad_zammaduser SET updated_at = now() - interval '100 days'")
        connection.execute("VACUUM (ANALYZE) zammad_zammaduser")


def check_mix(database_url: str) -> None:
    """:raises BadAnswers: when deliveries ran out and were repeated, which is another job."""
    with psycopg.connect(database_url) as connection:
        row = connection.execute(
            """SELECT avg(attempts), avg((outcome = 'APPLIED')::int), avg((outcome = 'STALE')::int)
               FROM zammad_webhookdelivery"""
        ).fetchone()
    assert row is not None
    attempts, applied, stale = row
    if attempts > 1.1 or not (0.6 < applied < 0.7 and 0.3 < stale < 0.4):
        raise BadAnswers(f"{applied:.2f} of the deliveries were applied, each came {attempts:.2f} times.")


def bare(bench: Bench, data: DataSet, database_url: str) -> list[Load]:
    """Measure plain loops over one statement, in as many processes as the server has."""
    loads = []
    with ProcessPoolExecutor(bench.processes, mp_context=get_context("spawn")) as pool:
        for _ in range(bench.rounds):
            forget(database_url)
            loop = partial(executions, database_url, data, bench.seconds, bench.processes)
            times = list(pool.map(loop, range(bench.processes)))
            rate = sum(map(len, times)) / bench.seconds
            every = Load.of_seconds([seconds for each in times for seconds in each])
            loads.append(Load(rate=rate, p50=every.p50, p99=every.p99))
    return loads


def executions(database_url: str, data: DataSet, seconds: float, processes: int, place: int) -> list[float]:
    """Execute the statement over and over, and return how long each took."""
    times: list[float] = []
    with psycopg.connect(database_url, autocommit=True) as connection:
        ends_at = time.monotonic() + seconds
        for zammad_id, email, updated_at in customers(data, first=place, step=processes):
            values = {"id": zammad_id, "email": email, "updated_at": updated_at, "delivery_id": uuid.uuid4()}
            started = time.monotonic()
            connection.execute(BARE, values)
            times.append(time.monotonic() - started)
            if time.monotonic() > ends_at:
                return times
    raise AssertionError("There are customers without end.")
