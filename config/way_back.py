"""The way back to an invite after signing in: a cookie, so that no other URL contains the token.

An invite's token is a credential, so only the path of the invite's page contains it: not `?next=`, which
proxies log, and not the session, which is in the database. The cookie is encrypted and contains only the
token, so it can lead to an invite's page and nowhere else.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

from cryptography.fernet import Fernet, InvalidToken
from django.conf import settings
from django.contrib.auth import REDIRECT_FIELD_NAME
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, QueryDict, UnreadablePostError
from django.urls import NoReverseMatch, reverse
from django.utils.cache import add_never_cache_headers
from django.utils.crypto import salted_hmac
from django.utils.deprecation import MiddlewareMixin

from config.cookies import set_cookie

MAX_AGE = 60 * 60  # seconds
MAX_LENGTH = 200  # of a token; ours have 43 characters
SAFE = frozenset({"GET", "HEAD"})
# Responses of an invite's page after which there is nothing to come back to.
FINAL_STATUSES = frozenset({HTTPStatus.OK, HTTPStatus.FOUND, HTTPStatus.NOT_FOUND, HTTPStatus.GONE})
# An invite's page in anything that a browser accepts as a URL; accepted/ is the page afterwards.
INVITE = re.compile(r"(?<![\w-])invites/+(?!accepted/?(?:[?#&]|$))([^/?#&\s]+)")
IGNORED_BY_BROWSERS = re.compile(r"[\t\r\n]")


def token_in(target: str) -> str:
    """Find an invite's token in a URL, even if it is encoded several times; empty if there is none."""
    text = IGNORED_BY_BROWSERS.sub("", target)
    for _ in range(10):
        if (plain := unquote(text)) == text:
            break
        text = plain
    match = INVITE.search(IGNORED_BY_BROWSERS.sub("", text).replace("\\", "/"))
    return match[1] if match else ""


def split_off(query: QueryDict) -> tuple[QueryDict, str]:
    """Return a query or form without a `next` to an invite, and the invite's token, which may be empty."""
    tokens = [token for target in query.getlist(REDIRECT_FIELD_NAME) if (token := token_in(target))]
    if not tokens:
        return query, ""
    rest = query.copy()
    del rest[REDIRECT_FIELD_NAME]
    return rest, tokens[-1]


def is_invite_page(request: HttpRequest) -> bool:
    """Return whether a request is for an invite's page or a button on it."""
    match = request.resolver_match
    return match is not None and match.route.startswith("invites/") and "token" in match.kwargs


def token_of(request: HttpRequest) -> str:
    """Return the token of the invite to go back to; empty if there is none."""
    return getattr(request, "way_back", "")


def path_of(request: HttpRequest) -> str:
    """Return the path of the invite's page to go back to; empty if there is none."""
    try:
        return reverse("invite", args=[token_of(request)])
    except NoReverseMatch:  # there is no token, or it is invalid in a path
        return ""


def keep(response: HttpResponse, token: str) -> None:
    if len(token) > MAX_LENGTH:
        return  # not one of our tokens, and too long for a cookie
    encrypted = cipher().encrypt(token.encode()).decode()
    set_cookie(response, settings.WAY_BACK_COOKIE_NAME, encrypted, max_age=MAX_AGE)


def decrypt(cookie: str) -> str:
    """Return the token in a cookie; empty if it is forged, expired, or from a former SECRET_KEY."""
    try:
        return cipher().decrypt(cookie.encode(), ttl=MAX_AGE).decode()
    except (InvalidToken, ValueError):
        return ""


def cipher() -> Fernet:
    key = salted_hmac("config.way_back", "cookie", algorithm="sha256").digest()
    return Fernet(base64.urlsafe_b64encode(key))


class WayBackMiddleware(MiddlewareMixin):
    """Move an invite from `next` into the cookie, before any page repeats the URL.

    This covers all code that reads `next` or redirects with it: Django's and allauth's pages, admin, and
    the invite's own page for signed-out people.
    """

    def process_request(self, request: HttpRequest) -> HttpResponse | None:
        read_cookie(request)
        rest, token = split_off(request.GET)
        if not token:
            return None
        request.way_back, request.way_back_is_new = token, True  # type: ignore[attr-defined]
        request.META["QUERY_STRING"] = rest.urlencode()
        request.GET = rest  # type: ignore[assignment]
        if request.method not in SAFE:
            return None
        response = HttpResponseRedirect(request.get_full_path())
        add_never_cache_headers(response)
        return response

    def process_response(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        """Set the cookie while signing in can lead back to the invite, and delete it afterwards."""
        requested = token_of(request)
        token = ""
        if location := response.get("Location", ""):
            parts = urlsplit(location)
            rest, token = split_off(QueryDict(parts.query))
            if token:
                response["Location"] = urlunsplit(parts._replace(query=rest.urlencode(safe="/")))
        if is_invite_page(request):
            here: str = request.resolver_match.kwargs["token"]  # type: ignore[union-attr]
            if offers_sign_in(request, response):
                token = here
            elif not token and requested == here and response.status_code in FINAL_STATUSES:
                response.delete_cookie(settings.WAY_BACK_COOKIE_NAME, samesite="Lax")
        elif not token and getattr(request, "way_back_is_new", False):
            token = requested
        if token:
            keep(response, token)
        return response

    def process_view(
        self, request: HttpRequest, view: Callable[..., Any], _args: object, _kwargs: object
    ) -> None:
        """Move it out of forms, too. Views that are exempt from CSRF have no forms."""
        if request.method != "POST" or getattr(view, "csrf_exempt", False):
            return
        try:
            rest, token = split_off(request.POST)
        except UnreadablePostError:
            return  # the CSRF check answers it
        if token:
            request.POST = rest  # type: ignore[assignment]
            request.way_back, request.way_back_is_new = token, True  # type: ignore[attr-defined]


def read_cookie(request: HttpRequest) -> None:
    """Read the cookie, and remove it from the request: allauth stores whole requests in sessions."""
    name = settings.WAY_BACK_COOKIE_NAME
    if encrypted := request.COOKIES.pop(name, ""):
        request.way_back = decrypt(encrypted)  # type: ignore[attr-defined]
        pairs = request.META["HTTP_COOKIE"].split(";")
        request.META["HTTP_COOKIE"] = ";".join(
            pair for pair in pairs if pair.partition("=")[0].strip() != name
        )
    if token_in(referer := request.META.get("HTTP_REFERER", "")):
        # The origin is all that Django needs, and all that our pages let browsers send.
        request.META["HTTP_REFERER"] = urljoin(referer, "/")


def offers_sign_in(request: HttpRequest, response: HttpResponse) -> bool:
    """Return whether an invite's page offers to sign in, perhaps with another account."""
    if response.status_code == HTTPStatus.CONFLICT:
        return True
    return response.status_code == HTTPStatus.OK and request.method in SAFE
