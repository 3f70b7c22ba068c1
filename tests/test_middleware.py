"""Each request has an ID, which its log lines and its response carry, and one line that sums it up."""

import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from structlog.contextvars import get_contextvars

from tests.api import URL, post
from tests.factories import InviteFactory

pytestmark = pytest.mark.django_db

A_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
TOKEN = "OocgJHQ6X4i-lWlw3puDq4jo17HM3-Y6LXagcZRlulw"


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[list[Any]]:
    """Collect the log lines of requests, each with the ID that was bound when it was written."""
    found: list[Any] = []

    def keep(record: logging.LogRecord) -> bool:
        record.bound = get_contextvars().get("request_id")
        found.append(record)
        return True

    logger = logging.getLogger("config.middleware")
    logger.addFilter(keep)
    caplog.set_level(logging.DEBUG, "config.middleware")
    yield found
    logger.removeFilter(keep)


def test_an_answer_carries_the_id_of_its_lines(client: Client, lines: list[Any]) -> None:
    first, second = client.get("/accounts/login/"), client.get("/nothing/")

    ids = [first.headers["X-Request-ID"], second.headers["X-Request-ID"]]
    assert all(A_UUID.fullmatch(each) for each in ids)
    assert ids[0] != ids[1]
    assert [line.bound for line in lines] == ids
    assert "request_id" not in get_contextvars()


@pytest.mark.parametrize("given", ["0123456789abcdef0123456789abcdef", "web-1-0042", "A" * 64])
def test_an_id_that_a_proxy_gave_is_kept(given: str, client: Client, lines: list[Any]) -> None:
    response = client.get("/accounts/login/", headers={"X-Request-ID": given})

    assert response.headers["X-Request-ID"] == given
    assert lines[0].bound == given


@pytest.mark.parametrize(
    "given",
    [
        "",
        "short",
        "A" * 65,
        "lena@acme.example",
        'x"}, {"event": "planted',
        "two words",
        "1234567\xb2",
        f"/invites/{TOKEN}/",
    ],
)
def test_what_is_no_id_is_not_taken_for_one(given: str, client: Client, lines: list[Any]) -> None:
    response = client.get("/accounts/login/", headers={"X-Request-ID": given})

    assert A_UUID.fullmatch(response.headers["X-Request-ID"])
    assert lines[0].bound == response.headers["X-Request-ID"]


def test_a_line_sums_a_request_up_and_leaves_its_query_out(client: Client, lines: list[Any]) -> None:
    client.get("/accounts/login/?next=/secret/")

    [line] = lines
    assert line.getMessage() == "Request answered"
    assert line.levelno == logging.INFO
    assert (line.method, line.path, line.view, line.status) == (
        "GET",
        "/accounts/login/",
        "account_login",
        200,
    )
    assert 0 < line.milliseconds < 60_000


def test_a_probe_that_finds_all_well_is_no_news(client: Client, lines: list[Any]) -> None:
    client.get("/healthz")
    client.get("/metrics")

    assert [(line.path, line.levelno) for line in lines] == [
        ("/healthz", logging.DEBUG),
        ("/metrics", logging.INFO),
    ]


def test_an_error_is_logged_once_with_its_traceback_and_under_the_id_that_is_answered(
    carol: User,
    lines: list[Any],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # given a page that fails
    def fail(**_: object) -> None:
        assert get_contextvars()["request_id"] == "given-by-a-proxy"
        raise RuntimeError("a bug")

    monkeypatch.setattr("plans.views.preview_invite", fail)
    InviteFactory(token=TOKEN)
    client = Client(raise_request_exception=False)
    client.force_login(carol)

    # when it is opened
    response = client.get(f"/invites/{TOKEN}/", headers={"X-Request-ID": "given-by-a-proxy"})

    # then a reader of the response finds the log lines
    assert response.status_code == 500
    assert response.headers["X-Request-ID"] == "given-by-a-proxy"
    [error] = [record for record in caplog.records if record.name == "django.request"]
    assert error.exc_info is not None
    assert isinstance(error.exc_info[1], RuntimeError)
    assert [(line.status, line.levelno) for line in lines] == [(500, logging.WARNING)]


def test_a_refusal_stands_in_one_line(
    client: Client, lines: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    client.get("/nothing/")
    client.post("/webhooks/zammad/", "{}", content_type="application/json")

    assert [(line.status, line.view) for line in lines] == [(404, ""), (403, "zammad-webhook")]
    assert [record for record in caplog.records if record.name == "django.request"] == []


def test_graphql_answers_the_id_of_the_request(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("graphql_api.operations.may_explore", fail)

    inside = post(Client(), "{ __typename }", **{"X-Request-ID": "operation-42"})
    monkeypatch.setattr("graphql_api.views.identify", fail)
    outside = Client().post(
        URL, "{}", content_type="application/json", headers={"X-Request-ID": "transport-42"}
    )

    assert inside.json()["errors"][0]["extensions"]["requestId"] == "operation-42"
    assert outside.json()["errors"][0]["extensions"]["requestId"] == "transport-42"
    assert [inside.headers["X-Request-ID"], outside.headers["X-Request-ID"]] == [
        "operation-42",
        "transport-42",
    ]
