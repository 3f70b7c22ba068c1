"""The people a journey is about: their seats, invites and verified addresses, in one query."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from django.contrib.auth import get_user_model
from django.db.models import BigAutoField, F, FilteredRelation, Q, QuerySet

from plans.models import Membership
from plans.prepared import MAX_KEY, Parameter, Prepared

if TYPE_CHECKING:
    from django.contrib.auth.models import User

    from plans.models import FamilyPlan, FamilyPlanInvite

PLAN = Parameter("plan", BigAutoField())
PERSON = Parameter("person", Membership._meta.get_field("user"))
MEMBERSHIP = Parameter("membership", BigAutoField())


@dataclass(slots=True, kw_only=True)
class Person:
    """A person as they are at this moment."""

    user: User
    seat: Membership | None
    invite: FamilyPlanInvite | None  # by which they took the seat
    addresses: list[str] = field(default_factory=list)  # verified; the primary one is the last

    def sits_in(self, plan: FamilyPlan) -> bool:
        return self.seat is not None and self.seat.family_plan_id == plan.pk

    def owns(self, plan: FamilyPlan) -> bool:
        return self.seat is not None and self.seat.is_owner and self.sits_in(plan)


def rows() -> QuerySet[User]:
    """Select people, each once for each verified address or once without."""
    everybody = get_user_model()._default_manager
    seats = Membership.objects.values("user")
    # A union: OR would make the database look at everybody.
    keys = everybody.filter(pk=PERSON).values("pk")
    owner = seats.filter(family_plan=PLAN, role=Membership.Role.OWNER)
    keys = keys.union(owner, seats.filter(pk=MEMBERSHIP), all=True)
    return (
        everybody.filter(pk__in=keys)
        .select_related("membership", "family_plan_invite")
        .annotate(
            verified=FilteredRelation("emailaddress", condition=Q(emailaddress__verified=True)),
            address=F("verified__email"),
        )
        .order_by("verified__primary")
    )


ROWS = Prepared(rows)


def read_people(plan: FamilyPlan, *, person: User, membership_id: int = 0) -> dict[int, Person]:
    """Read a person, the plan's owner and whose membership it is, by their keys."""
    people: dict[int, Person] = {}
    found = ROWS.fetch(plan=plan.pk, person=person.pk, membership=min(membership_id, MAX_KEY))
    for user in found:
        address = user.address  # type: ignore[attr-defined]  # annotated
        each = people.setdefault(
            user.pk,
            Person(
                user=user,
                seat=getattr(user, "membership", None),
                invite=getattr(user, "family_plan_invite", None),
            ),
        )
        if address is not None:
            each.addresses.append(address)
    return people


def owner_among(people: dict[int, Person], plan: FamilyPlan) -> Person | None:
    """Find who owns the plan; nobody, once it is closed."""
    return next((person for person in people.values() if person.owns(plan)), None)
