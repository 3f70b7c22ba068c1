"""The figures above the admin's index: how many rows there are, for those who may see them."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext as _

from plans.models import FamilyPlan, FamilyPlanInvite, Membership
from plans.visibility import Viewer
from zammad.admin_base import COUNTED, count_shallowly, list_of
from zammad.models import WebhookDelivery


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A figure about some rows, usually their count, and the page that lists them."""

    title: str
    value: str
    url: str = ""


def figures(request: HttpRequest) -> dict[str, list[Figure]]:
    """Return the figures that the user may see, by heading."""
    now = timezone.now()
    by_heading = {}
    if Viewer(request.user).reads_all_plans:
        by_heading[_("Now")] = list(_of_plans(now=now))
    if admin.site.get_model_admin(WebhookDelivery).has_view_permission(request):
        by_heading[_("Deliveries today")] = list(_of_deliveries(now=now))
    return by_heading


def _of_plans(*, now: datetime.datetime) -> Iterator[Figure]:
    yield _figure(_("Plans"), FamilyPlan.objects.filter(closed_at=None), state="open")
    yield Figure(title=_("Members"), value=_count(Membership.objects.all()))
    yield _figure(_("Open invites"), FamilyPlanInvite.objects.open(now=now), status="OPEN")


def _of_deliveries(*, now: datetime.datetime) -> Iterator[Figure]:
    today = timezone.localtime(now).replace(hour=0, minute=0, second=0, microsecond=0)
    # Spelled like the list's own filters, so that they show the choice.
    span = {"received_at__gte": today, "received_at__lt": today + datetime.timedelta(days=1)}
    received = WebhookDelivery.objects.filter(**span)
    for outcome in WebhookDelivery.Outcome:
        yield _figure(
            str(outcome.label), received.filter(outcome=outcome), outcome__exact=outcome.value, **span
        )
    last = WebhookDelivery.objects.last_received_at()
    when = date_format(timezone.localtime(last), "DATETIME_FORMAT") if last else _("never")
    yield Figure(title=_("Last delivery"), value=when)


def _figure(title: str, rows: QuerySet[Any], **filters: object) -> Figure:
    return Figure(title=title, value=_count(rows), url=list_of(rows.model, **filters))


def _count(rows: QuerySet[Any]) -> str:
    count = count_shallowly(rows)
    return _("%(count)s or more") % {"count": COUNTED} if count == COUNTED else str(count)
