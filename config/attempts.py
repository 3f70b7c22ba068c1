"""Rate limits for signing in: requests of a client, and wrong passwords for an account.

They are counted in the database, because caches drop entries: Django's file cache keeps only 300.
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

# How many wrong passwords within which time, per counter.
WRONG_PASSWORDS = (
    (5, datetime.timedelta(minutes=5)),
    (50, datetime.timedelta(days=1)),
)


@dataclass(frozen=True, slots=True)
class Usage:
    """allauth's handle of a counted request."""

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

    :raises RateLimited: if `raise_exception` is set and the limit is reached.
    """
    now = timezone.now()
    window = datetime.timedelta(seconds=rate.duration)
    counter = ratelimit.get_cache_key(request, app=app, action=action, rate=rate, key=key, user=user)
    if dry_run:
        if len(Attempt.objects.taken(counter, window=window, now=now)) < rate.amount:
            return Usage(None)
    elif attempt := Attempt.objects.take_place(counter, limit=rate.amount, window=window, now=now):
        return Usage(attempt)
    retry_in(request, _seconds_until_free(counter, limit=rate.amount, window=window, now=now))
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
    """Reset the counters of an action, as after a right code."""
    for rate in ratelimit.get_rates(app=app, action=action, config=config):
        counter = ratelimit.get_cache_key(request, app=app, action=action, rate=rate, key=key, user=user)
        Attempt.objects.of(counter).delete()


def count_in_the_database() -> None:
    """Replace the counting of all of allauth's rate limits."""
    ratelimit._consume_single_rate = consume
    ratelimit.clear = clear


def retry_in(request: HttpRequest, seconds: int) -> None:
    """Have the response carry Retry-After."""
    request.retry_after = max(1, seconds, getattr(request, "retry_after", 0))  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class WrongPasswords:
    """A counter of wrong passwords for an account."""

    counter: str

    @classmethod
    def of(cls, request: HttpRequest, address: str) -> WrongPasswords:
        """Choose the counter: that of a known device, or else the one that all strangers share.

        Addresses without an account have one, too, so that it reveals nothing.
        """
        users: list[AbstractBaseUser] = filter_users_by_email(address, prefer_verified=True, for_login=True)
        for user in users:
            if device := device_of(request, user):
                return cls(f"wrong password, device {device} of account {user.pk}")
        # Per account, which may have several addresses.
        keys = sorted(user.pk for user in users)
        return cls(f"wrong password, account {keys[0]}" if keys else f"wrong password, address {address}")

    @classmethod
    def of_signed_in(cls, user: AbstractBaseUser) -> WrongPasswords:
        """Choose the counter for reauthentication."""
        return cls(f"wrong password, signed in as account {user.pk}")

    def wait(self) -> int:
        """Return for how many seconds no password is checked; 0 if attempts are left."""
        now = timezone.now()
        return max(
            _seconds_until_free(self._in(window), limit=limit, window=window, now=now)
            for limit, window in WRONG_PASSWORDS
        )

    def count(self) -> bool:
        """Count a wrong password; False beyond the limit, when the response must not say that it is wrong."""
        now = timezone.now()
        return all(
            Attempt.objects.take_place(self._in(window), limit=limit, window=window, now=now)
            for limit, window in WRONG_PASSWORDS
        )

    def _in(self, window: datetime.timedelta) -> str:
        return f"{self.counter}, in {window.total_seconds():.0f} s"


def forget_wrong_passwords(user: AbstractBaseUser) -> None:
    """Reset the strangers' counter, because the password that they tried has changed."""
    counter = WrongPasswords(f"wrong password, account {user.pk}")
    for _limit, window in WRONG_PASSWORDS:
        Attempt.objects.of(counter._in(window)).delete()


def _seconds_until_free(
    counter: str, *, limit: int, window: datetime.timedelta, now: datetime.datetime
) -> int:
    taken: list[Any] = Attempt.objects.taken(counter, window=window, now=now)
    if len(taken) < limit:
        return 0
    free_at: datetime.datetime = taken[len(taken) - limit].taken_at + window
    return math.ceil((free_at - now).total_seconds())
