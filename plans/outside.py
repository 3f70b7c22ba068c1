"""Waiting for the outside world, Zammad and the mail server, without keeping others waiting."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import copy_context
from typing import TypeVar

from django.conf import settings
from django.db import connection

Answer = TypeVar("Answer")

PATIENCE = 2.0  # seconds that one waits for a place

# Another project that installs plans need not know this setting of ours.
THREADS: int = getattr(settings, "WEB_THREADS", 16)

# Of the threads of a process half may wait for the outside, and a quarter for such a place:
# the last quarter is always there for everybody else.
_places = threading.BoundedSemaphore(max(1, THREADS // 2))
_queue = threading.BoundedSemaphore(max(1, THREADS // 4))
# What waits in a thread of its own, also after everybody gave it up.
_asides = threading.BoundedSemaphore(max(1, THREADS // 2))


class TooManyWaiting(Exception):
    """Half of this process's threads wait for the outside already."""

    def __init__(self) -> None:
        super().__init__("too many requests of this process wait for the outside already")


@contextmanager
def outside_world() -> Iterator[None]:
    """Hold one of the places for waiting; neither there nor in the queue a database connection.

    :raises TooManyWaiting:
    """
    if not connection.in_atomic_block:
        connection.close()  # the next query opens one
    if not _places.acquire(blocking=False):
        _queue_for_a_place()
    try:
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


def within(seconds: float, work: Callable[[], Answer]) -> Answer:
    """Do work that knows no end of its own in a thread, which is left behind when the time is over.

    smtplib, for one, waits anew for every line, and looks a host up for as long as it takes.

    :raises TooManyWaiting: as much was left behind as may be.
    :raises TimeoutError:
    """
    if not _asides.acquire(blocking=False):
        raise TooManyWaiting
    answer: Future[Answer] = Future()

    def worked() -> Answer:
        try:
            return work()
        finally:
            connection.close()  # it is this thread's own; a mail backend may keep its queue there
            _asides.release()

    def run() -> None:
        try:
            answer.set_result(worked())
        except BaseException as error:  # noqa: BLE001  # it is raised where the answer is awaited
            answer.set_exception(error)

    # A daemon: nobody waits for it when the process ends. What logs know of the request goes along.
    threading.Thread(target=copy_context().run, args=(run,), daemon=True).start()
    return answer.result(timeout=seconds)
