"""Rate limits that are counted in the database, for all processes together.

Each event takes a place, a row that can exist only once: concurrent requests share the places,
no counter is lost with a cache, and a copy of the database names nobody.
"""

from __future__ import annotations

import datetime
from typing import ClassVar, Self, TypeVar

from django.db import IntegrityError, models, transaction
from django.utils import timezone
from django.utils.crypto import salted_hmac

from zammad.addresses import spellings

DOTLESS = frozenset({"gmail.com", "googlemail.com"})

Row = TypeVar("Row", bound="Place")


def mailbox_of(address: str) -> str:
    """Return the mailbox behind the spellings of an address: for counting only, never for mailing."""
    plain = min(spellings(address.strip()), key=lambda spelling: (not spelling.isascii(), spelling))
    local, _, domain = plain.rpartition("@")
    local = local.partition("+")[0] or local
    if domain in DOTLESS:
        local, domain = local.replace(".", ""), "gmail.com"
    return f"{local}@{domain}"


class PlaceQuerySet(models.QuerySet[Row]):
    """Places of one kind. Of the text that is counted, only a keyed digest is stored."""

    def of(self, counted: str) -> Self:
        return self.filter(address_digest=self.digest_of(counted))

    def digest_of(self, counted: str) -> str:
        return salted_hmac(
            self.model.salt, counted.encode("utf-8", "replace"), algorithm="sha256"
        ).hexdigest()

    def taken(self, counted: str, *, window: datetime.timedelta, now: datetime.datetime) -> list[Row]:
        """List the places that are taken now, oldest first."""
        return list(self.of(counted).filter(taken_at__gt=now - window).order_by("taken_at"))

    def take_place(
        self, counted: str, *, limit: int, window: datetime.timedelta, now: datetime.datetime
    ) -> Row | None:
        """Take a place, or return None if all are taken."""
        places = self.of(counted)
        rows = dict(places.values_list("place", "taken_at"))
        live = {place for place, taken_at in rows.items() if taken_at > now - window}
        if len(live) >= limit:
            return None
        if len(live) < len(rows):
            places.filter(taken_at__lte=now - window).delete()
        for place in range(limit):
            if place in live:
                continue
            try:
                with transaction.atomic():
                    return self.create(address_digest=self.digest_of(counted), place=place, taken_at=now)
            except IntegrityError:
                continue  # taken concurrently
        return None


class Place(models.Model):
    """A place within a rate limit. `prune` deletes those that no longer count."""

    salt: ClassVar[str]  # of the digests, different for each kind

    # Of an address, or of another text that the kind counts.
    address_digest = models.CharField(max_length=64)
    place = models.PositiveSmallIntegerField()
    taken_at = models.DateTimeField(default=timezone.now)

    objects = PlaceQuerySet.as_manager()

    class Meta:
        abstract = True
