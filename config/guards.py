"""What guards the doors of accounts, as allauth asks for it: wrong passwords, devices, mails."""

from __future__ import annotations

from typing import Any

from allauth.account.adapter import DefaultAccountAdapter
from allauth.core import context as current
from django.contrib.auth.models import AbstractBaseUser, User
from django.http import HttpRequest

from config.account_mail import NEVER_SENT, hand_over, post
from config.attempts import WrongPasswords, come_back, forget_wrong_passwords
from config.devices import remember_device


class GuardedAdapter(DefaultAccountAdapter):  # type: ignore[misc]  # allauth has no types
    """Count wrong passwords once they are known as wrong, and mail without telling who has an account."""

    wrong_passwords: WrongPasswords | None = None

    def reauthenticate(self, user: AbstractBaseUser, password: str) -> bool:
        self.wrong_passwords = WrongPasswords.of_signed_in(user)
        right: bool = super().reauthenticate(user, password)
        return right

    def authenticate(self, request: HttpRequest, **credentials: Any) -> AbstractBaseUser | None:
        """:raises ValidationError: after too many wrong passwords."""
        user: AbstractBaseUser | None = super().authenticate(request, **credentials)
        if user is not None:
            # Guesses at the same moment are looked at one after the other: a right one among them counts
            # only before too many wrong ones.
            self._refuse_after_too_many(request)
        return user

    def pre_authenticate(self, request: HttpRequest, **credentials: Any) -> None:
        if self.wrong_passwords is None:
            self.wrong_passwords = WrongPasswords.of(request, credentials.get("email", "").lower())
        self._refuse_after_too_many(request)

    def authentication_failed(self, request: HttpRequest, **_credentials: Any) -> None:
        if self.wrong_passwords is not None and not self.wrong_passwords.count():
            self._refuse_after_too_many(request)

    def _refuse_after_too_many(self, request: HttpRequest) -> None:
        if self.wrong_passwords is not None and (seconds := self.wrong_passwords.wait()):
            come_back(request, seconds)
            raise self.validation_error("too_many_login_attempts")

    def is_safe_url(self, url: str) -> bool:
        try:
            safe: bool = super().is_safe_url(url)
        except ValueError:  # it is no URL, such as http://[
            return False
        return safe

    def set_password(self, user: User, password: str) -> None:
        super().set_password(user, password)
        forget_wrong_passwords(user)
        if current.request.user == user:
            remember_device(current.request, user)  # the token of before has ended

    def login(self, request: HttpRequest, user: User) -> None:
        super().login(request, user)
        remember_device(request, user)

    def send_mail(self, template_prefix: str, email: str, context: dict[str, Any]) -> None:
        """:raises MailUnavailable: for a signed-in person, who is told."""
        request = current.request
        message = self.render_mail(template_prefix, email, {"request": request, "email": email, **context})
        if template_prefix == NEVER_SENT or getattr(request, "withholds_mail", False):
            return
        if "code" in context and request.user.is_authenticated:
            hand_over(message)
        else:
            post(message)
