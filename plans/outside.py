"""Limits on waiting for Zammad and the mail server, so that other requests are still served."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import copy_context
from typing import TypeVar

from django.conf import settings
from django.db import connection

Answer = TypeVar("Answer")

PATIENCE = 2.0  # seconds to wait for a place

# A project that installs plans need not have this setting of ours.
THREADS: int = getattr(settings, "WEB_THREADS", 16)

# Half of a process's threads may wait for the outside world, and a quarter for such a place.
# The last quarter always serves everybody else.
_places = threading.BoundedSemaphore(max(1, THREADS // 2))
_queue = threading.BoundedSemaphore(max(1, THREADS // 4))
# Work in threads of its own, including what has been given up but still runs.
_asides = threading.BoundedSemaphore(max(1, THREADS // 2))


class TooManyWaiting(Exception):
    """As many threads of this process as allowed are already waiting for the outside world."""

    def __init__(self) -> None:
        super().__init__("too many requests of this process are already waiting for the outside world")


@contextmanager
def outside_world() -> Iterator[None]:
    """Hold one of the places for waiting, and no database connection there or in the queue.

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
    """Do work that has no timeout for the whole of it in a thread, and abandon that when time is up.

    smtplib, for example, starts its timeout again for every line, and has none for DNS.

    :raises TooManyWaiting: if too many such threads are running.
    :raises TimeoutError:
    """
    if not _asides.acquire(blocking=False):
        raise TooManyWaiting
    answer: Future[Answer] = Future()

    def work_and_release() -> Answer:
        try:
            return work()
        finally:
            connection.close()  # this thread's own: a mail backend may keep its queue in the database
            _asides.release()

    def run() -> None:
        try:
            answer.set_result(work_and_release())
        except BaseException as error:  # noqa: BLE001  # raised again where the answer is awaited
            answer.set_exception(error)

    # A daemon, so the process need not wait for it to end. The context is for the logs.
    threading.Thread(target=copy_context().run, args=(run,), daemon=True).start()
    return answer.result(timeout=seconds)
