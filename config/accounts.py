"""How accounts are made, looked up and written to: by address, under a user name that nobody sees."""

import uuid
from copy import copy
from typing import Any, NamedTuple

from allauth.account.auth_backends import AuthenticationBackend
from allauth.headless.internal import sessionkit
from allauth.headless.tokens.strategies.sessions import SessionTokenStrategy
from django.conf import settings
from django.contrib.auth.models import AbstractUser, AnonymousUser, Group, Permission, User
from django.contrib.sessions.backends.base import SessionBase
from django.core.mail import EmailMessage
from django.db.models import F, Q, QuerySet
from django.http import HttpRequest
from django.urls import reverse

from config import way_back
from config.notices import our_site
from config.reauthentication import AsksAgain
from config.sessions import keep_through_rotation
from plans.links import without_links
from plans.models import display_name
from zammad.addresses import validated_address
from zammad.statements import statement


def opaque_username() -> str:
    """Return what fills Django's user name: nobody signs in with it, and it says nothing."""
    return uuid.uuid4().hex


class AccountAdapter(AsksAgain):
    """Keep addresses out of user names, and the host of a request out of mails."""

    def populate_username(self, request: HttpRequest, user: AbstractUser) -> None:
        user.username = opaque_username()

    def get_login_redirect_url(self, request: HttpRequest) -> str:
        return way_back.path_of(request) or super().get_login_redirect_url(request)

    def get_signup_redirect_url(self, request: HttpRequest) -> str:
        return way_back.path_of(request) or super().get_signup_redirect_url(request)

    def clean_email(self, email: str) -> str:
        """Take the addresses that an invite could be for, and no others, on pages and by API alike."""
        validated_address(email)
        return email

    def render_mail(
        self,
        template_prefix: str,
        email: str | list[str],
        context: dict[str, Any],
        headers: dict[str, str] | None = None,
    ) -> EmailMessage:
        """Write a mail in which nothing is a link but ours: people choose names, addresses and browsers."""
        harmless = {name: _without_links(name, value) for name, value in context.items()}
        message: EmailMessage = super().render_mail(template_prefix, email, harmless, headers)
        return message

    def send_mail(self, template_prefix: str, email: str, context: dict[str, Any]) -> None:
        links = {"signup_url": "account_signup", "password_reset_url": "account_reset_password"}
        ours = {name: settings.PUBLIC_URL + reverse(view) for name, view in links.items()}
        super().send_mail(template_prefix, email, {**context, **ours, "current_site": our_site()})


def _without_links(name: str, value: object) -> object:
    """Return what a template may show of a value: the links of a mail are named *_url."""
    if isinstance(value, User):
        written = copy(value)
        written.first_name, written.last_name = without_links(display_name(value)), ""
        written.email = without_links(value.email)
        return written
    if isinstance(value, str) and not name.endswith("_url"):
        return without_links(value)
    return value


class Right(NamedTuple):
    app_label: str
    codename: str


@statement(Right)
def rights_of(*, user_id: int) -> QuerySet[Any]:
    """Fetch a person's rights, their own and those of their groups."""
    own = User.user_permissions.through.objects.filter(user=user_id)
    of_groups = Group.permissions.through.objects.filter(group__user=user_id)
    rights = Permission.objects.filter(
        Q(pk__in=own.values("permission")) | Q(pk__in=of_groups.values("permission"))
    )
    return rights.annotate(app_label=F("content_type__app_label")).order_by()


class AccountBackend(AuthenticationBackend):  # type: ignore[misc]  # allauth has no types
    """Sign in by address as allauth does, and learn a person's rights in one query instead of two."""

    def get_all_permissions(self, user_obj: AbstractUser | AnonymousUser, obj: Any = None) -> set[str]:
        kept = vars(user_obj)  # Django keeps them there, too, as long as the request
        if "_perm_cache" not in kept and obj is None and user_obj.is_active and not user_obj.is_superuser:
            rights = rights_of(user_id=user_obj.pk)
            kept["_perm_cache"] = {f"{right.app_label}.{right.codename}" for right in rights}
        found: set[str] = super().get_all_permissions(user_obj, obj)
        return found


class SessionTokens(SessionTokenStrategy):  # type: ignore[misc]
    """Look a session up in one query: allauth's own way asks first whether there is one."""

    def lookup_session(self, session_token: str) -> SessionBase | None:
        session: SessionBase | None = sessionkit.lookup_session(session_token)
        if session is not None and settings.SECRET_KEY_FALLBACKS:
            keep_through_rotation(session)
        return session
