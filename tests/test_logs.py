"""What leaves the process as a log line names nobody and opens nothing."""

import logging
import sys

import pytest

from config.logs import MaskingFormatter

TOKEN = "OocgJHQ6X4i-lWlw3puDq4jo17HM3-Y6LXagcZRlulw"


def formatted(message: str, *args: object) -> str:
    record = logging.LogRecord("django.server", logging.INFO, __file__, 1, message, args, None)
    return MaskingFormatter("%(levelname)s %(message)s").format(record)


@pytest.mark.parametrize(
    ("line", "masked"),
    [
        (f'"GET /invites/{TOKEN}/ HTTP/1.1" 200', 'INFO "GET /invites/***/ HTTP/1.1" 200'),
        (f"/accounts/login/?next=/invites/{TOKEN}/", "INFO /accounts/login/?next=/invites/***/"),
        (f"/accounts/login/?next=%2Finvites%2F{TOKEN}%2F", "INFO /accounts/login/?next=%2Finvites%2F***%2F"),
        (
            f"GET /graphql/?q=acceptInvite(input%3A%20%7Btoken%3A%20%22{TOKEN}%22%7D) HTTP/1.1",
            "INFO GET /graphql/?*** HTTP/1.1",
        ),
        (
            "/accounts/login/?next=/graphql/%3Fvariables%3Dlena%2540acme.example",
            "INFO /accounts/login/?next=/graphql/%3F***",
        ),
        ("DETAIL:  Key (email)=(lena@acme.example) exists", "INFO DETAIL:  Key (email)=(***@***) exists"),
        ("550 <o'hara+x@mail.acme.example>: unknown", "INFO 550 <o'***@***>: unknown"),
        ("nothing to hide", "INFO nothing to hide"),
    ],
)
def test_tokens_and_addresses_are_masked(line: str, masked: str) -> None:
    assert formatted("%s", line) == masked


def test_a_traceback_is_masked_too() -> None:
    try:
        raise ValueError(f"Failing row contains (57, lena@acme.example, /invites/{TOKEN}/)")
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, __file__, 1, "Failed", (), sys.exc_info())

    line = MaskingFormatter("%(message)s").format(record)

    assert "Failing row contains (57, ***@***, /invites/***/)" in line
    assert "lena" not in line
    assert TOKEN not in line
