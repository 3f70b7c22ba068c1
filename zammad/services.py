"""What Zammad's data changes here: apply a delivery, import users."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Any, Final

from allauth.account.models import EmailAddress
from django.db import reset_queries, transaction
from django.db.models import QuerySet
from django.utils.translation import gettext_noop

from zammad.addresses import spellings
from zammad.client import (
    FOUND_PER_PAGE,
    PASSING_STATUSES,
    Unit,
    ZammadClient,
    ZammadError,
    ZammadRefused,
    ZammadUnreadable,
)
from zammad.linking import again_after_deadlock, settle_links
from zammad.models import LinkChange, RefusedDelivery, WebhookDelivery, ZammadUser
from zammad.transactions import transaction_required
from zammad.webhooks import Delivery, Unusable, UserData, parse_user

DELETED_AT_ONCE = 1000
# Zammad users whose links are settled in one transaction: each address takes a lock.
SETTLED_AT_ONCE = 100
# What the search counts in, the largest first.
UNITS: Final[dict[Unit, timedelta]] = {
    "day": timedelta(days=1),
    "hour": timedelta(hours=1),
    "minute": timedelta(minutes=1),
}
# How far Zammad's clock may be from ours.
CLOCK_SKEW = timedelta(minutes=5)


class UsersNotListed(ZammadError):
    """The token shows only its own record: a pull would look complete and be empty."""

    def __init__(self) -> None:
        super().__init__("The token may not list users: it needs ticket.agent or admin.user.")


class SearchUnusable(ZammadError):
    """The search for changed users cannot be trusted, so only the whole import helps."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"{problem} Run the whole import instead, without --changed-within.")


class Stored(Enum):
    """What became of one version of a user, by the name it has in a summary."""

    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"  # newer, but nothing that is kept here differs
    STALE = "stale"  # a version as new was stored already


OUTCOMES = {
    Stored.CREATED: (WebhookDelivery.Outcome.APPLIED, ""),
    Stored.UPDATED: (WebhookDelivery.Outcome.APPLIED, ""),
    Stored.UNCHANGED: (
        WebhookDelivery.Outcome.UNCHANGED,
        gettext_noop("nothing that is kept here has changed"),
    ),
    Stored.STALE: (WebhookDelivery.Outcome.STALE, gettext_noop("as new a version is stored")),
}


def apply_delivery(*, delivery: Delivery, now: datetime) -> WebhookDelivery:
    """Take in a delivery, and write its receipt with its effect.

    Repeated, reordered and replayed deliveries change nothing but their receipts: only
    `updated_at` decides, for the delivery id is not signed, and a retry is rendered anew.

    Return what became of this body; the receipt may go on to tell that an earlier one was applied.
    """
    answer = WebhookDelivery(
        delivery_id=delivery.delivery_id,
        trigger=delivery.trigger,
        body_digest=delivery.body_digest,
        received_at=now,
        last_received_at=now,
    )
    if delivery.customer is None:
        answer.outcome, answer.detail = WebhookDelivery.Outcome.IGNORED, delivery.problem
        answer.pk = WebhookDelivery.objects.record(answer).pk
        return answer

    # Locks in this order everywhere: the Zammad user, then the receipt.
    with transaction.atomic(durable=True):
        [(zammad_user, address_before, stored)] = store_users([delivery.customer], now=now)
        answer.outcome, answer.detail = OUTCOMES[stored]
        answer.zammad_user = zammad_user
        receipt = WebhookDelivery.objects.record(answer)
        answer.pk = receipt.pk
    # A crash before this is repaired by the retry, which finds a version as new.
    _settle(answer, receipt, zammad_user, address_before, now=now)
    return answer


@again_after_deadlock
def _settle(
    answer: WebhookDelivery,
    receipt: WebhookDelivery,
    zammad_user: ZammadUser,
    address_before: str,
    *,
    now: datetime,
) -> None:
    """Settle what a delivery changed, and add that to its answer and its receipt."""
    with transaction.atomic(durable=True):
        changes = settle_links(
            zammad_users=[zammad_user], addresses=[address_before], delivery=answer, now=now
        )
        if changes:
            told = _told(changes, zammad_user)
            # The receipt may tell of an earlier body.
            WebhookDelivery.objects.filter(pk=receipt.pk).update(detail=_with(receipt.detail, told))
    if changes:
        answer.detail = _with(answer.detail, told)


def _with(detail: str, told: str) -> str:
    """Add to what a receipt tells, once: it may be added at every attempt."""
    return "; ".join(dict.fromkeys([*filter(None, detail.split("; ")), told]))


def _told(changes: Sequence[LinkChange], zammad_user: ZammadUser) -> str:
    """Say what happened to the link of a delivery's customer, or else to those of others."""
    change = next((each for each in changes if each.zammad_user_id == zammad_user.pk), None)
    if change is None:
        return gettext_noop("links of others changed")
    if change.to_user_id is None:
        return gettext_noop("link ended")
    return gettext_noop("linked") if change.from_user_id is None else gettext_noop("link moved")


@transaction_required
def store_users(users: Sequence[UserData], *, now: datetime) -> list[tuple[ZammadUser, str, Stored]]:
    """Store versions of users unless one as new is stored already.

    Each id stands among them once, in ascending order, as rows are locked everywhere. Return each
    user as stored, the address stored before (none for a new user) and what became of the version.
    """
    ids = [data.zammad_id for data in users]
    rows = ZammadUser.objects.select_for_update().filter(zammad_id__in=ids).order_by("zammad_id")
    before = {row.zammad_id: row for row in rows}
    judged = {data.zammad_id: judge(data, before.get(data.zammad_id)) for data in users}
    newer = [data for data in users if judged[data.zammad_id] is not Stored.STALE]
    written = {row.zammad_id: row for row in ZammadUser.objects.upsert(newer, now=now)}
    results = []
    for zammad_id, stored in judged.items():
        old, new = before.get(zammad_id), written.get(zammad_id)
        if new is None:
            # A new user may have been stored by somebody else between the two statements.
            row = old or ZammadUser.objects.get(zammad_id=zammad_id)
            results.append((row, row.email, Stored.STALE))
        else:
            results.append((new, old.email if old else "", stored))
    return results


def judge(data: UserData, stored: ZammadUser | None) -> Stored:
    """Hold a version of a user against the one that is stored."""
    if stored is None:
        return Stored.CREATED
    if data.updated_at <= stored.updated_at:
        return Stored.STALE
    same = all(
        getattr(stored, name) == value for name, value in data._asdict().items() if name != "updated_at"
    )
    return Stored.UNCHANGED if same else Stored.UPDATED


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportSummary:
    """What became of the users that were read."""

    created: int = 0
    updated: int = 0
    unchanged: int = 0
    stale: int = 0
    skipped: int = 0

    @property
    def read(self) -> int:
        return self.created + self.updated + self.unchanged + self.stale + self.skipped

    @property
    def changed(self) -> int:
        return self.created + self.updated

    def __str__(self) -> str:
        return (
            f"{self.created} created, {self.updated} updated, {self.unchanged} unchanged, "
            f"{self.stale} stale, {self.skipped} skipped"
        )


def import_users(
    *,
    client: ZammadClient,
    now: datetime,
    start_page: int = 1,
    per_page: int = 500,
    changed_within: timedelta | None = None,
    dry_run: bool = False,
    after_page: Callable[[int, ImportSummary], None] | None = None,
) -> ImportSummary:
    """Pull all users of Zammad, or those changed lately, through the guard that webhooks pass.

    Each page is stored for good before `after_page` hears its number and the summary so far:
    what was interrupted goes on at the page after. A user who is read twice counts once.

    :param changed_within: whole minutes; ask Zammad's search, for whom pages start at 1.
    :raises UsersNotListed:
    :raises SearchUnusable:
    :raises ZammadError:
    """
    if not client.can_list_users():
        raise UsersNotListed
    if changed_within is None:
        pages = client.users(per_page=per_page, start_page=start_page)
    else:
        pages = _search(client, changed_within, per_page=per_page)
    counts: Counter[str] = Counter()
    seen = set[int]()
    for number, records in enumerate(pages, start_page):
        users, skipped = _readable(records, now=now)
        if changed_within is not None and any(
            data.updated_at < now - changed_within - CLOCK_SKEW for data in users
        ):
            raise SearchUnusable("Zammad's search for users ignores when they were changed.")
        for zammad_id, stored in (_preview(users) if dry_run else _store(users, now=now)).items():
            counts[stored.value] += zammad_id not in seen
        counts["skipped"] += skipped
        if changed_within is not None:
            seen |= {data.zammad_id for data in users}
        reset_queries()  # with DEBUG on, Django keeps thousands of these long statements
        if after_page is not None:
            after_page(number, ImportSummary(**counts))
    return ImportSummary(**counts)


def _search(client: ZammadClient, window: timedelta, *, per_page: int) -> Iterator[list[object]]:
    """Ask for the users changed within a time, in the largest unit that is whole.

    :raises SearchUnusable:
    :raises ZammadError:
    """
    unit, length = next((unit, length) for unit, length in UNITS.items() if not window % length)
    try:
        yield from client.users_changed_within(window // length, unit, per_page=min(per_page, FOUND_PER_PAGE))
    except ZammadRefused as refusal:
        if refusal.status in PASSING_STATUSES:
            raise
        told = str(refusal).removesuffix(".")
        raise SearchUnusable(f"Zammad refuses the search for changed users. {told}.") from refusal
    except ZammadUnreadable as error:
        raise SearchUnusable(str(error)) from error


def _readable(records: Sequence[object], *, now: datetime) -> tuple[list[UserData], int]:
    """Read a page of users: each once, as the newest version, by ascending id; count the unusable."""
    users: dict[int, UserData] = {}
    skipped = 0
    for record in records:
        try:
            data = parse_user(record, now=now)
        except Unusable:
            skipped += 1
            continue
        if data.zammad_id not in users or data.updated_at > users[data.zammad_id].updated_at:
            users[data.zammad_id] = data
    return [users[zammad_id] for zammad_id in sorted(users)], skipped


def _preview(users: Sequence[UserData]) -> Mapping[int, Stored]:
    """Tell what would become of a page of users, by their ids in Zammad."""
    rows = ZammadUser.objects.filter(zammad_id__in=[data.zammad_id for data in users])
    known = {row.zammad_id: row for row in rows}
    return {data.zammad_id: judge(data, known.get(data.zammad_id)) for data in users}


def _store(users: Sequence[UserData], *, now: datetime) -> Mapping[int, Stored]:
    """Store a page of users, settle their links, and tell what became of each, by their ids in Zammad."""
    with transaction.atomic(durable=True):
        results = store_users(users, now=now)
    spelt = set[str]().union(*(spellings(row.email) for row, _before, _stored in results)) - {""}
    verified = set(
        EmailAddress.objects.filter(verified=True, email__in=spelt).values_list("email", flat=True)
    )
    # Besides those that changed: what no door of ours changed is noticed here.
    touched = [
        (row, before)
        for row, before, stored in results
        if stored in {Stored.CREATED, Stored.UPDATED}
        or row.user_id is not None
        or not verified.isdisjoint(spellings(row.email))
    ]
    for start in range(0, len(touched), SETTLED_AT_ONCE):
        batch = touched[start : start + SETTLED_AT_ONCE]
        settle_links(
            zammad_users=[row for row, _before in batch],
            addresses=[before for _row, before in batch],
            now=now,
        )
    return {row.zammad_id: stored for row, _before, stored in results}


def delete_deliveries(*, until: datetime) -> int:
    """Delete the receipts of deliveries that were received until then, and tell how many.

    In batches, each a transaction of its own: webhooks that arrive meanwhile wait for a moment only.
    """
    return _delete_in_batches(WebhookDelivery.objects.received_until(until).order_by("received_at"))


def delete_refusals(*, until: datetime) -> int:
    """Delete what was last refused until then, in batches as well, and tell how many rows that were."""
    return _delete_in_batches(RefusedDelivery.objects.refused_until(until).order_by("hour"))


def _delete_in_batches(old: QuerySet[Any]) -> int:
    deleted = 0
    while True:
        batch: int
        batch, _ = old.model._default_manager.filter(pk__in=old.values("pk")[:DELETED_AT_ONCE]).delete()
        deleted += batch
        if batch < DELETED_AT_ONCE:
            return deleted
