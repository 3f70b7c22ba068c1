"""Read a request's whole body before it takes a thread, within a limit for all bodies on the machine."""

import asyncio
import tempfile
from collections import deque
from collections.abc import Awaitable, Callable, MutableSequence
from io import BytesIO
from typing import IO, Any, Final

from django.conf import settings

from config.bodies import NO_ROOM, TOO_LARGE, TOO_SLOW, UNREADABLE, Refusal, announced_length, largest_body

Receive = Callable[[], Awaitable[dict[str, Any]]]

IN_MEMORY: Final = 1024 * 1024  # larger bodies go to a temporary file
TICK: Final = 0.1  # seconds; the resolution of Pace
# Room that large bodies cannot use: plan queries are answered even while deliveries fill the rest.
RESERVE: Final = 16 * 1024 * 1024
# Large bodies that are processed at a time: parsed, one needs several times its size.
AT_WORK: Final = 4


class Refused(Exception):
    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.line)
        self.refusal = refusal


class HungUp(Exception):
    """The client disconnected before its body was complete."""


class Room:
    """Count the bytes that bodies hold in all server processes: each writes its own numbers, and reads all.

    Add first, then check: two concurrent processes may both refuse, but never exceed the limit together.
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
        """Return whether the total, including what was just added, is within the limit."""
        large = self.total(self.LARGE)
        if kind == self.LARGE:
            return large <= settings.BODIES_MAX_BYTES - RESERVE
        return large + self.total(self.SMALL) <= settings.BODIES_MAX_BYTES

    def start_work(self) -> bool:
        """Reserve a slot for processing a large body, if one is free."""
        self.add(self.WORK, 1)
        if self.total(self.WORK) <= AT_WORK:
            return True
        self.end_work()
        return False

    def end_work(self) -> None:
        self.add(self.WORK, -1)


class Pace:
    """The minimum pace of a body: enough bytes in each window of ten seconds, all of it in sixty."""

    def __init__(self, now: float) -> None:
        self.ends_at = now + settings.BODY_SECONDS
        self.least = settings.BODY_BYTES_PER_SECOND * settings.BODY_WINDOW_SECONDS
        self.sizes: deque[tuple[float, int]] = deque([(now, 0)])  # the size at each time

    def deadline(self, now: float, size: int) -> float:
        """Record the size so far, and return until when more must arrive."""
        if not self.sizes or now - self.sizes[-1][0] >= TICK:
            self.sizes.append((now, size))
        # Drop the times since which enough has arrived: the window begins at the first that is left.
        while self.sizes and self.sizes[0][1] <= size - self.least:
            self.sizes.popleft()
        begins_at = self.sizes[0][0] if self.sizes else now
        return min(begins_at + settings.BODY_WINDOW_SECONDS, self.ends_at)


class Body:
    """A body while it is read and processed; closing it frees its room."""

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
        self.file.close()
        self.room.add(self.kind, -self.size)
        self.size, self.kind, self.file = 0, Room.SMALL, BytesIO()

    async def read(self, receive: Receive, *, path: str, scope: dict[str, Any]) -> None:
        """:raises Refused, HungUp:"""
        cap = largest_body(path)
        announced = announced_by(scope["headers"], version=scope["http_version"])
        self.has_ended = announced == 0
        if announced is not None and announced > cap:
            raise Refused(TOO_LARGE)
        if not self.has_ended and not self.room.fits(self.kind):
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
        """Move the body to a file without a name, which ends with the process."""
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
    """Return the announced length, or None for a chunked body.

    The parser refuses most ambiguous headers; this refuses the others.

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
