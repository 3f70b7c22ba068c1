"""Cookies: how ours are set, Django's messages, and sessions from the previous version."""

from collections.abc import Callable

from django.conf import settings
from django.contrib.messages.storage.cookie import CookieStorage
from django.contrib.messages.storage.fallback import FallbackStorage
from django.contrib.messages.storage.session import SessionStorage
from django.http import HttpRequest, HttpResponse

from config.models import Session

FORMER_SESSION_COOKIE = "sessionid"


def set_cookie(response: HttpResponse, name: str, value: str, *, max_age: int) -> None:
    """Set a cookie that scripts cannot read and that forms on other sites do not send."""
    response.set_cookie(
        name, value, max_age=max_age, secure=settings.SESSION_COOKIE_SECURE, httponly=True, samesite="Lax"
    )


class MessageCookie(CookieStorage):
    cookie_name = settings.MESSAGES_COOKIE_NAME


class Messages(FallbackStorage):
    """Keep messages in a cookie, and in the session if they do not fit, as Django does by default."""

    storage_classes = (MessageCookie, SessionStorage)


class FormerSessionCookieMiddleware:
    """Accept the former session cookie for sessions that a migration carried over, and replace it.

    Another host of the domain can set the former cookie, so newer sessions are not accepted in it.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        key = request.COOKIES.get(FORMER_SESSION_COOKIE)
        if not key or settings.SESSION_COOKIE_NAME in request.COOKIES or not is_carried_over(key):
            return self.get_response(request)
        request.COOKIES[settings.SESSION_COOKIE_NAME] = key
        response = self.get_response(request)
        if settings.SESSION_COOKIE_NAME not in response.cookies:
            set_cookie(response, settings.SESSION_COOKIE_NAME, key, max_age=request.session.get_expiry_age())
        response.delete_cookie(FORMER_SESSION_COOKIE)
        return response


def is_carried_over(key: str) -> bool:
    return key.isascii() and key.isalnum() and Session.objects.filter(pk=key, was_carried_over=True).exists()
