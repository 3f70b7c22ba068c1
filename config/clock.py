"""Check this machine's clock: expiries and seats depend on the clock of each machine."""

import datetime
import time

from django.db import connection
from django.utils import timezone

MAX_OFFSET = datetime.timedelta(seconds=2)
TRIES = 3


def clock_offset() -> datetime.timedelta | None:
    """Measure how far this machine's clock is ahead of PostgreSQL's; None on SQLite, which has no other."""
    if connection.vendor != "postgresql":
        return None
    _, offset = min(_compare() for _ in range(TRIES))
    return offset


def _compare() -> tuple[float, datetime.timedelta]:
    """Return the seconds of a round trip, and the offset, which is more precise the shorter the trip."""
    with connection.cursor() as cursor:
        sent_at, started = timezone.now(), time.monotonic()
        cursor.execute("SELECT clock_timestamp()")
        seconds = time.monotonic() - started
        [theirs] = cursor.fetchone()
    # Assume that the clock was read in the middle of the round trip.
    return seconds, sent_at + datetime.timedelta(seconds=seconds / 2) - theirs
