"""The people a journey is about: their seats, invites and verified addresses, in one query."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from django.contrib.auth import get_user_model
from django.db.models import Exists, F, FilteredRelation, OuterRef, Q
from django.db.models.functions import Lower

from zammad.addresses import spellings
from zammad.models import ZammadUser

if TYPE_CHECKING:
    from django.contrib.auth.models import User

    from plans.models import FamilyPlan, FamilyPlanInvite, Membership


@dataclass(slots=True, kw_only=True)
class Person:
    """A person as they are at this moment."""

    user: User
    seat: Membership | None
    invite: FamilyPlanInvite | None  # by which they took the seat
    addresses: list[str] = field(default_factory=list)  # verified; the primary one is the last
    may_be_linked: bool = False  # somebody in Zammad may wait for one of these

    def sits_in(self, plan: FamilyPlan) -> bool:
        return self.seat is not None and self.seat.family_plan_id == plan.pk

    def owns(self, plan: FamilyPlan) -> bool:
        return self.seat is not None and self.seat.is_owner and self.sits_in(plan)


def read_people(who: Q) -> dict[int, Person]:
    """Read people by their keys."""
    rows = (
        get_user_model()
        ._default_manager.filter(who)
        .select_related("membership", "family_plan_invite")
        .annotate(
            verified=FilteredRelation("emailaddress", condition=Q(emailaddress__verified=True)),
            address=F("verified__email"),
            is_awaited=Exists(ZammadUser.objects.waiting().filter(email=Lower(OuterRef("verified__email")))),
        )
        .order_by("verified__primary")
    )
    people: dict[int, Person] = {}
    for user in rows:  # for each address one, or one without
        person = people.setdefault(
            user.pk,
            Person(
                user=user,
                seat=getattr(user, "membership", None),
                invite=getattr(user, "family_plan_invite", None),
            ),
        )
        if user.address is not None:
            person.addresses.append(user.address)
            # Zammad may spell an international address in another way than the database looks for.
            person.may_be_linked |= user.is_awaited or len(spellings(user.address)) > 1
    return people


def owner_of(plan: FamilyPlan) -> Q:
    return Q(membership__family_plan=plan, membership__role="OWNER")


def owner_among(people: dict[int, Person], plan: FamilyPlan) -> Person | None:
    """Find who owns the plan; nobody, once it is closed."""
    return next((person for person in people.values() if person.owns(plan)), None)
