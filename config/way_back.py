"""The way back to an invite for somebody who signs in first: a cookie, so that no other URL holds the token.

The token of an invite takes its seat, so it stands in the path of the invite's page and
nowhere else: not in `?next=`, which proxies log; not in a session, which is a row of the database.
The cookie is encrypted, and holds only the token: nothing but an invite's page can come of it.
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
# The answers of an invite's page after which there is nothing to come back to.
IT_IS_OVER = frozenset({HTTPStatus.OK, HTTPStatus.FOUND, HTTPStatus.NOT_FOUND, HTTPStatus.GONE})
# An invite's page in whatever a browser would take for an address; accepted/ is the page after.
INVITE = re.compile(r"(?<![\w-])invites/+(?!accepted/?(?:[?#&]|$))([^/?#&\s]+)")
IGNORED_BY_BROWSERS = re.compile(r"[\t\r\n]")


def token_in(target: str) -> str:
    """Find an invite's token in an address, however often it is quoted; empty when there is none."""
    text = IGNORED_BY_BROWSERS.sub("", target)
    for _ in range(10):
        if (plain := unquote(text)) == text:
            break
        text = plain
    found = INVITE.search(IGNORED_BY_BROWSERS.sub("", text).replace("\\", "/"))
    return found[1] if found else ""


def take_out(query: QueryDict) -> tuple[QueryDict, str]:
    """Return a query or form without its way to an invite, and the invite's token; empty if it had none."""
    tokens = [token for target in query.getlist(REDIRECT_FIELD_NAME) if (token := token_in(target))]
    if not tokens:
        return query, ""
    rest = query.copy()
    del rest[REDIRECT_FIELD_NAME]
    return rest, tokens[-1]


def is_invite_page(request: HttpRequest) -> bool:
    """Tell whether a request is for the page of one invite, or a button on it."""
    match = request.resolver_match
    return match is not None and match.route.startswith("invites/") and "token" in match.kwargs


def token_of(request: HttpRequest) -> str:
    """Return the token of the invite that this person is on the way to; empty for everybody else."""
    return getattr(request, "way_back", "")


def path_of(request: HttpRequest) -> str:
    """Return the path of the invite's page that this person is on the way to; empty for everybody else."""
    try:
        return reverse("invite", args=[token_of(request)])
    except NoReverseMatch:  # there is none, or it is not what a path can hold
        return ""


def keep(response: HttpResponse, token: str) -> None:
    if len(token) > MAX_LENGTH:
        return  # no token of ours, and more than a cookie takes
    sealed = cipher().encrypt(token.encode()).decode()
    set_cookie(response, settings.WAY_BACK_COOKIE_NAME, sealed, max_age=MAX_AGE)


def unsealed(cookie: str) -> str:
    """Return the token in a cookie; empty when it is forged, too old, or of an earlier SECRET_KEY."""
    try:
        return cipher().decrypt(cookie.encode(), ttl=MAX_AGE).decode()
    except (InvalidToken, ValueError):
        return ""


def cipher() -> Fernet:
    """Return what seals the cookie, under a key that is derived for this alone."""
    key = salted_hmac("config.way_back", "cookie", algorithm="sha256").digest()
    return Fernet(base64.urlsafe_b64encode(key))


class WayBackMiddleware(MiddlewareMixin):
    """Move each way to an invite out of `next` into the cookie, before anything repeats it.

    It stands around whatever redirects by `next` or reads it: Django's and allauth's pages, admin,
    and the invite's own page for somebody who is signed out.
    """

    def process_request(self, request: HttpRequest) -> HttpResponse | None:
        take_over(request)
        rest, token = take_out(request.GET)
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
        """Keep the way back while an invite is open to somebody who signs in, and no longer."""
        came_for = token_of(request)
        token = ""
        if location := response.get("Location", ""):
            parts = urlsplit(location)
            rest, token = take_out(QueryDict(parts.query))
            if token:
                response["Location"] = urlunsplit(parts._replace(query=rest.urlencode(safe="/")))
        if is_invite_page(request):
            here: str = request.resolver_match.kwargs["token"]  # type: ignore[union-attr]
            if may_come_back(request, response):
                token = here
            elif not token and came_for == here and response.status_code in IT_IS_OVER:
                response.delete_cookie(settings.WAY_BACK_COOKIE_NAME, samesite="Lax")
        elif not token and getattr(request, "way_back_is_new", False):
            token = came_for
        if token:
            keep(response, token)
        return response

    def process_view(
        self, request: HttpRequest, view: Callable[..., Any], _args: object, _kwargs: object
    ) -> None:
        """Take it out of a form, too. Where Django checks no CSRF token, there are no forms."""
        if request.method != "POST" or getattr(view, "csrf_exempt", False):
            return
        try:
            rest, token = take_out(request.POST)
        except UnreadablePostError:
            return  # the check of CSRF answers that
        if token:
            request.POST = rest  # type: ignore[assignment]
            request.way_back, request.way_back_is_new = token, True  # type: ignore[attr-defined]


def take_over(request: HttpRequest) -> None:
    """Read the cookie, and leave nothing of it to others: allauth puts whole requests into sessions."""
    name = settings.WAY_BACK_COOKIE_NAME
    if sealed := request.COOKIES.pop(name, ""):
        request.way_back = unsealed(sealed)  # type: ignore[attr-defined]
        pairs = request.META["HTTP_COOKIE"].split(";")
        request.META["HTTP_COOKIE"] = ";".join(
            pair for pair in pairs if pair.partition("=")[0].strip() != name
        )
    if token_in(referer := request.META.get("HTTP_REFERER", "")):
        # Our pages tell browsers to send the origin alone, which is all that Django needs.
        request.META["HTTP_REFERER"] = urljoin(referer, "/")


def may_come_back(request: HttpRequest, response: HttpResponse) -> bool:
    """Tell whether an invite's page offers to go on as somebody else, as whom one would come back."""
    if response.status_code == HTTPStatus.CONFLICT:
        return True
    return response.status_code == HTTPStatus.OK and request.method in SAFE
