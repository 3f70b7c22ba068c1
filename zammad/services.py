"""What Zammad's data changes here: apply a delivery, import users, link them to people."""

import hashlib
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from allauth.account.models import EmailAddress
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractUser, AnonymousUser
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import IntegrityError, reset_queries, transaction
from django.utils.translation import gettext_lazy as _
from django.utils.translation import gettext_noop

from zammad.addresses import spellings
from zammad.client import ZammadClient, ZammadError
from zammad.models import WebhookDelivery, ZammadUser
from zammad.webhooks import Unusable, UserData, parse_customer, parse_user

Actor = AbstractUser | AnonymousUser

DELETED_AT_ONCE = 1000


class LinkNotPermitted(PermissionDenied):
    code = "PERMISSION_DENIED"

    def __init__(self) -> None:
        super().__init__(_("Linking Zammad users needs the right to change them."))


class LinkRefused(ValidationError):
    """A rule of linking by hand is broken."""


class ZammadUserNotFound(LinkRefused):
    def __init__(self) -> None:
        super().__init__(_("There is no such Zammad user."), code="ZAMMAD_USER_NOT_FOUND")


class PersonNotFound(LinkRefused):
    def __init__(self) -> None:
        super().__init__(_("There is no such active person."), code="USER_NOT_FOUND")


class AlreadyLinked(LinkRefused):
    def __init__(self) -> None:
        super().__init__(_("The person or the Zammad user is linked already."), code="ALREADY_LINKED")


class UsersNotListed(ZammadError):
    """The token shows only its own record: a pull would look complete and be empty."""

    def __init__(self) -> None:
        super().__init__("The token may not list users: it needs ticket.agent or admin.user.")


def apply_delivery(
    *, body: bytes, delivery_id: str | None, trigger: str | None, now: datetime
) -> WebhookDelivery:
    """Take in a delivery whose signature was verified, and write its receipt with its effect.

    Repeated, reordered and replayed deliveries change nothing but their receipts: only
    `updated_at` decides, for the delivery id is not signed, and a retry is rendered anew.
    """
    receipt = WebhookDelivery(
        delivery_id=read_delivery_id(delivery_id),
        trigger=_trigger(trigger),
        body_digest=hashlib.sha256(body).hexdigest(),
        received_at=now,
    )
    try:
        data = parse_customer(body, now=now)
    except Unusable as unusable:
        receipt.outcome = WebhookDelivery.Outcome.IGNORED
        receipt.detail = str(unusable)
        return WebhookDelivery.objects.record(receipt)

    if recorded := WebhookDelivery.objects.record_with_customer(receipt, data):
        return recorded
    # Locks in this order everywhere: the Zammad user, then the receipt.
    with transaction.atomic():
        taken = ZammadUser.objects.upsert(data, now=now)
        zammad_user = taken or ZammadUser.objects.select_for_update().get(zammad_id=data.zammad_id)
        linked = link_zammad_user(zammad_user=zammad_user)
        receipt.zammad_user = zammad_user
        if taken:
            receipt.outcome = WebhookDelivery.Outcome.APPLIED
            receipt.detail = gettext_noop("linked") if linked else ""
        else:
            receipt.outcome = WebhookDelivery.Outcome.STALE
            receipt.detail = (
                gettext_noop("as new a version is stored, now linked")
                if linked
                else WebhookDelivery.AS_NEW_IS_STORED
            )
        return WebhookDelivery.objects.record(receipt)


def link_zammad_user(*, zammad_user: ZammadUser) -> bool:
    """Link to the one active person who has verified the stored address, or leave it waiting.

    A link once made is never moved, nor is one that staff removed made again.
    """
    if zammad_user.user_id is not None or not zammad_user.auto_link or not zammad_user.email:
        return False
    people = list(
        EmailAddress.objects.filter(
            email__in=spellings(zammad_user.email), verified=True, user__is_active=True
        )
        .order_by()
        .values_list("user_id", "user__zammad_user")
        .distinct()[:2]  # one person may have verified both spellings
    )
    if len(people) != 1:
        return False
    [(user_id, other_link)] = people
    if other_link is not None:
        return False
    still_waiting = ZammadUser.objects.waiting_for([zammad_user.email]).filter(pk=zammad_user.pk)
    try:
        with transaction.atomic():
            return still_waiting.update(user_id=user_id) == 1
    except IntegrityError:
        # The same person was linked to another Zammad user at this moment.
        return False


def link_waiting_user(*, user: AbstractUser) -> None:
    """Link a person who verified an address, or accepted an invite, to who waits for them."""
    addresses = EmailAddress.objects.filter(user=user, verified=True).values_list("email", flat=True)
    for zammad_user in ZammadUser.objects.waiting_for(addresses).order_by("zammad_id"):
        link_zammad_user(zammad_user=zammad_user)


def link_by_hand(*, actor: Actor, zammad_user_id: int, user_id: int) -> ZammadUser:
    """Link a Zammad user to a person of staff's choice; both ids are primary keys.

    :raises LinkNotPermitted:
    :raises ZammadUserNotFound:
    :raises PersonNotFound:
    :raises AlreadyLinked:
    """
    _check_may_link(actor)
    with transaction.atomic():
        zammad_user = _locked(zammad_user_id)
        # Only AbstractBaseUser is promised of a project's own user model.
        person = get_user_model()._default_manager.filter(pk=user_id).first()
        if person is None or not person.is_active:
            raise PersonNotFound
        if zammad_user.user_id is not None:
            raise AlreadyLinked
        zammad_user.user_id = person.pk
        try:
            with transaction.atomic():
                zammad_user.save(update_fields=["user"])
        except IntegrityError as error:
            raise AlreadyLinked from error
        return zammad_user


def unlink(*, actor: Actor, zammad_user_id: int) -> ZammadUser:
    """Remove a link for good: an equal address will not bring it back by itself.

    :raises LinkNotPermitted:
    :raises ZammadUserNotFound:
    """
    _check_may_link(actor)
    with transaction.atomic():
        zammad_user = _locked(zammad_user_id)
        zammad_user.user = None
        zammad_user.auto_link = False
        zammad_user.save(update_fields=["user", "auto_link"])
        return zammad_user


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportSummary:
    """What became of the users that were read."""

    created: int = 0
    updated: int = 0
    stale: int = 0
    skipped: int = 0

    @property
    def read(self) -> int:
        return self.created + self.updated + self.stale + self.skipped

    def __str__(self) -> str:
        return (
            f"{self.created} created, {self.updated} updated, {self.stale} already known, "
            f"{self.skipped} skipped"
        )


def import_users(
    *,
    client: ZammadClient,
    now: datetime,
    start_page: int = 1,
    per_page: int = 500,
    dry_run: bool = False,
    after_page: Callable[[int, ImportSummary], None] | None = None,
) -> ImportSummary:
    """Pull all users of Zammad, page by page, with the guard that webhooks pass.

    Each page is stored for good before `after_page` hears its number and the summary so far:
    what was interrupted goes on at the page after.

    :raises UsersNotListed:
    :raises ZammadError:
    """
    if not client.can_list_users():
        raise UsersNotListed
    summary = ImportSummary()
    for number, records in enumerate(client.users(per_page=per_page, start_page=start_page), start_page):
        # By id, so that two imports at once take their locks in the same order; each id once, as
        # its newest version.
        users: dict[int, UserData] = {}
        usable = 0
        for record in records:
            try:
                data = parse_user(record, now=now)
            except Unusable:
                continue
            usable += 1
            if data.zammad_id not in users or data.updated_at > users[data.zammad_id].updated_at:
                users[data.zammad_id] = data
        page = [users[zammad_id] for zammad_id in sorted(users)]
        created, taken = _count(page) if dry_run else _store(page, now=now)
        summary = replace(
            summary,
            created=summary.created + created,
            updated=summary.updated + taken - created,
            stale=summary.stale + usable - taken,
            skipped=summary.skipped + len(records) - usable,
        )
        reset_queries()  # with DEBUG on, Django keeps thousands of these long statements
        if after_page is not None:
            after_page(number, summary)
    return summary


def _count(users: list[UserData]) -> tuple[int, int]:
    """Tell how many users are new, and how many storing them would write."""
    known = dict(
        ZammadUser.objects.filter(zammad_id__in=[data.zammad_id for data in users]).values_list(
            "zammad_id", "updated_at"
        )
    )
    new = [data for data in users if data.zammad_id not in known]
    newer = [data for data in users if data.zammad_id in known and data.updated_at > known[data.zammad_id]]
    return len(new), len(new) + len(newer)


def _store(users: list[UserData], *, now: datetime) -> tuple[int, int]:
    """Store a page of users, and tell how many are new and how many were written."""
    new, _ = _count(users)
    taken = len(ZammadUser.objects.upsert_all(users, now=now))
    # Links come after, each in a transaction of its own: one that waits for a person's link while
    # it holds a page of users could meet a webhook that waits for one of these.
    spelt = set[str]().union(*(spellings(data.email) for data in users))
    verified = EmailAddress.objects.filter(verified=True, email__in=spelt).values_list("email", flat=True)
    for zammad_user in ZammadUser.objects.waiting_for(verified):
        link_zammad_user(zammad_user=zammad_user)
    return new, taken


def delete_deliveries(*, until: datetime) -> int:
    """Delete the receipts of deliveries that were received until then, and tell how many.

    In batches, each a transaction of its own: webhooks that arrive meanwhile wait for a moment only.
    """
    old = WebhookDelivery.objects.received_until(until).order_by("received_at")
    deleted = 0
    while True:
        batch, _ = WebhookDelivery.objects.filter(pk__in=old.values("pk")[:DELETED_AT_ONCE]).delete()
        deleted += batch
        if batch < DELETED_AT_ONCE:
            return deleted


def _check_may_link(actor: Actor) -> None:
    if not actor.has_perm("zammad.change_zammaduser"):
        raise LinkNotPermitted


def _locked(zammad_user_id: int) -> ZammadUser:
    try:
        return ZammadUser.objects.select_for_update().get(pk=zammad_user_id)
    except ZammadUser.DoesNotExist as error:
        raise ZammadUserNotFound from error


def read_delivery_id(header: str | None) -> uuid.UUID | None:
    """Read a delivery id as Zammad writes it; anything else is none."""
    try:
        delivery_id = uuid.UUID(header or "")
    except ValueError:
        return None
    return delivery_id if str(delivery_id) == header else None


def _trigger(header: str | None) -> str:
    """Read a trigger's name: raw UTF-8 from Zammad, which WSGI shows as latin-1."""
    name = (header or "").encode("latin-1", "replace").decode("utf-8", "replace")
    return "".join(char for char in name if char.isprintable())[:250]
