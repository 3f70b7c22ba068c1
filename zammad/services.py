"""Store Zammad's data: apply deliveries, import users, and delete old receipts."""

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

from zammad.addresses import all_spellings, spellings
from zammad.client import (
    FOUND_PER_PAGE,
    PASSING_STATUSES,
    Unit,
    ZammadClient,
    ZammadError,
    ZammadRefused,
    ZammadUnreadable,
)
from zammad.linking import retry_after_deadlock, settle_links
from zammad.models import LinkChange, RefusedDelivery, WebhookDelivery, ZammadUser
from zammad.transactions import transaction_required
from zammad.webhooks import Delivery, Unusable, UserData, parse_user

DELETED_AT_ONCE = 1000
# Zammad users whose links are settled in one transaction: each of their addresses takes a lock.
SETTLED_AT_ONCE = 100
# The units of the search, the largest first.
UNITS: Final[dict[Unit, timedelta]] = {
    "day": timedelta(days=1),
    "hour": timedelta(hours=1),
    "minute": timedelta(minutes=1),
}
# The tolerated difference between Zammad's clock and ours.
CLOCK_SKEW = timedelta(minutes=5)
WHOLE_IMPORT: Final = "Run the whole import instead, without --changed-within."


class ImportImpossible(ZammadError):
    """Neither trying again nor another page helps; the message says what does."""


class Stored(Enum):
    """The result of storing one version of a user, by its name in a summary."""

    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"  # newer, but equal in every field stored here
    STALE = "stale"  # an equally new version was stored already


OUTCOMES = {
    Stored.CREATED: (WebhookDelivery.Outcome.APPLIED, ""),
    Stored.UPDATED: (WebhookDelivery.Outcome.APPLIED, ""),
    Stored.UNCHANGED: (
        WebhookDelivery.Outcome.UNCHANGED,
        gettext_noop("nothing stored here has changed"),
    ),
    Stored.STALE: (WebhookDelivery.Outcome.STALE, gettext_noop("an equally new version is stored")),
}


def apply_delivery(*, delivery: Delivery, now: datetime) -> WebhookDelivery:
    """Apply a delivery, and write its receipt with its effect.

    Repeated, reordered and replayed deliveries change only their receipts: `updated_at` alone
    decides, as the delivery id is not signed, and Zammad renders a retry anew.

    Return the result for this body; the stored receipt may still say that an earlier one was applied.
    """
    result = WebhookDelivery(
        delivery_id=delivery.delivery_id,
        trigger=delivery.trigger,
        body_digest=delivery.body_digest,
        received_at=now,
        last_received_at=now,
    )
    if delivery.customer is None:
        result.outcome, result.detail = WebhookDelivery.Outcome.IGNORED, delivery.problem
        result.pk = WebhookDelivery.objects.record(result).pk
        return result

    # The order of locks everywhere: the Zammad user, then the receipt.
    with transaction.atomic(durable=True):
        [(zammad_user, address_before, stored)] = store_users([delivery.customer], now=now)
        result.outcome, result.detail = OUTCOMES[stored]
        result.zammad_user = zammad_user
        receipt = WebhookDelivery.objects.record(result)
        result.pk = receipt.pk
    # After a crash here the retry settles: it finds an equally new version.
    _settle(result, receipt, zammad_user, address_before, now=now)
    return result


@retry_after_deadlock
def _settle(
    result: WebhookDelivery,
    receipt: WebhookDelivery,
    zammad_user: ZammadUser,
    address_before: str,
    *,
    now: datetime,
) -> None:
    """Settle the links that a delivery may change, and add the effect to its result and its receipt."""
    with transaction.atomic(durable=True):
        changes = settle_links(
            zammad_users=[zammad_user], addresses=[address_before], delivery=result, now=now
        )
        if not changes:
            return
        effect = _describe(changes, zammad_user)
        # The receipt may be about an earlier body.
        WebhookDelivery.objects.filter(pk=receipt.pk).update(detail=_add(receipt.detail, effect))
    result.detail = _add(result.detail, effect)


def _add(detail: str, effect: str) -> str:
    """Add an effect to the detail of a receipt, unless an earlier attempt has added it."""
    return "; ".join(dict.fromkeys([*filter(None, detail.split("; ")), effect]))


def _describe(changes: Sequence[LinkChange], zammad_user: ZammadUser) -> str:
    """Describe the change of the customer's own link, or else of the links of others."""
    change = next((each for each in changes if each.zammad_user_id == zammad_user.pk), None)
    if change is None:
        return gettext_noop("links of others changed")
    if change.to_user_id is None:
        return gettext_noop("link ended")
    return gettext_noop("linked") if change.from_user_id is None else gettext_noop("link moved")


@transaction_required
def store_users(users: Sequence[UserData], *, now: datetime) -> list[tuple[ZammadUser, str, Stored]]:
    """Store versions of users unless an equally new one is stored already.

    Each id must occur once, in ascending order, the order in which rows are locked everywhere. Return
    each user as stored, their previous address (empty for a new user) and the result.
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
            # A new user may have been stored concurrently between the two statements.
            row = old or ZammadUser.objects.get(zammad_id=zammad_id)
            results.append((row, row.email, Stored.STALE))
        else:
            results.append((new, old.email if old else "", stored))
    return results


def judge(data: UserData, stored: ZammadUser | None) -> Stored:
    """Compare a version of a user with the stored one."""
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
    """The number of users for each result."""

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
    """Import all users of Zammad, or those changed lately, by the same rules as webhooks.

    Each page is committed before `after_page` receives its number and the summary so far, so an
    interrupted import can continue at the next page. A user who is read twice counts once.

    :param changed_within: whole minutes; uses Zammad's search, whose pages start at 1.
    :raises ImportImpossible:
    :raises ZammadError:
    """
    if not client.can_list_users():
        raise ImportImpossible("The token may not list users: it needs ticket.agent or admin.user.")
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
            raise ImportImpossible(
                f"Zammad's search for users ignores the time of their changes. {WHOLE_IMPORT}"
            )
        for zammad_id, stored in (_preview(users) if dry_run else _store(users, now=now)).items():
            counts[stored.value] += zammad_id not in seen
        counts["skipped"] += skipped
        if changed_within is not None:
            seen |= {data.zammad_id for data in users}
        reset_queries()  # with DEBUG, Django would keep thousands of these long statements
        if after_page is not None:
            after_page(number, ImportSummary(**counts))
    return ImportSummary(**counts)


def _search(client: ZammadClient, window: timedelta, *, per_page: int) -> Iterator[list[object]]:
    """Search for the users changed within a time, in the largest unit that divides it."""
    unit, length = next((unit, length) for unit, length in UNITS.items() if not window % length)
    try:
        yield from client.users_changed_within(window // length, unit, per_page=min(per_page, FOUND_PER_PAGE))
    except ZammadRefused as refusal:
        if refusal.status in PASSING_STATUSES:
            raise
        problem = f"Zammad refuses the search for changed users. {str(refusal).removesuffix('.')}."
        raise ImportImpossible(f"{problem} {WHOLE_IMPORT}") from refusal
    except ZammadUnreadable as error:
        raise ImportImpossible(f"{error} {WHOLE_IMPORT}") from error


def _readable(records: Sequence[object], *, now: datetime) -> tuple[list[UserData], int]:
    """Parse a page into the newest version of each user, by ascending id; count unusable records."""
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
    """Return what storing a page of users would result in, by Zammad id."""
    rows = ZammadUser.objects.filter(zammad_id__in=[data.zammad_id for data in users])
    known = {row.zammad_id: row for row in rows}
    return {data.zammad_id: judge(data, known.get(data.zammad_id)) for data in users}


def _store(users: Sequence[UserData], *, now: datetime) -> Mapping[int, Stored]:
    """Store a page of users, settle their links, and return the results by Zammad id."""
    with transaction.atomic(durable=True):
        results = store_users(users, now=now)
    spelt = all_spellings(row.email for row, _before, _stored in results)
    verified = set(
        EmailAddress.objects.filter(verified=True, email__in=spelt).values_list("email", flat=True)
    )
    # Include unchanged users: a change of people that sent no signal is noticed only here.
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
    """Delete the receipts of deliveries received until then, and return their number."""
    return _delete_in_batches(WebhookDelivery.objects.received_until(until).order_by("received_at"))


def delete_refusals(*, until: datetime) -> int:
    """Delete the counts of refusals that ended until then, and return the number of rows."""
    return _delete_in_batches(RefusedDelivery.objects.refused_until(until).order_by("hour"))


def _delete_in_batches(old: QuerySet[Any]) -> int:
    """Delete rows, each batch in its own transaction, so that webhooks wait only for a moment."""
    deleted = 0
    while True:
        batch: int
        batch, _ = old.model._default_manager.filter(pk__in=old.values("pk")[:DELETED_AT_ONCE]).delete()
        deleted += batch
        if batch < DELETED_AT_ONCE:
            return deleted
