"""The line above the admin's index: how much there is, for whoever may see it."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import dataclass

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.http import urlencode
from django.utils.translation import gettext as _

from plans.models import FamilyPlan, FamilyPlanInvite, Membership, may_read_all_plans
from zammad.admin import COUNTED, count_shallowly
from zammad.models import WebhookDelivery


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """How many rows there are of a kind, and the page that lists them."""

    title: str
    count: int
    url: str = ""

    def __str__(self) -> str:
        return _("%(count)s or more") % {"count": COUNTED} if self.count == COUNTED else str(self.count)


def figures(request: HttpRequest) -> dict[str, list[Figure]]:
    """Count what this person may see, by heading."""
    now = timezone.now()
    shown = {}
    if may_read_all_plans(request.user):
        shown[_("Now")] = list(_of_plans(now=now))
    if admin.site.get_model_admin(WebhookDelivery).has_view_permission(request):
        shown[_("Deliveries today")] = list(_of_deliveries(now=now))
    return shown


def _of_plans(*, now: datetime.datetime) -> Iterator[Figure]:
    yield _figure(_("Plans"), FamilyPlan.objects.filter(closed_at=None), state="open")
    yield Figure(title=_("Members"), count=count_shallowly(Membership.objects.all()))
    yield _figure(_("Open invites"), FamilyPlanInvite.objects.open(now=now), status="OPEN")


def _of_deliveries(*, now: datetime.datetime) -> Iterator[Figure]:
    today = timezone.localtime(now).replace(hour=0, minute=0, second=0, microsecond=0)
    # Spelled as the list's own filters are, which then show what was chosen.
    span = {"received_at__gte": today, "received_at__lt": today + datetime.timedelta(days=1)}
    received = WebhookDelivery.objects.filter(**span)
    for outcome in WebhookDelivery.Outcome:
        yield _figure(
            str(outcome.label), received.filter(outcome=outcome), outcome__exact=outcome.value, **span
        )


def _figure(
    title: str,
    rows: QuerySet[FamilyPlan] | QuerySet[FamilyPlanInvite] | QuerySet[WebhookDelivery],
    **filters: object,
) -> Figure:
    opts = rows.model._meta
    page = reverse(f"admin:{opts.app_label}_{opts.model_name}_changelist")
    return Figure(
        title=title,
        count=count_shallowly(rows),
        url=f"{page}?{urlencode({name: str(value) for name, value in filters.items()})}",
    )
