"""Count refused deliveries in memory, and write the counts in the background."""

import logging
import threading
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Self
from uuid import UUID

from django.db import connections

from zammad.models import RefusalReason, RefusedDelivery

logger = logging.getLogger(__name__)

PAUSE = 1.0  # seconds between a refusal and its write, and between two writes
LONGEST_PAUSE = 60.0  # while the database fails


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """Refusals of one hour, for one reason."""

    hour: datetime
    reason: RefusalReason
    count: int
    last_at: datetime
    last_delivery_id: UUID | None

    def __add__(self, other: Self) -> "Counted":
        first, last = (self, other) if self.last_at <= other.last_at else (other, self)
        return Counted(
            hour=self.hour,
            reason=self.reason,
            count=self.count + other.count,
            last_at=last.last_at,
            last_delivery_id=last.last_delivery_id or first.last_delivery_id,
        )


class Refusals:
    """The counts of one process that are not in the database yet.

    Anybody on the internet can cause refusals, so each one only adds to a number in memory. A second
    later a thread writes all numbers in one statement, and ends when there are no more. If the
    database fails, it keeps them and retries with growing pauses. A process writes the rest when it
    ends; one that is killed loses a second of counts. If a connection breaks after a write but before
    the response, the write is repeated: counts may be too high, but never too low.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pending: dict[tuple[datetime, str], Counted] = {}
        self._writer: threading.Thread | None = None

    def count(self, *, reason: RefusalReason, delivery_id: UUID | None, now: datetime) -> None:
        """Count a refusal by the view or the server, from any thread, without waiting or raising."""
        hour = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
        one = Counted(hour=hour, reason=reason, count=1, last_at=now, last_delivery_id=delivery_id)
        with self._lock:
            self._add([one])
            # A process that was forked while a writer ran inherits a dead one.
            if self._writer is None or not self._writer.is_alive():
                self._start_writer()

    def write(self) -> bool:
        """Write the pending counts, and return whether that succeeded."""
        with self._lock:
            counted, self._pending = self._pending, {}
        if not counted:
            return True
        try:
            RefusedDelivery.objects.add([asdict(each) for each in counted.values()])
        except Exception:  # a later write may succeed
            logger.exception("The counts of refused deliveries could not be written yet")
            with self._lock:
                self._add(counted.values())
            return False
        return True

    def _add(self, counted: Iterable[Counted]) -> None:
        for each in counted:
            key = each.hour, each.reason.value
            known = self._pending.get(key)
            self._pending[key] = known + each if known else each

    def _start_writer(self) -> None:
        # Not a daemon, unlike the server's own threads: the process waits for the last write.
        self._writer = threading.Thread(target=self._write_until_done, name="refusals", daemon=False)
        try:
            self._writer.start()
        except RuntimeError:  # no more threads are possible: the next refusal tries again
            self._writer = None

    def _write_until_done(self) -> None:
        pause = PAUSE
        while True:
            ending = self._wait(pause)
            pause = PAUSE if self.write() else min(2 * pause, LONGEST_PAUSE)
            connections.close_all()  # those of this thread, which may not need them again
            with self._lock:
                if ending or not self._pending:
                    self._writer = None
                    return

    @staticmethod
    def _wait(seconds: float) -> bool:
        """Wait, but not beyond the end of the process, and return whether it is ending."""
        # Unlike atexit, this also works in processes started by multiprocessing.
        main = threading.main_thread()
        main.join(seconds)
        return not main.is_alive()


count_refusal = Refusals().count
