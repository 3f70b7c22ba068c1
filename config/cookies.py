"""Cookies: how ours are set, Django's messages, and the sign-ins of the version before."""

from collections.abc import Callable

from django.conf import settings
from django.contrib.messages.storage.cookie import CookieStorage
from django.contrib.messages.storage.fallback import FallbackStorage
from django.contrib.messages.storage.session import SessionStorage
from django.http import HttpRequest, HttpResponse

from config.models import Session

FORMER_SESSION_COOKIE = "sessionid"


def set_cookie(response: HttpResponse, name: str, value: str, *, max_age: int) -> None:
    """Set a cookie that no script reads, and that no other site sends along with a form."""
    response.set_cookie(
        name, value, max_age=max_age, secure=settings.SESSION_COOKIE_SECURE, httponly=True, samesite="Lax"
    )


class MessageCookie(CookieStorage):
    cookie_name = settings.MESSAGES_COOKIE_NAME


class Messages(FallbackStorage):
    """Keep messages in the cookie, and in the session what does not fit, as Django does by itself."""

    storage_classes = (MessageCookie, SessionStorage)


class FormerSessionCookieMiddleware:
    """Take a session that was carried over in the cookie it was begun with, and give it ours.

    Another host of the domain can plant that cookie: no session that was begun since counts there.
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
