"""The rule for changing access: rights, flags, passwords, addresses, second factors, sessions.

Only superusers may, whatever rights others have, because each of these is a way to become anyone.
Rights to view, and to correct a name, work as usual.
"""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import AnonymousUser, User
from django.http import HttpRequest

NAMES = ("first_name", "last_name")  # the only fields of a person that others may change


def may_change_access(actor: User | AnonymousUser) -> bool:
    return actor.is_active and actor.is_superuser


def may_change(actor: User | AnonymousUser, person: User) -> bool:
    """Return whether an actor with the right to change people may change this person at all."""
    return may_change_access(actor) or not person.is_superuser


class WrittenBySuperusers:
    """An admin page that needs the usual right to view, and a superuser to change."""

    def has_add_permission(self, request: HttpRequest, *args: Any) -> bool:
        return may_change_access(request.user) and super().has_add_permission(request, *args)  # type: ignore[misc]

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return may_change_access(request.user) and super().has_change_permission(request, obj)  # type: ignore[misc]

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return may_change_access(request.user) and super().has_delete_permission(request, obj)  # type: ignore[misc]

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        # In Django, the right to change implies that to view, but the method above would be asked.
        rights = [f"{self.opts.app_label}.{verb}_{self.opts.model_name}" for verb in ("view", "change")]  # type: ignore[attr-defined]
        return any(request.user.has_perm(right) for right in rights)

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        actions: dict[str, Any] = super().get_actions(request)  # type: ignore[misc]
        return actions if may_change_access(request.user) else {}
