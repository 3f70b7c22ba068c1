"""A machine whose clock is wrong gets no requests: it would sell seats that are taken."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import time_machine
from django.db import connection
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from config.clock import clock_offset
from tests.test_healthz import dead_database
from tests.test_metrics import TOKEN, read, samples_of

pytestmark = pytest.mark.django_db

GAUGE = ("family_plans_clock_offset_seconds",)
WRONG = (503, b"clock differs from the database's\n")
REAL = pytest.mark.postgresql


@contextmanager
def clock_ahead(seconds: float) -> Iterator[None]:
    """Move this machine's clock, and let it run on; PostgreSQL's stays."""
    with time_machine.travel(timezone.now() + datetime.timedelta(seconds=seconds), tick=True):
        yield


@REAL
@pytest.mark.parametrize("seconds", [3.5, -3.5, 3 * 86_400, -365 * 86_400])
def test_a_machine_whose_clock_is_wrong_is_not_ready(
    seconds: float, client: Client, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    settings.METRICS_TOKEN = TOKEN

    with clock_ahead(seconds):
        answer = client.get("/readyz")
        metrics = samples_of(read(client))

    assert (answer.status_code, answer.content) == WRONG
    assert metrics[GAUGE] == pytest.approx(seconds, abs=1)
    assert any("ahead of PostgreSQL's" in record.getMessage() for record in caplog.records)
    assert client.get("/readyz").status_code == 200


@REAL
@pytest.mark.parametrize("seconds", [0, 0.5, -0.5])
def test_a_clock_that_is_nearly_right_is_right(seconds: float, client: Client) -> None:
    with clock_ahead(seconds):
        assert client.get("/readyz").status_code == 200


@REAL
def test_the_process_lives_whatever_its_clock_says(client: Client) -> None:
    with clock_ahead(3 * 86_400):
        assert client.get("/healthz").status_code == 200


def answers(monkeypatch: pytest.MonkeyPatch, rounds: Sequence[tuple[float, float, float]]) -> None:
    """Let a PostgreSQL respond: seconds there, seconds back, and how far its clock is behind."""
    now, left = [0.0], list(rounds)
    start = datetime.datetime(2026, 8, 3, 12, tzinfo=datetime.UTC)

    class Cursor:
        def __enter__(self) -> Cursor:
            return self

        def __exit__(self, *_error: object) -> None:
            pass

        def execute(self, sql: str) -> None:
            assert sql == "SELECT clock_timestamp()"
            there, back, behind = left.pop(0)
            self.row = [start + datetime.timedelta(seconds=now[0] + there - behind)]
            now[0] += there + back

        def fetchone(self) -> list[Any]:
            return self.row

    monkeypatch.setattr(connection, "vendor", "postgresql")
    monkeypatch.setattr(connection, "cursor", Cursor)
    monkeypatch.setattr("config.clock.time.monotonic", lambda: now[0])
    monkeypatch.setattr("config.clock.timezone.now", lambda: start + datetime.timedelta(seconds=now[0]))


@pytest.mark.parametrize(
    ("rounds", "offset"),
    [
        # the middle of the round trip counts
        ([(1, 1, 0)] * 3, 0),
        ([(1, 1, 5)] * 3, 5),
        ([(1, 1, -5)] * 3, -5),
        # and the shortest of three: a slow way back, and a slow way there, look like a wrong clock
        ([(0.25, 9.75, 0), (0.25, 0.25, 0), (10, 0.25, 0)], 0),
        ([(0.5, 0.5, 1), (0.25, 0.25, 3), (2, 0, 1)], 3),
    ],
)
def test_the_shortest_of_three_round_trips_tells(
    rounds: list[tuple[float, float, float]], offset: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(monkeypatch, rounds)

    assert clock_offset() == datetime.timedelta(seconds=offset)


@pytest.mark.parametrize(("behind", "status"), [(2, 200), (2.5, 503), (-2, 200), (-2.5, 503)])
def test_two_seconds_are_the_limit(
    behind: float, status: int, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    offset = datetime.timedelta(seconds=behind)
    monkeypatch.setattr("config.views.clock_offset", lambda: offset)

    assert client.get("/readyz").status_code == status


def test_sqlite_has_no_clock_of_its_own_and_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "vendor", "sqlite")

    with dead_database():
        assert clock_offset() is None


def test_without_its_database_the_metric_is_missing_and_the_page_is_not(
    client: Client, settings: Settings
) -> None:
    settings.METRICS_TOKEN = TOKEN

    with dead_database():
        response = read(client)

    assert response.status_code == 200
    assert GAUGE not in samples_of(response)
