"""The rule for changing access: rights, flags, passwords, addresses, second factors, sessions.

Superusers alone, whatever rights others were given: changing any of these is a way to become
anybody. The rights to view, and to correct a name, count as they say.
"""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import AnonymousUser, User
from django.http import HttpRequest

NAMES = ("first_name", "last_name")  # all that others than superusers change of a person


def may_change_access(actor: User | AnonymousUser) -> bool:
    """Tell whether somebody may change who gets in, and what they may do."""
    return actor.is_active and actor.is_superuser


def may_change(actor: User | AnonymousUser, person: User) -> bool:
    """Tell whether somebody may act on a person at all, given the right to change people."""
    return may_change_access(actor) or not person.is_superuser


class WrittenBySuperusers:
    """An admin page that is read by right, and written by superusers."""

    def has_add_permission(self, request: HttpRequest, *args: Any) -> bool:
        return may_change_access(request.user) and super().has_add_permission(request, *args)  # type: ignore[misc]

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return may_change_access(request.user) and super().has_change_permission(request, obj)  # type: ignore[misc]

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return may_change_access(request.user) and super().has_delete_permission(request, obj)  # type: ignore[misc]

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        # Django takes the right to change for one to view, and asks by the method above.
        rights = [f"{self.opts.app_label}.{verb}_{self.opts.model_name}" for verb in ("view", "change")]  # type: ignore[attr-defined]
        return any(request.user.has_perm(right) for right in rights)

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        actions: dict[str, Any] = super().get_actions(request)  # type: ignore[misc]
        return actions if may_change_access(request.user) else {}
