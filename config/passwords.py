"""A limit on concurrent password hashing: half the machine's cores, over all processes.

A hash intentionally takes a core most of a second. The places are file locks, which the system
releases when the process that holds them ends.
"""

from __future__ import annotations

import fcntl
import os
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.auth.hashers import PBKDF2PasswordHasher, PBKDF2SHA1PasswordHasher, ScryptPasswordHasher
from django.core.exceptions import ImproperlyConfigured
from django.db import connection

PLACES = max(1, (os.cpu_count() or 1) // 2)  # on the machine
PATIENCE = 10.0  # seconds to wait for a place
POLL = 0.005  # seconds
# How many threads of a process may hash or wait to: the others stay free for other requests.
MAY_WAIT = max(1, settings.WEB_THREADS - max(1, settings.WEB_THREADS // 4))

_waiting = threading.BoundedSemaphore(MAY_WAIT)
_turns = threading.BoundedSemaphore(PLACES)
_this_thread = threading.local()
_released_at = 0.0


class PasswordsBusy(Exception):
    """No place to hash a password became free in time; retry later."""


@contextmanager
def place_to_hash() -> Iterator[None]:
    """Hold one of the machine's places for hashing; nested calls in a thread share it.

    Take the place before a transaction begins: to wait inside one would block other writers.

    :raises PasswordsBusy:
    """
    if getattr(_this_thread, "has_place", False):
        yield
        return
    ends_at = time.monotonic() + PATIENCE
    with ExitStack() as stack:
        if not _waiting.acquire(blocking=False):
            raise PasswordsBusy
        stack.callback(_waiting.release)
        if not _turns.acquire(blocking=False):
            _wait_without_connection()
            if not _turns.acquire(timeout=max(0.0, ends_at - time.monotonic())):
                raise PasswordsBusy
        stack.callback(_turns.release)
        stack.callback(_release, _lock_a_file(ends_at))
        _this_thread.has_place = True
        stack.callback(setattr, _this_thread, "has_place", False)
        yield


def _wait_without_connection() -> None:
    if not connection.in_atomic_block:
        connection.close()  # the next query opens one


def _lock_a_file(ends_at: float) -> int:
    """:raises PasswordsBusy:"""
    # Waiting processes try every POLL: one that has just released a place lets them go first.
    time.sleep(max(0.0, min(2 * POLL, _released_at + 2 * POLL - time.monotonic())))
    while True:
        for number in range(PLACES):
            lock = _try_to_lock(lock_directory() / f"hashing-{number}")
            if lock is not None:
                return lock
        if time.monotonic() >= ends_at:
            raise PasswordsBusy
        _wait_without_connection()
        time.sleep(POLL)


def _try_to_lock(path: Path) -> int | None:
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def _release(lock: int) -> None:
    global _released_at
    _released_at = time.monotonic()
    os.close(lock)


def lock_directory() -> Path:
    """:raises ImproperlyConfigured: if other users could write there."""
    directory = Path(settings.LOCKS_DIR)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = directory.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise ImproperlyConfigured("Set LOCKS_DIR to a directory that only this user can write to.")
    return directory


class _Placed:
    """Hash, and so verify, while holding a place."""

    def encode(self, *arguments: Any, **options: Any) -> str:
        with place_to_hash():
            encoded: str = super().encode(*arguments, **options)  # type: ignore[misc]
            return encoded


class PBKDF2(_Placed, PBKDF2PasswordHasher):
    """The hasher of new passwords."""


class PBKDF2SHA1(_Placed, PBKDF2SHA1PasswordHasher):
    pass


class Scrypt(_Placed, ScryptPasswordHasher):
    pass
