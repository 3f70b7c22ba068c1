"""How long a statement of a request may take: the server says it, commands never do.

The client ends it, and not `statement_timeout`: PgBouncer refuses that as a parameter of the start, and
a SET outlives its transaction there, on a connection that belongs to somebody else by then.
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

CANCELLING = 5.0  # seconds that the server has to end it, before we end the connection


class StatementTooLong(psycopg.OperationalError):
    """The statement took longer than a request's may, and was ended: it changed nothing."""


@dataclass(slots=True)
class Limit:
    """What the statements of one request may take, and whether one has taken longer."""

    seconds: float
    passed: bool = False


_limit: ContextVar[Limit | None] = ContextVar("statement_limit", default=None)


@contextmanager
def statements_within(seconds: float) -> Iterator[Limit]:
    """End each statement that takes longer, as long as this lasts, in this thread and those it starts."""
    limit = Limit(seconds)
    token = _limit.set(limit)
    try:
        yield limit
    finally:
        _limit.reset(token)


class BoundedConnection(psycopg.Connection[Any]):
    """A connection that waits for a statement no longer than a request may."""

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
            return super().wait(gen, timeout=CANCELLING)  # it came to its end at this very moment
        except psycopg.errors.QueryCanceled:
            pass
        except psycopg.Error:
            # The server says nothing any more: what is open is undone with the connection.
            self.close()
        limit.passed = True
        logger.warning("A statement took longer than %s s and was ended", limit.seconds)
        raise StatementTooLong(f"The statement took longer than {limit.seconds} s.")
