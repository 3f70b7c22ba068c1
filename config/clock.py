"""Whether this machine's clock is right: expiries and seats are by the clock, on every machine its own."""

import datetime
import time

from django.db import connection
from django.utils import timezone

MAX_OFFSET = datetime.timedelta(seconds=2)
TRIES = 3


def clock_offset() -> datetime.timedelta | None:
    """Measure how far this machine's clock is ahead of PostgreSQL's, which all machines share.

    SQLite has no clock but this machine's: None.
    """
    if connection.vendor != "postgresql":
        return None
    _, offset = min(_compare() for _ in range(TRIES))
    return offset


def _compare() -> tuple[float, datetime.timedelta]:
    """Return the seconds that the answer took, and the offset: the shorter they were, the truer it is."""
    with connection.cursor() as cursor:
        asked_at, begun = timezone.now(), time.monotonic()
        cursor.execute("SELECT clock_timestamp()")
        seconds = time.monotonic() - begun
        [theirs] = cursor.fetchone()
    # It was read in the middle of the round trip, as far as anybody can tell.
    return seconds, asked_at + datetime.timedelta(seconds=seconds / 2) - theirs
