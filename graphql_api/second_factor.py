"""The second factor of people with rights, if REQUIRE_MFA_FOR_STAFF demands one."""

from __future__ import annotations

from http import HTTPStatus
from types import SimpleNamespace
from typing import TYPE_CHECKING

from allauth.account.authentication import get_authentication_records
from allauth.mfa.models import Authenticator
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

if TYPE_CHECKING:
    from django.contrib.auth.models import AnonymousUser, User
    from django.contrib.sessions.backends.base import SessionBase


def has_more_rights(person: User) -> bool:
    """Return whether a person has any right that not everyone has."""
    return person.is_staff or person.is_superuser or bool(person.get_all_permissions())


def has_second_factor(person: User | AnonymousUser) -> bool:
    exists: bool = Authenticator.objects.filter(user=person.pk, type=Authenticator.Type.TOTP).exists()
    return exists


def lacks_second_factor(person: User | AnonymousUser, session: SessionBase) -> bool:
    """Return whether a person still has to set up a second factor, or use it in this session.

    Removing the second factor takes effect at once, in every session.
    """
    if not settings.REQUIRE_MFA_FOR_STAFF or not person.is_authenticated or not has_more_rights(person):
        return False
    records = get_authentication_records(SimpleNamespace(session=session), person)
    return not (any(record.get("method") == "mfa" for record in records) and has_second_factor(person))


def second_factor_page(request: HttpRequest) -> HttpResponse:
    """Refuse a page, and show where to set up or use the second factor."""
    context = {
        "has_second_factor": has_second_factor(request.user),
        "next": request.GET.get("next") or request.get_full_path(),
    }
    return render(request, "second_factor_needed.html", context, status=HTTPStatus.FORBIDDEN)
