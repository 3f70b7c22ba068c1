"""What settles links when people and their addresses change: receivers of the signals of their models."""

from typing import Any

from allauth.account.models import EmailAddress
from django.contrib.auth.base_user import AbstractBaseUser
from django.db.models import Model, QuerySet
from django.utils import timezone

from zammad.linking import release_person, settle_links


def remember_address(*, instance: EmailAddress, raw: bool, **_: object) -> None:
    """Remember what an address was: it may be what a link hangs on."""
    stored = None if raw or not instance.pk else EmailAddress.objects.filter(pk=instance.pk).first()
    instance.verified_before = _verified(stored)


def address_saved(*, instance: EmailAddress, raw: bool, **_: object) -> None:
    changed = _verified(instance) ^ instance.verified_before
    if changed and not raw:
        people, addresses = zip(*changed, strict=True)
        settle_links(people=people, addresses=addresses, now=timezone.now())


def address_deleted(*, instance: EmailAddress, origin: Model | QuerySet[Any], **_: object) -> None:
    # The addresses of a person who is deleted go with them: `person_left` settles that.
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
    freed: list[str] = instance.freed_addresses  # type: ignore[attr-defined]
    settle_links(addresses=freed, now=timezone.now())


def _verified(address: EmailAddress | None) -> set[tuple[int, str]]:
    return {(address.user_id, address.email)} if address and address.verified else set()
