"""Checks of refusals: the code is right, and nothing changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pytest
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import Model

from plans.models import FamilyPlan, FamilyPlanInvite, InvitationMail, Membership, PlanEvent
from zammad.client import ZammadClient
from zammad.models import ZammadUser


def rows() -> dict[str, list[dict[str, Any]]]:
    """Read everything that a service of plans could change."""
    models: list[type[Model]] = [
        FamilyPlan,
        Membership,
        FamilyPlanInvite,
        InvitationMail,
        PlanEvent,
        ZammadUser,
    ]
    return {model.__name__: list(model._default_manager.order_by("pk").values()) for model in models}


@contextmanager
def unchanged() -> Iterator[None]:
    before = rows()
    yield
    assert rows() == before


@contextmanager
def refused(code: str, *, field: str = "") -> Iterator[None]:
    """Check that the block is refused with a code (for a field), and leaves every row as it was."""
    with unchanged(), _told(code, field=field):
        yield


@contextmanager
def refused_when(code: str, change: Callable[[], object]) -> Iterator[None]:
    """Check that a change after Zammad's response and before the lock is noticed under the lock.

    Only the change remains.
    """
    left = []
    create_access_token = ZammadClient.create_access_token

    def answer_then_change(client: ZammadClient, **asked: Any) -> str:
        token = create_access_token(client, **asked)
        change()
        left.append(rows())
        return token

    with mock.patch.object(ZammadClient, "create_access_token", answer_then_change), _told(code):
        yield
    assert left == [rows()]


@contextmanager
def _told(code: str, *, field: str = "") -> Iterator[None]:
    with pytest.raises((ValidationError, PermissionDenied)) as refusal:
        yield
    assert reasons(refusal.value) == {(field, code)}


def reasons(refusal: Exception) -> set[tuple[str, str]]:
    """List the fields and codes of a refusal."""
    if isinstance(refusal, ValidationError) and hasattr(refusal, "error_dict"):
        return {(field, str(e.code)) for field, errors in refusal.error_dict.items() for e in errors}
    return {("", str(getattr(refusal, "code", "")))}
