"""The cookie in which Django's messages travel to the next page, under the name that settings give it."""

from django.conf import settings
from django.contrib.messages.storage.cookie import CookieStorage
from django.contrib.messages.storage.fallback import FallbackStorage
from django.contrib.messages.storage.session import SessionStorage


class MessageCookie(CookieStorage):
    cookie_name = settings.MESSAGES_COOKIE_NAME


class Messages(FallbackStorage):
    """Keep messages in the cookie, and in the session what does not fit, as Django does by itself."""

    storage_classes = (MessageCookie, SessionStorage)
