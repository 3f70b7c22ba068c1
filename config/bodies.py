"""What the server takes of a request, decided once: how large, how slow, and how a refusal reads."""

import sys
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from django.conf import settings
from django.utils.translation import gettext_noop

WEBHOOK: Final = "/webhooks/zammad/"
GRAPHQL: Final = frozenset({"/graphql/", "/graphql"})
API: Final = "/_allauth/"  # below it, everything is answered in JSON
REFUSAL: Final = "family_plans.refusal"  # where in the environment the server leaves what it decided
RETRY_WHEN_BUSY: Final = 5  # seconds: what others hold is read, hashed or given up soon


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is not taken: to people, to Zammad, and as a code of GraphQL."""

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
    gettext_noop("Too many people are signing in at this moment. Try again soon."),
    "too many requests at once, try again",
    "SERVICE_UNAVAILABLE",
)
UNREADABLE = Refusal(
    HTTPStatus.BAD_REQUEST,
    gettext_noop("The length of the request cannot be read."),
    "length of the body unreadable",
)


def largest_body(path: str) -> int:
    """Return how many bytes a request to a path may have."""
    if path == WEBHOOK:
        return settings.ZAMMAD_WEBHOOK_MAX_BYTES
    if path in GRAPHQL:
        return settings.GRAPHQL_MAX_BYTES
    return settings.PAGE_MAX_BYTES


def announced_length(value: str) -> int | None:
    """Read a Content-Length; None for what is no plain number."""
    if not (value.isascii() and value.isdigit()):
        return None
    return int(value) if len(value) <= 15 else sys.maxsize  # Python refuses to read thousands of digits
