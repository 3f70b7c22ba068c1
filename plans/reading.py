"""What one operation reads: each query runs once, for all rows together."""

from __future__ import annotations

import datetime
from collections.abc import Hashable, Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Any

from django.utils import timezone

from plans import models, queries
from plans.settings import PlanSettings
from plans.visibility import Viewer

if TYPE_CHECKING:
    from plans.visibility import Actor
    from zammad.statements import Statement


class Reading:
    """The viewer, the time, the settings, and what has been read about plans and people.

    A mutation outdates all of it, so each starts a new one. The number of queries depends on the
    fields selected, not on the number of plans or rows.
    """

    def __init__(self, user: Actor) -> None:
        self.viewer = Viewer(user)
        self._together: dict[int, list[int]] = {}
        self._rows: dict[Hashable, dict[int, list[Any]]] = {}
        self._people: dict[int, queries.Person | None] = {}
        self._noted: set[int] = set()

    @cached_property
    def now(self) -> datetime.datetime:
        return timezone.now()

    @cached_property
    def settings(self) -> PlanSettings:
        return PlanSettings.current()

    # --- Plans ------------------------------------------------------------------------------

    def read_together(self, plan_ids: Iterable[int]) -> None:
        """Remember the plans of a page: what one of them needs is fetched for all."""
        new = [plan_id for plan_id in plan_ids if plan_id not in self._together]
        self._together |= dict.fromkeys(new, new)

    def members(self, plan_id: int) -> list[queries.Member]:
        """Return the members of a plan, its owner first."""
        return self._of_plan(plan_id, queries.members)

    def seats_taken(self, plan_id: int) -> int:
        rows: list[queries.SeatsTaken] = self._of_plan(plan_id, queries.seats_taken_in, now=self.now)
        return rows[0].seats_taken if rows else 0

    def invites(
        self, plan_id: int, *, status: models.FamilyPlanInvite.Status | None, before: int | None, count: int
    ) -> list[queries.Invite]:
        """Return a plan's newest invites, or the newest before one of them."""
        return self._of_plan(
            plan_id, queries.invites, status=status, before=before, count=count, now=self.now
        )

    def events(self, plan_id: int, *, before: int | None, count: int) -> list[queries.Event]:
        """Return a plan's newest events, or the newest before one of them."""
        return self._of_plan(plan_id, queries.events, before=before, count=count)

    def _of_plan(self, plan_id: int, statement: Statement[..., Any], **values: Hashable) -> list[Any]:
        """Return a plan's rows; execute the statement for all plans of the page when one needs it first."""
        rows = self._rows.setdefault((statement, *values.values()), {})
        if plan_id not in rows:
            plan_ids = self._together.get(plan_id, [plan_id])
            rows |= {each: [] for each in plan_ids}
            for row in statement(plan_ids=plan_ids, **values):
                rows[row.family_plan_id].append(row)
                self.note(row)
        return rows[plan_id]

    # --- People that rows refer to: the first one needed is fetched together with all noted so far ---

    def person(self, user_id: int | None) -> queries.Person | None:
        if user_id is not None and user_id not in self._people:
            missing = (self._noted | {user_id}) - self._people.keys()
            self._people |= dict.fromkeys(missing)
            self._people |= {person.pk: person for person in queries.people(user_ids=list(missing))}
            self._noted.clear()
        return None if user_id is None else self._people[user_id]

    def note(self, row: object) -> None:
        """Note the people that a row refers to."""
        match row:
            case queries.Member():
                self._people[row.user.pk] = queries.Person.of(row.user, plan_id=row.family_plan_id)
            case queries.Invite() | models.FamilyPlanInvite():
                self._note(row.created_by_id, row.user_id)
            case queries.Event() | models.PlanEvent():
                self._note(row.actor_id, row.subject_id)
                self.note(row.invite)

    def _note(self, *user_ids: int | None) -> None:
        self._noted.update(user_id for user_id in user_ids if user_id is not None)
