"""Count what the webhook refuses, and write the counts without a request waiting for it."""

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

PAUSE = 1.0  # seconds from a refusal to the write that has it, and so from a write to the next
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

    Anybody on the internet can be refused, as often as they like: so a refusal adds to a number
    in memory, and waits for no database. A thread writes the numbers a second later, all of them in
    one statement, and ends once there is nothing to write. While the database fails, it keeps them
    and tries again ever more seldom. A process that ends writes what is left; one that is killed
    loses a second of it. Where a connection breaks between a write and its answer, it is written
    twice: the counts may be too high then, but hide nothing.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pending: dict[tuple[datetime, str], Counted] = {}
        self._writer: threading.Thread | None = None

    def count(self, *, reason: RefusalReason, delivery_id: UUID | None, now: datetime) -> None:
        """Count one refusal, of the view or of the server before it, from any thread.

        It neither waits for the database nor raises. `read_delivery_id` reads the id.
        """
        hour = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
        one = Counted(hour=hour, reason=reason, count=1, last_at=now, last_delivery_id=delivery_id)
        with self._lock:
            self._keep([one])
            # A process that was forked while one ran inherits a dead one.
            if self._writer is None or not self._writer.is_alive():
                self._start_writer()

    def write(self) -> bool:
        """Write what was counted so far, and tell whether that succeeded."""
        with self._lock:
            counted, self._pending = self._pending, {}
        if not counted:
            return True
        try:
            RefusedDelivery.objects.add([asdict(each) for each in counted.values()])
        except Exception:  # whatever it is, a later write may succeed
            logger.exception("The counts of refused deliveries could not be written yet")
            with self._lock:
                self._keep(counted.values())
            return False
        return True

    def _keep(self, counted: Iterable[Counted]) -> None:
        for each in counted:
            key = each.hour, each.reason.value
            known = self._pending.get(key)
            self._pending[key] = known + each if known else each

    def _start_writer(self) -> None:
        # No daemon, as the server's own threads are: so the process waits for its last write.
        self._writer = threading.Thread(target=self._write_until_done, name="refusals", daemon=False)
        try:
            self._writer.start()
        except RuntimeError:  # no more threads can be had: the next refusal tries again
            self._writer = None

    def _write_until_done(self) -> None:
        pause = PAUSE
        while True:
            ending = self._wait(pause)
            pause = PAUSE if self.write() else min(2 * pause, LONGEST_PAUSE)
            connections.close_all()  # those of this thread: none is held while nothing is written
            with self._lock:
                if ending or not self._pending:
                    self._writer = None
                    return

    @staticmethod
    def _wait(seconds: float) -> bool:
        """Wait, but no longer than the process lives, and tell whether it ends."""
        # Unlike atexit, this works in the processes that multiprocessing makes, too.
        main = threading.main_thread()
        main.join(seconds)
        return not main.is_alive()


_of_this_process = Refusals()
count_refusal = _of_this_process.count
