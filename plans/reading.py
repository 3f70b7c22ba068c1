"""What plans hold, read for all plans of a page together: members, seats, invites, events, people."""

from __future__ import annotations

import datetime
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from django.contrib.auth import get_user_model
from django.db.models import BigAutoField, DateTimeField, F, Model, QuerySet, Window
from django.db.models.functions import RowNumber

from plans.models import FamilyPlan, FamilyPlanInvite, Membership, Moment, PlanEvent
from plans.prepared import MAX_KEY, Parameter, Prepared

if TYPE_CHECKING:
    from django.contrib.auth.models import User

Row = TypeVar("Row", Membership, FamilyPlanInvite, PlanEvent)

PLAN = Parameter("plan", BigAutoField())
BEFORE = Parameter("before", BigAutoField())
NOW = Parameter("now", DateTimeField())


def members() -> QuerySet[Membership]:
    return Membership.objects.owner_first().select_related("user__zammad_user")


def seats(now: Moment) -> QuerySet[FamilyPlan]:
    return FamilyPlan.objects.with_seats(now=now).only("pk")


def invites(status: FamilyPlanInvite.Status | None, now: Moment) -> QuerySet[FamilyPlanInvite]:
    return FamilyPlanInvite.objects.with_status(status, now=now).order_by("-pk")


def events() -> QuerySet[PlanEvent]:
    return PlanEvent.objects.select_related("invite").order_by("-pk")


# One plan by itself, the most usual case, is read by statements that are compiled once.
MEMBERS_OF_ONE = Prepared(lambda: members().filter(family_plan=PLAN))
SEATS_OF_ONE = Prepared(lambda: seats(NOW).filter(pk=PLAN))


@cache
def invites_of_one(status: FamilyPlanInvite.Status | None, count: int) -> Prepared[FamilyPlanInvite]:
    return Prepared(lambda: invites(status, NOW).filter(family_plan=PLAN, pk__lt=BEFORE)[:count])


@cache
def events_of_one(count: int) -> Prepared[PlanEvent]:
    return Prepared(lambda: events().filter(family_plan=PLAN, pk__lt=BEFORE)[:count])


class People:
    """People whom rows name by id: all that are noted are fetched once the first of them is asked for.

    With the seat that decides who sees their address.
    """

    def __init__(self) -> None:
        self._known: dict[int, User | None] = {}
        self._noted: set[int] = set()

    def get(self, user_id: int | None) -> User | None:
        if user_id is None:
            return None
        if user_id not in self._known:
            missing = (self._noted | {user_id}) - self._known.keys()
            people = get_user_model().objects.select_related("membership").in_bulk(list(missing))
            self._known |= dict.fromkeys(missing) | people
            self._noted.clear()
        return self._known[user_id]

    def note(self, row: Model | None) -> None:
        match row:
            case Membership():
                self._known[row.user_id] = row.user
            case FamilyPlanInvite():
                self._note(row.created_by_id, row.user_id)
            case PlanEvent():
                self._note(row.actor_id, row.subject_id)
                self.note(row.invite)

    def _note(self, *user_ids: int | None) -> None:
        self._noted.update(user_id for user_id in user_ids if user_id is not None)


class PlansRead:
    """Plans that are read together: what is asked of one is fetched for all, and once.

    So the number of queries depends on what is asked, not on how many plans or rows there are.
    """

    def __init__(self, plan_ids: Iterable[int], *, now: datetime.datetime, people: People) -> None:
        self.plan_ids = list(plan_ids)
        self.now = now
        self.people = people
        self._pages: dict[object, Mapping[int, list[Any]]] = {}

    @cached_property
    def members(self) -> Mapping[int, list[Membership]]:
        """The members of each plan, its owner first, with the people and what Zammad knows of them."""
        if self._one:
            return self._by_plan(MEMBERS_OF_ONE.fetch(plan=self._one))
        return self._by_plan(members().filter(family_plan__in=self.plan_ids))

    @cached_property
    def seats_taken(self) -> Mapping[int, int]:
        if self._one:
            plans = SEATS_OF_ONE.fetch(plan=self._one, now=self.now)
        else:
            plans = list(seats(now=self.now).filter(pk__in=self.plan_ids))
        return {plan.pk: plan.seats_taken_now for plan in plans}

    def invites(
        self, plan_id: int, *, status: FamilyPlanInvite.Status | None, before: int | None, count: int
    ) -> list[FamilyPlanInvite]:
        """List a plan's newest invites, or the newest before one of them."""
        key = ("invites", status, before, count)
        if key not in self._pages:
            self._pages[key] = self._by_plan(
                invites_of_one(status, count).fetch(plan=self._one, now=self.now, before=before or MAX_KEY)
                if self._one
                else self._newest(invites(status, now=self.now), before=before, count=count)
            )
        return self._pages[key][plan_id]

    def events(self, plan_id: int, *, before: int | None, count: int) -> list[PlanEvent]:
        """List a plan's newest events, or the newest before one of them."""
        key = ("events", before, count)
        if key not in self._pages:
            self._pages[key] = self._by_plan(
                events_of_one(count).fetch(plan=self._one, before=before or MAX_KEY)
                if self._one
                else self._newest(events(), before=before, count=count)
            )
        return self._pages[key][plan_id]

    @property
    def _one(self) -> int | None:
        return self.plan_ids[0] if len(self.plan_ids) == 1 else None

    def _newest(self, rows: QuerySet[Row], *, before: int | None, count: int) -> QuerySet[Row]:
        """Narrow rows to so many of each plan, not of all of them."""
        place = Window(RowNumber(), partition_by=F("family_plan"), order_by="-pk")
        of_plans = rows.filter(family_plan__in=self.plan_ids, pk__lt=before or MAX_KEY)
        return of_plans.alias(place=place).filter(place__lte=count)

    def _by_plan(self, rows: Iterable[Row]) -> Mapping[int, list[Row]]:
        found = defaultdict[int, list[Row]](list)
        for row in rows:
            found[row.family_plan_id].append(row)
            self.people.note(row)
        return found
