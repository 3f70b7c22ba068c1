"""Visibility of plans: what a viewer sees and manages, for resolvers, services and admin alike."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from django.db.models import QuerySet

from plans import queries
from plans.models import FamilyPlan, FamilyPlanInvite, Membership, PlanEvent
from zammad.addresses import spellings

if TYPE_CHECKING:
    from django.contrib.auth.models import AnonymousUser, User

    from plans.models import (
        FamilyPlanInviteQuerySet,
        FamilyPlanQuerySet,
        MembershipQuerySet,
        PlanEventQuerySet,
    )

Actor: TypeAlias = "User | AnonymousUser"
Rows = TypeVar("Rows", bound=QuerySet[Any])


class Viewer:
    """A user, or an anonymous one, with their seat and rights; each is fetched when first needed.

    Make a new one under a plan's lock: the seat may have changed while waiting for it.
    """

    def __init__(self, user: Actor) -> None:
        self.user = user
        self.user_id: int = user.pk or 0

    # --- The seat, and the rights from Django's permissions --------------------------------------

    @cached_property
    def membership(self) -> queries.Member | None:
        return queries.membership_of.first(user_id=self.user_id) if self.user_id else None

    @cached_property
    def reads_all_plans(self) -> bool:
        return self.user.has_perm("plans.view_familyplan") or self.acts_for_others

    @cached_property
    def acts_for_others(self) -> bool:
        return self.user.has_perm("plans.change_familyplan")

    @cached_property
    def creates_all_plans(self) -> bool:
        return self.user.has_perm("plans.add_familyplan")

    @cached_property
    def reads_zammad(self) -> bool:
        return self.reads_all_plans and self.user.has_perm("zammad.view_zammaduser")

    # --- One object: rights are fetched only where the seat does not settle it --------------------

    def role_in(self, plan_id: int | None) -> str | None:
        seat = None if plan_id is None else self.membership
        return seat.role if seat and seat.family_plan_id == plan_id else None

    def owns(self, plan_id: int | None) -> bool:
        return self.role_in(plan_id) == Membership.Role.OWNER

    def sees_history_of(self, plan_id: int) -> bool:
        """Return whether the viewer sees a plan's invites and events: its owner and staff do."""
        return self.owns(plan_id) or self.reads_all_plans

    def sees_person(self, person: queries.Person) -> bool:
        """Return whether the viewer sees a person: themselves, members of their plan, or for staff anyone."""
        is_own = person.pk == self.user_id
        return is_own or self.role_in(person.family_plan_id) is not None or self.reads_all_plans

    def sees_address_of(self, person: queries.Person) -> bool:
        """Return whether the viewer sees an address: its holder, the owner of their plan and staff do."""
        return person.pk == self.user_id or self.owns(person.family_plan_id) or self.reads_all_plans

    def sees_zammad_user_of(self, membership: queries.Member | Membership) -> bool:
        """Return whether the viewer sees what Zammad knows about a member.

        Staff do, and so does the member while the address in Zammad is theirs: once an agent has
        changed that address, the record describes somebody else.
        """
        zammad_user = membership.zammad_user
        if zammad_user is None:
            return False
        is_own = membership.user.pk == self.user_id and self.has_address(zammad_user.email)
        return is_own or self.reads_zammad

    def has_address(self, address: str) -> bool:
        """Return whether the viewer has verified an address, in any of its spellings."""
        return not spellings(address).isdisjoint(self._addresses)

    @cached_property
    def _addresses(self) -> list[str]:
        return queries.addresses_of(self.user_id)

    def plan(self, plan_id: int) -> queries.Plan | FamilyPlan | None:
        """Fetch a plan that the viewer sees: their own, or for staff any."""
        seat = self.membership
        if seat and seat.family_plan_id == plan_id:
            return seat.family_plan
        return FamilyPlan.objects.filter(pk=plan_id).first() if self.reads_all_plans else None

    # --- Many: one filter for each model ---------------------------------------------------------

    def plans(self, *, name: str = "", owner_email: str = "") -> FamilyPlanQuerySet:
        """Filter the plans that the viewer sees: their own, or for staff all."""
        plans = self._own(FamilyPlan.objects.all(), "memberships")
        if owner_email and not self.reads_all_plans and not (self.membership and self.membership.is_owner):
            # A member could guess until something matches, and learn the owner's address.
            return plans.none()
        return plans.matching(name=name, owner_email=owner_email)

    def memberships(self) -> MembershipQuerySet:
        """Filter the members of the plans that the viewer sees."""
        return self._own(Membership.objects.all(), "family_plan__memberships")

    def invites(self) -> FamilyPlanInviteQuerySet:
        """Filter the invites of the plan that the viewer owns, or for staff all."""
        return self._own(FamilyPlanInvite.objects.all(), "family_plan__memberships", owned=True)

    def events(self) -> PlanEventQuerySet:
        """Filter the history of the plan that the viewer owns, or for staff all."""
        return self._own(PlanEvent.objects.all(), "family_plan__memberships", owned=True)

    def _own(self, rows: Rows, memberships: str, *, owned: bool = False) -> Rows:
        if self.reads_all_plans:
            return rows
        seat: dict[str, object] = {f"{memberships}__user": self.user_id}
        if owned:
            seat[f"{memberships}__role"] = Membership.Role.OWNER
        return rows.filter(**seat)
