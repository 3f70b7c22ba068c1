"""A log line names nobody, opens nothing, and says to which request it belongs."""

import json
import logging
import sys
import time
from typing import Any

import pytest
from django.conf import settings
from django.test import RequestFactory
from structlog.contextvars import bound_contextvars

from config.logs import LineFormatter

TOKEN = "OocgJHQ6X4i-lWlw3puDq4jo17HM3-Y6LXagcZRlulw"
BOTH = pytest.mark.parametrize("as_json", [True, False], ids=["json", "readable"])


def record_of(message: str, *args: object, **more: Any) -> logging.LogRecord:
    record = logging.LogRecord("plans.mail", logging.WARNING, __file__, 1, message, args, None)
    record.__dict__.update(more)
    return record


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """Write a record as production does, and read it as a log collector would."""
    line = LineFormatter(as_json=True).format(record)
    assert "\n" not in line
    fields: dict[str, Any] = json.loads(line)
    return fields


@pytest.mark.parametrize(
    ("line", "masked"),
    [
        (f'"GET /invites/{TOKEN}/ HTTP/1.1" 200', '"GET /invites/***/ HTTP/1.1" 200'),
        (f"/accounts/login/?next=/invites/{TOKEN}/", "/accounts/login/?next=/invites/***/"),
        (f"/accounts/login/?next=%2Finvites%2F{TOKEN}%2F", "/accounts/login/?next=%2Finvites%2F***%2F"),
        (
            f"GET /graphql/?q=acceptInvite(input%3A%20%7Btoken%3A%20%22{TOKEN}%22%7D) HTTP/1.1",
            "GET /graphql/?*** HTTP/1.1",
        ),
        (
            "/accounts/login/?next=/graphql/%3Fvariables%3Dlena%2540acme.example",
            "/accounts/login/?next=/graphql/%3F***",
        ),
        ("DETAIL:  Key (email)=(lena@acme.example) exists", "DETAIL:  Key (email)=(***@***) exists"),
        ("550 <o'hara+x@mail.acme.example>: unknown", "550 <o'***@***>: unknown"),
        ('"lena@acme.example"\nand more', '"***@***"\nand more'),
        ("nothing to hide", "nothing to hide"),
    ],
)
def test_tokens_and_addresses_are_masked(line: str, masked: str) -> None:
    assert fields_of(record_of("%s", line))["event"] == masked
    assert masked in LineFormatter(as_json=False).format(record_of("%s", line))


def test_a_long_line_is_masked_in_no_time() -> None:
    started = time.perf_counter()

    masked = fields_of(record_of("%s", "a" * 200_000 + "=lena@acme.example"))["event"]

    assert masked == "a" * 200_000 + "=***@***"
    assert time.perf_counter() - started < 5  # a minute or more if each letter could be a beginning


@BOTH
def test_a_traceback_is_masked_too(as_json: bool) -> None:
    try:
        raise ValueError(f"Failing row contains (57, lena@acme.example, /invites/{TOKEN}/)")
    except ValueError:
        record = record_of("Failed")
        record.exc_info = sys.exc_info()
        record.exc_text = logging.Formatter().formatException(record.exc_info)  # of another handler

    line = LineFormatter(as_json=as_json).format(record)

    assert "Failing row contains (57, ***@***, /invites/***/)" in line
    assert line.count("Traceback") == 1
    assert "lena" not in line
    assert TOKEN not in line


@BOTH
def test_whatever_stands_in_a_field_is_masked(as_json: bool) -> None:
    record = record_of(
        "Failed",
        told={"to": ["lena@acme.example"], "lena@acme.example": 1},
        page=RequestFactory().get(f"/invites/{TOKEN}/"),
        error=OSError("lena@acme.example"),
        pair=(f"/invites/{TOKEN}/", {"lena@acme.example"}),
        raw=b"lena@acme.example",
        stack_info=f"Stack of /invites/{TOKEN}/",
    )

    with bound_contextvars(asked_by="lena@acme.example"):
        line = LineFormatter(as_json=as_json).format(record)

    assert line.count("***@***") == 6
    assert line.count("/invites/***/") == 3
    assert "lena" not in line
    assert TOKEN not in line


def test_a_line_of_production_is_one_object_with_its_fields() -> None:
    with bound_contextvars(request_id="d2f1c0de", delivery_id=None):
        fields = fields_of(record_of("The mail of invite %s failed", 7, outcome="FAILED", request=object()))

    assert fields.pop("timestamp").endswith("Z")
    assert fields == {
        "event": "The mail of invite 7 failed",
        "level": "warning",
        "logger": "plans.mail",
        "request_id": "d2f1c0de",
        "delivery_id": None,
        "outcome": "FAILED",
    }


def test_a_line_cannot_be_planted_by_what_it_quotes() -> None:
    fields = fields_of(record_of("Not found: %s", '/x\n{"event": "planted"}'))

    assert fields["event"] == 'Not found: /x\n{"event": "planted"}'


def test_a_line_of_development_is_read_by_people() -> None:
    line = LineFormatter(as_json=False).format(record_of("The mail of invite %s failed", 7, outcome="FAILED"))

    assert line.endswith("[warning  ] The mail of invite 7 failed [plans.mail] outcome=FAILED")


def test_no_logger_has_a_handler_that_escapes_the_mask() -> None:
    logging_settings: dict[str, Any] = settings.LOGGING

    assert list(logging_settings["handlers"]) == ["stderr"]
    assert logging_settings["formatters"]["line"]["()"] == "config.logs.LineFormatter"
    assert [name for name, logger in logging_settings["loggers"].items() if logger.get("handlers")] == []
