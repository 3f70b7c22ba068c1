"""Waiting for the outside world, Zammad and the mail server, without keeping others waiting."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from django.conf import settings
from django.db import connection

PATIENCE = 2.0  # seconds that one waits for a place

# Of the threads of a process half may wait for the outside, and a quarter for such a place:
# the last quarter is always there for everybody else.
_places = threading.BoundedSemaphore(max(1, settings.WEB_THREADS // 2))
_queue = threading.BoundedSemaphore(max(1, settings.WEB_THREADS // 4))


class TooManyWaiting(Exception):
    """Half of this process's threads wait for the outside already."""

    def __init__(self) -> None:
        super().__init__("too many requests of this process wait for the outside already")


@contextmanager
def outside_world() -> Iterator[None]:
    """Hold one of the places for waiting, and meanwhile no database connection.

    :raises TooManyWaiting:
    """
    if not _places.acquire(blocking=False):
        _queue_for_a_place()
    try:
        if not connection.in_atomic_block:
            connection.close()  # the next query opens one
        yield
    finally:
        _places.release()


def _queue_for_a_place() -> None:
    if not _queue.acquire(blocking=False):
        raise TooManyWaiting
    try:
        if not _places.acquire(timeout=PATIENCE):
            raise TooManyWaiting
    finally:
        _queue.release()
