"""What plans hold, read for all plans of a page together: members, seats, invites, events."""

from __future__ import annotations

import datetime
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any, TypeVar

from django.db.models import F, QuerySet, Window
from django.db.models.functions import RowNumber

from plans.models import FamilyPlan, FamilyPlanInvite, Membership, PlanEvent

Row = TypeVar("Row", Membership, FamilyPlanInvite, PlanEvent)

# The people that each row shows, with the seat that decides who sees their address.
PEOPLE_OF_MEMBERSHIP = ("user__zammad_user",)
PEOPLE_OF_INVITE = ("created_by__membership", "user__membership")
PEOPLE_OF_EVENT = (
    "actor__membership",
    "subject__membership",
    "invite__created_by__membership",
    "invite__user__membership",
)


class PlansRead:
    """Plans that are read together: what is asked of one is fetched for all, and once.

    So the number of queries depends on what is asked, not on how many plans or rows there are.
    """

    def __init__(self, plan_ids: Iterable[int], *, now: datetime.datetime) -> None:
        self.plan_ids = list(plan_ids)
        self.now = now
        self._pages: dict[object, Mapping[int, list[Any]]] = {}

    @cached_property
    def members(self) -> Mapping[int, list[Membership]]:
        """The members of each plan, its owner first, with the people and what Zammad knows of them."""
        members = Membership.objects.filter(family_plan__in=self.plan_ids).owner_first()
        return by_plan(members.select_related(*PEOPLE_OF_MEMBERSHIP))

    @cached_property
    def seats_taken(self) -> Mapping[int, int]:
        plans = FamilyPlan.objects.filter(pk__in=self.plan_ids).with_seats(now=self.now)
        return dict(plans.values_list("pk", "seats_taken_now"))  # type: ignore[misc]  # annotated

    def invites(
        self, plan_id: int, *, status: FamilyPlanInvite.Status | None, before: int | None, count: int
    ) -> list[FamilyPlanInvite]:
        """List a plan's newest invites, or the newest before one of them."""
        key = ("invites", status, before, count)
        if key not in self._pages:
            invites = FamilyPlanInvite.objects.with_status(status, now=self.now)
            self._pages[key] = self._newest(invites.select_related(*PEOPLE_OF_INVITE), before, count)
        return self._pages[key][plan_id]

    def events(self, plan_id: int, *, before: int | None, count: int) -> list[PlanEvent]:
        """List a plan's newest events, or the newest before one of them."""
        key = ("events", before, count)
        if key not in self._pages:
            self._pages[key] = self._newest(PlanEvent.objects.select_related(*PEOPLE_OF_EVENT), before, count)
        return self._pages[key][plan_id]

    def _newest(self, rows: QuerySet[Row], before: int | None, count: int) -> Mapping[int, list[Row]]:
        rows = rows.filter(family_plan__in=self.plan_ids).order_by("-pk")
        if before is not None:
            rows = rows.filter(pk__lt=before)
        if len(self.plan_ids) > 1:
            # So many of each, and not of all of them.
            place = Window(RowNumber(), partition_by=F("family_plan"), order_by="-pk")
            return by_plan(rows.alias(place=place).filter(place__lte=count))
        return by_plan(rows[:count])


def by_plan(rows: Iterable[Row]) -> Mapping[int, list[Row]]:
    found = defaultdict[int, list[Row]](list)
    for row in rows:
        found[row.family_plan_id].append(row)
    return found
