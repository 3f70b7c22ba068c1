"""How much the bodies of all requests on a machine hold, counted over the processes of its server."""

from collections.abc import MutableSequence
from typing import Final, Self

from django.conf import settings

# What large bodies leave to all others: a plan query is answered also while deliveries fill the rest.
RESERVE: Final = 16 * 1024 * 1024
# Large bodies that are worked on at a time: parsed, one takes several times its size.
AT_WORK: Final = 4


class Room:
    """Count what bodies hold over all processes of a server: each writes its own numbers, and reads all.

    Take first, then look: two processes at the same moment may both refuse, and never both take too much.
    """

    SMALL, LARGE, WORK = range(3)
    NUMBERS: Final = 3  # of each process

    def __init__(self, numbers: MutableSequence[int], process: int) -> None:
        self.numbers = numbers
        self.own = process * self.NUMBERS

    @classmethod
    def of_one_process(cls) -> Self:
        return cls([0] * cls.NUMBERS, 0)

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
