"""Devices that an account was signed in on: they are told from strangers, and granted nothing else.

A device token is a signature over an account and its password hash, so it ends with the password. It
lets its bearer have counters of their own, for wrong passwords and mails: no stranger uses them up.
"""

from __future__ import annotations

import secrets
from typing import Any

from allauth.core.internal.httpkit import is_headless_request
from django.conf import settings
from django.contrib.auth.models import AbstractBaseUser
from django.core import signing
from django.http import HttpRequest, HttpResponse

from config.cookies import set_cookie

HEADER = "X-Device-Token"
MAX_AGE = 365 * 24 * 60 * 60  # seconds
# People share a browser, and each has an account.
MAX_TOKENS = 5
BETWEEN = "|"


def device_of(request: HttpRequest, user: AbstractBaseUser) -> str | None:
    """Return the name of the device, if the request brings a token of this account."""
    return next((device for token in _tokens(request) if (device := _device_in(token, user))), None)


def remember_device(request: HttpRequest, user: AbstractBaseUser) -> None:
    """Let the answer carry a token of an account that has just signed in."""
    device = device_of(request, user) or secrets.token_hex(8)
    request.device_token = signing.dumps(device, salt=_salt(user))  # type: ignore[attr-defined]
    # The one of the same account goes, so that it pushes no other out.
    request.other_device_tokens = [  # type: ignore[attr-defined]
        token for token in _tokens(request) if not _device_in(token, user)
    ]


def new_token(request: HttpRequest) -> str | None:
    """Return the token that the answer has to carry, for a client without cookies."""
    token: str | None = getattr(request, "device_token", None)
    return token


def remember_in_cookie(request: HttpRequest, response: HttpResponse) -> None:
    """Give a browser the tokens of the accounts that signed in there last."""
    if token := new_token(request):
        others: list[Any] = getattr(request, "other_device_tokens", [])
        tokens = BETWEEN.join([token, *others][:MAX_TOKENS])
        set_cookie(response, settings.DEVICE_COOKIE_NAME, tokens, max_age=MAX_AGE)


def _tokens(request: HttpRequest) -> list[str]:
    if is_headless_request(request):
        brought = request.headers.get(HEADER, "")
    else:
        brought = request.COOKIES.get(settings.DEVICE_COOKIE_NAME, "")
    return brought.split(BETWEEN)[:MAX_TOKENS] if brought else []


def _device_in(token: str, user: AbstractBaseUser) -> str | None:
    try:
        return str(signing.loads(token, salt=_salt(user), max_age=MAX_AGE))
    except signing.BadSignature:
        return None


def _salt(user: AbstractBaseUser) -> str:
    return f"config.device.{user.pk}.{user.password}"
