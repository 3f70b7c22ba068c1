"""The pace that a body must keep, the lengths that heads announce, and what WSGI gets to see of them."""

import io
import sys

import pytest
from django.test import Client
from pytest_django import Settings

from config.bodies import UNREADABLE, Refusal
from config.body_reader import AT_WORK, RESERVE, Pace, Refused, Room, announced_by
from config.serving import environment_of

SECOND = 10_000  # bytes per second at the minimum pace


@pytest.fixture(autouse=True)
def _defaults(settings: Settings) -> None:
    settings.BODY_BYTES_PER_SECOND = SECOND
    settings.BODY_WINDOW_SECONDS = 10.0
    settings.BODY_SECONDS = 60.0
    settings.BODIES_MAX_BYTES = 256 * 1024 * 1024


# --- Pace ------------------------------------------------------------------------------------------


def test_what_has_sent_too_little_has_ten_seconds() -> None:
    pace = Pace(100.0)

    assert pace.deadline(100.0, 0) == 110
    assert pace.deadline(105.0, 10 * SECOND - 1) == 110
    assert pace.deadline(109.0, 10 * SECOND) > 110


def test_a_body_at_the_least_pace_arrives_until_the_end_of_all_time() -> None:
    pace = Pace(0.0)

    deadlines = [pace.deadline(float(second), second * SECOND) for second in range(1, 60)]

    assert all(deadline >= second + 1 for second, deadline in enumerate(deadlines[:-2], 1))
    assert max(deadlines) == 60


def test_a_body_that_stops_has_ten_seconds_from_the_window_that_was_enough() -> None:
    pace = Pace(0.0)

    # a megabyte in a second, and then a byte now and then
    pace.deadline(1.0, 100 * SECOND)
    dripping = [pace.deadline(1.0 + second, 100 * SECOND + second) for second in range(1, 12)]

    assert max(dripping) <= 12.1


def test_many_small_parts_are_not_remembered_one_by_one() -> None:
    pace = Pace(0.0)

    for number in range(10_000):
        pace.deadline(number / 1000, number)

    assert len(pace.sizes) < 110


# --- Lengths ---------------------------------------------------------------------------------------

CHUNKED = (b"transfer-encoding", b"chunked")


@pytest.mark.parametrize(
    ("headers", "announced"),
    [
        ([], 0),
        ([(b"content-length", b"0")], 0),
        ([(b"content-length", b"17 ")], 17),
        ([(b"content-length", b"9" * 5000)], sys.maxsize),
        ([CHUNKED], None),
        ([(b"transfer-encoding", b" Chunked")], None),
    ],
)
def test_a_head_announces_a_length_or_chunks(
    headers: list[tuple[bytes, bytes]], announced: int | None
) -> None:
    assert announced_by(headers, version="1.1") == announced


@pytest.mark.parametrize(
    ("headers", "version", "refusal"),
    [
        ([(b"content-length", b"5"), CHUNKED], "1.1", UNREADABLE),
        ([CHUNKED, CHUNKED], "1.1", UNREADABLE),
        ([CHUNKED], "1.0", UNREADABLE),
        ([(b"transfer-encoding", b"gzip, chunked")], "1.1", UNREADABLE),
        ([(b"content-length", b"5"), (b"content-length", b"5")], "1.1", UNREADABLE),
        ([(b"content-length", b"+5")], "1.1", UNREADABLE),
        ([(b"content-length", "\u0665".encode())], "1.1", UNREADABLE),
    ],
)
def test_a_head_that_can_be_read_in_two_ways_is_refused(
    headers: list[tuple[bytes, bytes]], version: str, refusal: Refusal
) -> None:
    with pytest.raises(Refused) as refused:
        announced_by(headers, version=version)

    assert refused.value.refusal is refusal


# --- Room ------------------------------------------------------------------------------------------


def test_large_bodies_of_all_processes_leave_room_to_small_ones(settings: Settings) -> None:
    numbers = [0] * (2 * Room.NUMBERS)
    one, other = Room(numbers, 0), Room(numbers, 1)
    one.add(Room.LARGE, settings.BODIES_MAX_BYTES - RESERVE)

    assert one.fits(Room.LARGE)
    other.add(Room.LARGE, 1)
    assert not one.fits(Room.LARGE)
    assert not other.fits(Room.LARGE)
    assert other.fits(Room.SMALL)
    other.add(Room.SMALL, RESERVE)
    assert not one.fits(Room.SMALL)


def test_so_many_large_bodies_are_worked_on_at_a_time() -> None:
    numbers = [0] * (2 * Room.NUMBERS)
    rooms = [Room(numbers, 0), Room(numbers, 1)]

    started = [rooms[number % 2].start_work() for number in range(AT_WORK + 2)]
    assert started == [True] * AT_WORK + [False] * 2

    rooms[1].end_work()
    assert rooms[0].start_work()


# --- What WSGI sees --------------------------------------------------------------------------------


def test_headers_become_an_environment_as_they_were_sent() -> None:
    scope = {
        "method": "POST",
        "query_string": b"a=%20b",
        "http_version": "1.1",
        "scheme": "http",
        "server": ("127.0.0.1", 8000),
        "client": ("203.0.113.9", 1234),
        "headers": [
            (b"host", b"plans.example.com"),
            (b"content-type", b"application/json"),
            CHUNKED,
            (b"cookie", b"a=1"),
            (b"cookie", b"b=2"),
            (b"x-forwarded-for", b"198.51.100.7"),
            (b"x_forwarded_for", b"192.0.2.1"),
            (b"content_length", b"99"),
            (b"x-zammad-trigger", "Kündigung".encode()),
        ],
    }

    environ = environment_of(scope, "/graphql/", io.BytesIO(b"{}"), 2)

    assert environ["CONTENT_LENGTH"] == "2"
    assert environ["CONTENT_TYPE"] == "application/json"
    assert environ["HTTP_COOKIE"] == "a=1; b=2"
    assert environ["HTTP_X_FORWARDED_FOR"] == "198.51.100.7"
    assert environ["HTTP_X_ZAMMAD_TRIGGER"].encode("latin-1").decode() == "Kündigung"
    assert environ["REMOTE_ADDR"] == "203.0.113.9"
    assert "HTTP_TRANSFER_ENCODING" not in environ


# --- Under another server, which has read nothing --------------------------------------------------


@pytest.mark.parametrize("path", ["/graphql/", "/graphql", "/accounts/login/", "/healthz", "/nothing-here/"])
def test_what_announces_too_much_is_refused_at_every_path(client: Client, path: str) -> None:
    response = client.post(path, b"{}", content_type="application/json", CONTENT_LENGTH=str(2**20 + 1))

    assert response.status_code == 413
    assert b"The request is too large." in response.content


def test_a_graphql_client_is_refused_in_the_type_that_it_accepts(client: Client) -> None:
    response = client.post(
        "/graphql/",
        b"{}",
        content_type="application/json",
        CONTENT_LENGTH="102401",
        HTTP_ACCEPT="application/graphql-response+json",
    )

    assert (response.status_code, response["Content-Type"]) == (
        413,
        "application/graphql-response+json; charset=utf-8",
    )
