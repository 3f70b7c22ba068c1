"""Signal receivers that settle links when people or their addresses change."""

from typing import Any

from allauth.account.models import EmailAddress
from django.contrib.auth.base_user import AbstractBaseUser
from django.db.models import Model, QuerySet
from django.utils import timezone

from zammad.linking import release_person, settle_links


def remember_address(*, instance: EmailAddress, raw: bool, **_: object) -> None:
    """Remember the stored address: a link may depend on it."""
    stored = None if raw or not instance.pk else EmailAddress.objects.filter(pk=instance.pk).first()
    instance.verified_before = _verified(stored)


def address_saved(*, instance: EmailAddress, raw: bool, **_: object) -> None:
    changed = _verified(instance) ^ instance.verified_before
    if changed and not raw:
        people, addresses = zip(*changed, strict=True)
        settle_links(people=people, addresses=addresses, now=timezone.now())


def address_deleted(*, instance: EmailAddress, origin: Model | QuerySet[Any], **_: object) -> None:
    # `person_left` settles the addresses that are deleted with their person.
    deleted = origin.model if isinstance(origin, QuerySet) else type(origin)
    if instance.verified and deleted is EmailAddress:
        settle_links(people=[instance.user_id], addresses=[instance.email], now=timezone.now())


def person_saved(
    *,
    instance: AbstractBaseUser,
    created: bool,
    raw: bool,
    update_fields: frozenset[str] | None,
    **_: object,
) -> None:
    if not raw and not created and (update_fields is None or "is_active" in update_fields):
        settle_links(people=[instance.pk], now=timezone.now())


def person_leaves(*, instance: AbstractBaseUser, **_: object) -> None:
    instance.freed_addresses = release_person(user_id=instance.pk, now=timezone.now())  # type: ignore[attr-defined]


def person_left(*, instance: AbstractBaseUser, **_: object) -> None:
    settle_links(addresses=instance.freed_addresses, now=timezone.now())  # type: ignore[attr-defined]


def _verified(address: EmailAddress | None) -> set[tuple[int, str]]:
    return {(address.user_id, address.email)} if address and address.verified else set()
