"""The limits of signing in: requests of one client, and wrong passwords for one account.

They are counted in the database. A cache forgets: that of files, which serves a machine without Redis,
keeps 300 entries.
"""

from __future__ import annotations

import datetime
import math
from dataclasses import dataclass
from typing import Any

from allauth.account.internal.userkit import filter_users_by_email
from allauth.core.exceptions import RateLimited
from allauth.core.internal import ratelimit
from django.contrib.auth.models import AbstractBaseUser
from django.http import HttpRequest
from django.utils import timezone

from config.devices import device_of
from config.models import Attempt

# How many wrong passwords in how long, for one account, from wherever they come.
WRONG_PASSWORDS = (
    (5, datetime.timedelta(minutes=5)),
    (50, datetime.timedelta(days=1)),
)


@dataclass(frozen=True, slots=True)
class Usage:
    """What allauth keeps of a request that a limit has counted."""

    attempt: Attempt | None

    def rollback(self) -> None:
        if self.attempt is not None:
            self.attempt.delete()


def consume(
    request: HttpRequest,
    *,
    app: str,
    action: str,
    rate: ratelimit.Rate,
    key: str | None = None,
    user: AbstractBaseUser | None = None,
    dry_run: bool = False,
    raise_exception: bool = False,
) -> Usage | None:
    """Count a request against one limit, in place of allauth's counting in the cache.

    :raises RateLimited: if asked to, where the limit is reached.
    """
    now = timezone.now()
    window = datetime.timedelta(seconds=rate.duration)
    counted = ratelimit.get_cache_key(request, app=app, action=action, rate=rate, key=key, user=user)
    if dry_run:
        if len(Attempt.objects.taken(counted, window=window, now=now)) < rate.amount:
            return Usage(None)
    elif attempt := Attempt.objects.take_place(counted, limit=rate.amount, window=window, now=now):
        return Usage(attempt)
    come_back(request, _free_in(counted, limit=rate.amount, window=window, now=now))
    if raise_exception:
        raise RateLimited
    return None


def clear(
    request: HttpRequest,
    *,
    app: str,
    action: str,
    config: dict[str, str] | None = None,
    key: str | None = None,
    user: AbstractBaseUser | None = None,
) -> None:
    """Forget what was counted, as after a right code."""
    for rate in ratelimit.get_rates(app=app, action=action, config=config):
        counted = ratelimit.get_cache_key(request, app=app, action=action, rate=rate, key=key, user=user)
        Attempt.objects.of(counted).delete()


def count_in_the_database() -> None:
    """Let every limit of allauth be counted here."""
    ratelimit._consume_single_rate = consume
    ratelimit.clear = clear


def come_back(request: HttpRequest, seconds: int) -> None:
    """Let the answer say when asking again may help."""
    request.retry_after = max(1, seconds, getattr(request, "retry_after", 0))  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class WrongPasswords:
    """The wrong passwords that one counter has seen for one account."""

    counter: str

    @classmethod
    def of(cls, request: HttpRequest, address: str) -> WrongPasswords:
        """Choose the counter: a device's own if the request brings its token, else that of all strangers.

        An address without an account has one, too: nobody learns from it which addresses have none.
        """
        users: list[AbstractBaseUser] = filter_users_by_email(address, prefer_verified=True, for_login=True)
        for user in users:
            if device := device_of(request, user):
                return cls(f"wrong password, device {device} of account {user.pk}")
        # By the account, which may have several addresses.
        keys = sorted(user.pk for user in users)
        return cls(f"wrong password, account {keys[0]}" if keys else f"wrong password, address {address}")

    @classmethod
    def of_signed_in(cls, user: AbstractBaseUser) -> WrongPasswords:
        """Choose the counter of a person who is asked for the password again."""
        return cls(f"wrong password, signed in as account {user.pk}")

    def wait(self) -> int:
        """Tell for how many seconds no password is looked at any more; 0 while there are attempts left."""
        now = timezone.now()
        return max(
            _free_in(self._in(window), limit=limit, window=window, now=now)
            for limit, window in WRONG_PASSWORDS
        )

    def count(self) -> bool:
        """Count a wrong password; False where so many were counted that it must not be told as wrong."""
        now = timezone.now()
        return all(
            Attempt.objects.take_place(self._in(window), limit=limit, window=window, now=now)
            for limit, window in WRONG_PASSWORDS
        )

    def _in(self, window: datetime.timedelta) -> str:
        return f"{self.counter}, in {window.total_seconds():.0f} s"


def forget_wrong_passwords(user: AbstractBaseUser) -> None:
    """Count anew for strangers, once the password they tried has gone."""
    counter = WrongPasswords(f"wrong password, account {user.pk}")
    for _limit, window in WRONG_PASSWORDS:
        Attempt.objects.of(counter._in(window)).delete()


def _free_in(counted: str, *, limit: int, window: datetime.timedelta, now: datetime.datetime) -> int:
    """Tell in how many seconds there is a place again; 0 if there is one."""
    taken: list[Any] = Attempt.objects.taken(counted, window=window, now=now)
    if len(taken) < limit:
        return 0
    free_at: datetime.datetime = taken[len(taken) - limit].taken_at + window
    return math.ceil((free_at - now).total_seconds())
