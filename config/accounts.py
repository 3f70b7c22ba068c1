"""Accounts: look people up by address, rights and session; their user names are meaningless."""

import uuid
from typing import Any, NamedTuple

from allauth.account.auth_backends import AuthenticationBackend
from allauth.account.models import EmailAddress
from allauth.headless.internal import sessionkit
from allauth.headless.tokens.strategies.sessions import SessionTokenStrategy
from django.conf import settings
from django.contrib.auth.models import AbstractUser, AnonymousUser, Group, Permission, User
from django.contrib.sessions.backends.base import SessionBase
from django.db.models import F, Q, QuerySet

from config.sessions import keep_through_rotation
from zammad.statements import statement


def opaque_username() -> str:
    """Return a random value for Django's user name, which nobody sees or signs in with."""
    return uuid.uuid4().hex


def has_account(address: str) -> bool:
    in_use = User.objects.filter(email__iexact=address).exists()
    return in_use or EmailAddress.objects.filter(email=address).exists()


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
    """Sign in by address as allauth does, and fetch a person's rights in one query instead of two."""

    def get_all_permissions(self, user_obj: AbstractUser | AnonymousUser, obj: Any = None) -> set[str]:
        cache = vars(user_obj)  # Django's own cache of rights
        if "_perm_cache" not in cache and obj is None and user_obj.is_active and not user_obj.is_superuser:
            rights = rights_of(user_id=user_obj.pk)
            cache["_perm_cache"] = {f"{right.app_label}.{right.codename}" for right in rights}
        permissions: set[str] = super().get_all_permissions(user_obj, obj)
        return permissions


class SessionTokens(SessionTokenStrategy):  # type: ignore[misc]
    """Look a session up in one query: allauth first checks whether it exists."""

    def lookup_session(self, session_token: str) -> SessionBase | None:
        session: SessionBase | None = sessionkit.lookup_session(session_token)
        if session is not None and settings.SECRET_KEY_FALLBACKS:
            keep_through_rotation(session)
        return session
