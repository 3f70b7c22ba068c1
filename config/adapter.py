"""How our accounts differ from allauth's defaults: addresses, passwords, reauthentication and mails."""

from __future__ import annotations

from copy import copy
from typing import Any

from allauth.account.adapter import DefaultAccountAdapter
from allauth.account.authentication import get_authentication_records
from allauth.account.internal.flows.login import record_authentication
from allauth.account.internal.flows.reauthentication import raise_if_reauthentication_required
from allauth.core import context as current
from django.conf import settings
from django.contrib.auth.models import AbstractBaseUser, AbstractUser, AnonymousUser, User
from django.core.mail import EmailMessage
from django.http import HttpRequest
from django.urls import reverse
from django.utils.translation import gettext_lazy as _

from config import way_back
from config.account_mail import NEVER_SENT, MailUnavailable, our_site, post, send
from config.accounts import opaque_username
from config.attempts import WrongPasswords, forget_wrong_passwords, retry_in
from config.devices import remember_device
from config.models import Session
from config.reauthentication import APP, BY_CODE, get_reauthentication_flows, signed_in_just_now
from config.sessions import remember_client
from plans.links import without_links
from plans.models import display_name
from zammad.addresses import validated_address


class AccountAdapter(DefaultAccountAdapter):
    wrong_passwords: WrongPasswords | None = None

    # --- Email addresses and URLs -------------------------------------------------------------------

    def populate_username(self, request: HttpRequest, user: AbstractUser) -> None:
        user.username = opaque_username()

    def clean_email(self, email: str) -> str:
        """Accept the same addresses as invites do, on pages and in the API."""
        validated_address(email)
        return email

    def get_login_redirect_url(self, request: HttpRequest) -> str:
        return way_back.path_of(request) or super().get_login_redirect_url(request)

    def get_signup_redirect_url(self, request: HttpRequest) -> str:
        return way_back.path_of(request) or super().get_signup_redirect_url(request)

    def is_safe_url(self, url: str) -> bool:
        try:
            return super().is_safe_url(url)
        except ValueError:  # invalid, such as http://[
            return False

    # --- Passwords: wrong ones count once they are known to be wrong --------------------------------

    def pre_authenticate(self, request: HttpRequest, **credentials: Any) -> None:
        if self.wrong_passwords is None:
            self.wrong_passwords = WrongPasswords.of(request, credentials.get("email", "").lower())
        self._refuse_after_too_many(request)

    def authenticate(self, request: HttpRequest, **credentials: Any) -> AbstractBaseUser | None:
        """:raises ValidationError: after too many wrong passwords."""
        user: AbstractBaseUser | None = super().authenticate(request, **credentials)
        if user is not None:
            # Among concurrent guesses, a right one counts only if the wrong ones have not reached the limit.
            self._refuse_after_too_many(request)
        return user

    def authentication_failed(self, request: HttpRequest, **_credentials: Any) -> None:
        if self.wrong_passwords is not None and not self.wrong_passwords.count():
            self._refuse_after_too_many(request)

    def _refuse_after_too_many(self, request: HttpRequest) -> None:
        if self.wrong_passwords is not None and (seconds := self.wrong_passwords.wait()):
            retry_in(request, seconds)
            raise self.validation_error("too_many_login_attempts")

    def login(self, request: HttpRequest, user: User) -> None:
        super().login(request, user)
        remember_device(request, user)
        remember_client(request)
        if not get_authentication_records(request, user):
            # The person has just signed up with a mailed code.
            record_authentication(request, user, "code", email=user.email)

    def set_password(self, user: User, password: str) -> None:
        """Set a password, and end all sessions but the one in which it is set.

        :raises ReauthenticationRequired: if it is the first password, and the sign-in is not recent.
        """
        is_own = self.request.user.is_authenticated and self.request.user.pk == user.pk
        if is_own and not user.has_usable_password():
            raise_if_reauthentication_required(self.request, app=APP)
        super().set_password(user, password)
        forget_wrong_passwords(user)
        others = Session.objects.filter(user=user)
        if is_own:
            remember_device(self.request, user)  # the former token is no longer valid
            others = others.exclude(pk=self.request.session.session_key)
        others.delete()

    # --- Reauthentication ---------------------------------------------------------------------------

    def is_reauthentication_required(self, *, app: str, **kwargs: Any) -> bool:
        required: bool = super().is_reauthentication_required(app=app, **kwargs)
        return required and not signed_in_just_now(self.request)

    def get_reauthentication_methods(self, user: User | AnonymousUser) -> list[dict[str, Any]]:
        methods: list[dict[str, Any]] = super().get_reauthentication_methods(user)
        if {"id": BY_CODE} in get_reauthentication_flows(user):
            url = reverse("account_reauthenticate_by_code")
            methods.append({"id": BY_CODE, "description": _("Use a code sent by email"), "url": url})
        return methods

    def reauthenticate(self, user: AbstractBaseUser, password: str) -> bool:
        self.wrong_passwords = WrongPasswords.of_signed_in(user)
        return super().reauthenticate(user, password)

    # --- Mails --------------------------------------------------------------------------------------

    def render_mail(
        self,
        template_prefix: str,
        email: str | list[str],
        context: dict[str, Any],
        headers: dict[str, str] | None = None,
    ) -> EmailMessage:
        """Render a mail with no links but ours: names, addresses and User-Agents may contain others."""
        harmless = {name: _without_links(name, value) for name, value in context.items()}
        return super().render_mail(template_prefix, email, harmless, headers)

    def send_mail(self, template_prefix: str, email: str, context: dict[str, Any]) -> None:
        """:raises MailUnavailable: if a code for a signed-in person could not be sent."""
        request = current.request
        views = {"signup_url": "account_signup", "password_reset_url": "account_reset_password"}
        links = {name: settings.PUBLIC_URL + reverse(view) for name, view in views.items()}
        values = {"request": request, "email": email, **context, **links, "current_site": our_site()}
        message = self.render_mail(template_prefix, email, values)
        if template_prefix == NEVER_SENT or getattr(request, "withholds_mail", False):
            return
        if not ("code" in context and request.user.is_authenticated):
            post(message)
        elif not send(message):
            raise MailUnavailable


def _without_links(name: str, value: object) -> object:
    """Return a value without links, except for our own, which are named *_url."""
    if isinstance(value, User):
        person = copy(value)
        person.first_name, person.last_name = without_links(display_name(value)), ""
        person.email = without_links(value.email)
        return person
    if isinstance(value, str) and not name.endswith("_url"):
        return without_links(value)
    return value
