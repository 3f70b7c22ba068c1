"""The limits of request bodies, and the refusals that the server and Django share."""

import sys
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from django.conf import settings
from django.utils.translation import gettext_noop

WEBHOOK: Final = "/webhooks/zammad/"
GRAPHQL: Final = frozenset({"/graphql/", "/graphql"})
API: Final = "/_allauth/"  # all its responses are JSON
REFUSAL: Final = "family_plans.refusal"  # the key in the WSGI environment
RETRY_WHEN_BUSY: Final = 5  # seconds


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is refused: a message for people, a line for Zammad, and GraphQL's code."""

    status: HTTPStatus
    message: str
    line: str
    code: str = "INVALID_INPUT"


TOO_LARGE = Refusal(
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    gettext_noop("The request is too large."),
    "body too large",
)
TOO_SLOW = Refusal(
    HTTPStatus.REQUEST_TIMEOUT,
    gettext_noop("The request took too long to arrive."),
    "body too slow",
)
NO_ROOM = Refusal(
    HTTPStatus.SERVICE_UNAVAILABLE,
    gettext_noop("The service is busy. Try again soon."),
    "too many bodies at once, try again",
    "SERVICE_UNAVAILABLE",
)
PASSWORDS_BUSY = Refusal(
    HTTPStatus.SERVICE_UNAVAILABLE,
    gettext_noop("Too many people are signing in at the moment. Try again soon."),
    "too many requests at once, try again",
    "SERVICE_UNAVAILABLE",
)
UNREADABLE = Refusal(
    HTTPStatus.BAD_REQUEST,
    gettext_noop("The length of the request is invalid."),
    "length of the body unreadable",
)


def largest_body(path: str) -> int:
    if path == WEBHOOK:
        return settings.ZAMMAD_WEBHOOK_MAX_BYTES
    if path in GRAPHQL:
        return settings.GRAPHQL_MAX_BYTES
    return settings.PAGE_MAX_BYTES


def announced_length(value: str) -> int | None:
    """Parse a Content-Length; None if it is invalid."""
    if not (value.isascii() and value.isdigit()):
        return None
    return int(value) if len(value) <= 15 else sys.maxsize  # Python refuses to parse thousands of digits
