"""Known devices: tokens that tell the devices of an account from strangers, and grant nothing else.

A device token is signed with the account's password hash, so it ends with the password. Its bearer
has separate counters for wrong passwords and mails, which no stranger can use up.
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
MAX_TOKENS = 5  # several people may share a browser
SEPARATOR = "|"


def device_of(request: HttpRequest, user: AbstractBaseUser) -> str | None:
    """Return the id of the device, if the request has a token for this account."""
    return next((device for token in _tokens(request) if (device := _device_in(token, user))), None)


def remember_device(request: HttpRequest, user: AbstractBaseUser) -> None:
    """Have the response carry a token for an account that has just signed in."""
    device = device_of(request, user) or secrets.token_hex(8)
    request.device_token = signing.dumps(device, salt=_salt(user))  # type: ignore[attr-defined]
    # Without this account's former token, so that it displaces no other.
    request.other_device_tokens = [  # type: ignore[attr-defined]
        token for token in _tokens(request) if not _device_in(token, user)
    ]


def new_token(request: HttpRequest) -> str | None:
    """Return the token that the response has to carry."""
    token: str | None = getattr(request, "device_token", None)
    return token


def remember_in_cookie(request: HttpRequest, response: HttpResponse) -> None:
    """Give a browser the tokens of the last accounts that signed in there."""
    if token := new_token(request):
        others: list[Any] = getattr(request, "other_device_tokens", [])
        tokens = SEPARATOR.join([token, *others][:MAX_TOKENS])
        set_cookie(response, settings.DEVICE_COOKIE_NAME, tokens, max_age=MAX_AGE)


def _tokens(request: HttpRequest) -> list[str]:
    if is_headless_request(request):
        tokens = request.headers.get(HEADER, "")
    else:
        tokens = request.COOKIES.get(settings.DEVICE_COOKIE_NAME, "")
    return tokens.split(SEPARATOR)[:MAX_TOKENS] if tokens else []


def _device_in(token: str, user: AbstractBaseUser) -> str | None:
    try:
        return str(signing.loads(token, salt=_salt(user), max_age=MAX_AGE))
    except signing.BadSignature:
        return None


def _salt(user: AbstractBaseUser) -> str:
    return f"config.device.{user.pk}.{user.password}"
