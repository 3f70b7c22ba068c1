"""A time limit for the statements of a request; commands have none.

The client cancels a statement, instead of `statement_timeout`: PgBouncer refuses that as a startup
parameter, and a SET would outlive its transaction on a connection that others use next.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import psycopg

logger = logging.getLogger(__name__)

CANCELLING = 5.0  # seconds that the server has to cancel it, before we close the connection


class StatementTooLong(psycopg.OperationalError):
    """The statement exceeded the time limit and was cancelled: it changed nothing."""


@dataclass(slots=True)
class Limit:
    """The time limit of one request's statements, and whether one has exceeded it."""

    seconds: float
    passed: bool = False


_limit: ContextVar[Limit | None] = ContextVar("statement_limit", default=None)


@contextmanager
def statements_within(seconds: float) -> Iterator[Limit]:
    """Cancel statements that take longer, in this context and in copies of it."""
    limit = Limit(seconds)
    token = _limit.set(limit)
    try:
        yield limit
    finally:
        _limit.reset(token)


class BoundedConnection(psycopg.Connection[Any]):
    """A connection that observes the time limit of statements."""

    def wait(self, gen: Any, *args: Any, **kwargs: Any) -> Any:
        limit = _limit.get()
        if limit is None:
            return super().wait(gen, *args, **kwargs)
        try:
            return super().wait(gen, *args, **{"timeout": limit.seconds, **kwargs})
        except psycopg.errors._WaitTimeout:
            pass
        try:
            self.cancel_safe(timeout=CANCELLING)
            return super().wait(gen, timeout=CANCELLING)  # it completed just in time
        except psycopg.errors.QueryCanceled:
            pass
        except psycopg.Error:
            # The server does not respond: closing the connection rolls back.
            self.close()
        limit.passed = True
        logger.warning("A statement took longer than %s s and was cancelled", limit.seconds)
        raise StatementTooLong(f"The statement took longer than {limit.seconds} s.")
