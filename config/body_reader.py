"""Read a request's body to its end before it takes a thread, within what all bodies on a machine may hold."""

import asyncio
import tempfile
from collections import deque
from collections.abc import Awaitable, Callable, MutableSequence
from io import BytesIO
from typing import IO, Any, Final

from django.conf import settings

from config.bodies import NO_ROOM, TOO_LARGE, TOO_SLOW, UNREADABLE, Refusal, announced_length, largest_body

Receive = Callable[[], Awaitable[dict[str, Any]]]

IN_MEMORY: Final = 1024 * 1024  # what is larger lies in a temporary file
TICK: Final = 0.1  # seconds; finer, the pace of a body is not kept
# What large bodies leave to all others: a plan query is answered also while deliveries fill the rest.
RESERVE: Final = 16 * 1024 * 1024
# Large bodies that are worked on at a time: parsed, one takes several times its size.
AT_WORK: Final = 4


class Refused(Exception):
    """A body is not taken."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.line)
        self.refusal = refusal


class HungUp(Exception):
    """The client is gone before its body was there."""


class Room:
    """Count what bodies hold over all processes of a server: each writes its own numbers, and reads all.

    Take first, then look: two processes at the same moment may both refuse, and never both take too much.
    """

    SMALL, LARGE, WORK = range(3)
    NUMBERS: Final = 3  # of each process

    def __init__(self, numbers: MutableSequence[int], process: int) -> None:
        self.numbers = numbers
        self.own = process * self.NUMBERS

    def add(self, kind: int, size: int) -> None:
        self.numbers[self.own + kind] += size

    def total(self, kind: int) -> int:
        return sum(self.numbers[kind :: self.NUMBERS])

    def fits(self, kind: int) -> bool:
        """Tell whether all that is held, with what was just added, is within the limit."""
        large = self.total(self.LARGE)
        if kind == self.LARGE:
            return large <= settings.BODIES_MAX_BYTES - RESERVE
        return large + self.total(self.SMALL) <= settings.BODIES_MAX_BYTES

    def start_work(self) -> bool:
        """Take one of the places for work on large bodies, if one is free."""
        self.add(self.WORK, 1)
        if self.total(self.WORK) <= AT_WORK:
            return True
        self.end_work()
        return False

    def end_work(self) -> None:
        self.add(self.WORK, -1)


class Pace:
    """Tell until when more of a body must have come: so much within any ten seconds, all of it in sixty."""

    def __init__(self, now: float) -> None:
        self.ends_at = now + settings.BODY_SECONDS
        self.least = settings.BODY_BYTES_PER_SECOND * settings.BODY_WINDOW_SECONDS
        self.came: deque[tuple[float, int]] = deque([(now, 0)])  # how much had come when

    def deadline(self, now: float, size: int) -> float:
        """Note how much has come by now, and return when that is no longer enough."""
        if not self.came or now - self.came[-1][0] >= TICK:
            self.came.append((now, size))
        # The window may begin as long as what has come since is enough: not after the first moment left.
        while self.came and self.came[0][1] <= size - self.least:
            self.came.popleft()
        begins_at = self.came[0][0] if self.came else now
        return min(begins_at + settings.BODY_WINDOW_SECONDS, self.ends_at)


class Body:
    """A body while it is read and worked on; closed, it holds nothing any more."""

    def __init__(self, room: Room) -> None:
        self.room = room
        self.size = 0
        self.kind = Room.SMALL
        self.file: IO[bytes] = BytesIO()
        self.has_ended = False

    @property
    def is_large(self) -> bool:
        return self.kind == Room.LARGE

    def close(self) -> None:
        """Forget what has come."""
        self.file.close()
        self.room.add(self.kind, -self.size)
        self.size, self.kind, self.file = 0, Room.SMALL, BytesIO()

    async def read(self, receive: Receive, *, path: str, scope: dict[str, Any]) -> None:
        """Read it to its end.

        :raises Refused:
        :raises HungUp:
        """
        cap = largest_body(path)
        announced = announced_by(scope["headers"], version=scope["http_version"])
        if announced == 0:
            self.has_ended = True
            return
        if announced is not None and announced > cap:
            raise Refused(TOO_LARGE)
        if not self.room.fits(self.kind):
            raise Refused(NO_ROOM)
        now = asyncio.get_running_loop().time
        pace = Pace(now())
        try:
            while not self.has_ended:
                async with asyncio.timeout_at(pace.deadline(now(), self.size)):
                    message = await receive()
                if message["type"] != "http.request":
                    raise HungUp
                self.has_ended = not message["more_body"]
                self.add(message["body"], cap)
        except TimeoutError as error:
            raise Refused(TOO_SLOW) from error
        self.file.seek(0)

    def add(self, chunk: bytes, cap: int) -> None:
        if self.size + len(chunk) > cap:
            raise Refused(TOO_LARGE)
        self.room.add(self.kind, len(chunk))
        self.size += len(chunk)
        if self.size > IN_MEMORY and not self.is_large:
            self.spool()
        if not self.room.fits(self.kind):
            raise Refused(NO_ROOM)
        try:
            self.file.write(chunk)
        except OSError as error:  # the disk is full
            raise Refused(NO_ROOM) from error

    def spool(self) -> None:
        """Move what has come to a file without a name: it goes with the process, however that ends."""
        self.room.add(Room.SMALL, -self.size)
        self.room.add(Room.LARGE, self.size)
        self.kind = Room.LARGE
        in_memory = self.file
        try:
            self.file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  # closed with the body
            self.file.write(in_memory.getvalue())  # type: ignore[attr-defined]
        except OSError as error:
            raise Refused(NO_ROOM) from error


def announced_by(headers: list[tuple[bytes, bytes]], *, version: str) -> int | None:
    """Return the length that headers announce, or None for a body in chunks.

    The parser refuses most of what could be read in two ways; the rest is refused here.

    :raises Refused:
    """
    lengths = [value for name, value in headers if name == b"content-length"]
    encodings = [value for name, value in headers if name == b"transfer-encoding"]
    if not encodings and not lengths:
        return 0
    if encodings:
        is_chunked = [value.strip().lower() for value in encodings] == [b"chunked"]
        if lengths or not is_chunked or version == "1.0":
            raise Refused(UNREADABLE)
        return None
    length = announced_length(lengths[0].strip().decode("latin-1"))
    if len(lengths) > 1 or length is None:
        raise Refused(UNREADABLE)
    return length
