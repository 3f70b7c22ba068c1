"""How many passwords are hashed at a time: half the machine's cores, whatever asks for it.

A hash costs a core most of a second, by intention. The places are locks on files, which the system
releases with the process that holds them, however it ends.
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

PLACES = max(1, (os.cpu_count() or 1) // 2)  # of the machine
PATIENCE = 10.0  # seconds that one waits for a place
POLL = 0.005  # seconds

# Of the threads of a process this many may hash or wait for it: the others are there for everybody else.
MAY_WAIT = max(1, settings.WEB_THREADS - max(1, settings.WEB_THREADS // 4))

_waiting = threading.BoundedSemaphore(MAY_WAIT)
_turns = threading.BoundedSemaphore(PLACES)
_this_thread = threading.local()
_released_at = 0.0


class PasswordsBusy(Exception):
    """No place to hash a password came free in time; asking again may help."""


@contextmanager
def place_to_hash() -> Iterator[None]:
    """Hold one of the machine's places for hashing. A thread that has one keeps it.

    To wait in a transaction would keep others from writing: take the place before.

    :raises PasswordsBusy:
    """
    if getattr(_this_thread, "has_place", False):
        yield
        return
    ends_at = time.monotonic() + PATIENCE
    with ExitStack() as held:
        if not _waiting.acquire(blocking=False):
            raise PasswordsBusy
        held.callback(_waiting.release)
        if not _turns.acquire(blocking=False):
            _wait_without_connection()
            if not _turns.acquire(timeout=max(0.0, ends_at - time.monotonic())):
                raise PasswordsBusy
        held.callback(_turns.release)
        held.callback(_release, _lock_a_file(ends_at))
        _this_thread.has_place = True
        held.callback(setattr, _this_thread, "has_place", False)
        yield


def _wait_without_connection() -> None:
    if not connection.in_atomic_block:
        connection.close()  # the next query opens one


def _lock_a_file(ends_at: float) -> int:
    """:raises PasswordsBusy:"""
    # Processes that wait look every POLL: one that has just had a place lets them go first.
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
    """Return the directory of the locks, which nobody else can write.

    :raises ImproperlyConfigured:
    """
    directory = Path(settings.LOCKS_DIR)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise ImproperlyConfigured("Set LOCKS_DIR to a directory that nobody but this user can write.")
    return directory


class _Placed:
    """Hash at a place for it; to verify a password is to hash it."""

    def encode(self, *arguments: Any, **options: Any) -> str:
        with place_to_hash():
            encoded: str = super().encode(*arguments, **options)  # type: ignore[misc]
            return encoded


class PBKDF2(_Placed, PBKDF2PasswordHasher):
    """What new passwords are hashed with."""


class PBKDF2SHA1(_Placed, PBKDF2SHA1PasswordHasher):
    pass


class Scrypt(_Placed, ScryptPasswordHasher):
    pass
