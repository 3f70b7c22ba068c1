"""How accounts are made and written to: by address, under a user name that nobody sees."""

import uuid
from types import SimpleNamespace
from typing import Any

from allauth.account.adapter import DefaultAccountAdapter
from django.conf import settings
from django.contrib.auth.models import AbstractUser
from django.http import HttpRequest
from django.urls import reverse


def opaque_username() -> str:
    """Return what fills Django's user name: nobody signs in with it, and it says nothing."""
    return uuid.uuid4().hex


class AccountAdapter(DefaultAccountAdapter):  # type: ignore[misc]  # allauth has no types
    """Keep addresses out of user names, and the host of a request out of mails."""

    def populate_username(self, request: HttpRequest, user: AbstractUser) -> None:
        user.username = opaque_username()

    def send_mail(self, template_prefix: str, email: str, context: dict[str, Any]) -> None:
        links = {"signup_url": "account_signup", "password_reset_url": "account_reset_password"}
        ours = {name: settings.PUBLIC_URL + reverse(view) for name, view in links.items()}
        # Whoever asks chooses the Host header, and allauth would put it into the mail.
        site = SimpleNamespace(name="Family Plans", domain=settings.PUBLIC_URL)
        super().send_mail(template_prefix, email, {**context, **ours, "current_site": site})
