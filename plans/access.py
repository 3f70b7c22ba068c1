"""What one viewer may see: each question is asked of the database at most once a request."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from django.contrib.auth import get_user_model
from django.db.models import Q, QuerySet
from django.utils import timezone

from plans.models import FamilyPlan, Membership, may_read_all_plans, verified_addresses
from plans.prepared import Parameter, Prepared
from plans.rules import may_make_another_plan
from plans.settings import PlanSettings
from zammad.addresses import spellings

if TYPE_CHECKING:
    from django.contrib.auth.models import User

    from plans.models import Viewer
    from zammad.models import ZammadUser

SEAT_OF_ONE = Prepared(
    lambda: Membership.objects.select_related("family_plan").filter(
        user=Parameter("user", Membership._meta.get_field("user"))
    )
)


class Access:
    """The viewer's own plan first: rights are looked up only when that does not settle it."""

    def __init__(self, viewer: Viewer) -> None:
        self.viewer = viewer

    @cached_property
    def membership(self) -> Membership | None:
        """The viewer's seat, if they have one."""
        if not self.viewer.pk:
            return None
        return next(iter(SEAT_OF_ONE.fetch(user=self.viewer.pk)), None)

    @cached_property
    def reads_all_plans(self) -> bool:
        return may_read_all_plans(self.viewer)

    @cached_property
    def reads_zammad(self) -> bool:
        return self.reads_all_plans and self.viewer.has_perm("zammad.view_zammaduser")

    def owns(self, plan_id: int) -> bool:
        seat = self.membership
        return seat is not None and seat.is_owner and seat.family_plan_id == plan_id

    def sees_history_of(self, plan: FamilyPlan) -> bool:
        """Invites and events are for the owner and for staff."""
        return self.owns(plan.pk) or self.reads_all_plans

    def sees_address_of(self, person: User) -> bool:
        """An address is for the person, for the owner of the plan they are in, and for staff."""
        if person.pk == self.viewer.pk:
            return True
        seat: Membership | None = getattr(person, "membership", None)
        return (seat is not None and self.owns(seat.family_plan_id)) or self.reads_all_plans

    @cached_property
    def addresses(self) -> list[str]:
        """The viewer's verified addresses."""
        return verified_addresses(self.viewer) if self.viewer.is_authenticated else []

    def zammad_user_of(self, membership: Membership) -> ZammadUser | None:
        """Zammad's data is for staff, and for the person while the address in it is theirs.

        An agent may correct the address of a record, which then describes somebody else.
        """
        zammad_user: ZammadUser | None = getattr(membership.user, "zammad_user", None)
        if zammad_user is None:
            return None
        is_own = membership.user_id == self.viewer.pk and not spellings(zammad_user.email).isdisjoint(
            self.addresses
        )
        return zammad_user if is_own or self.reads_zammad else None

    def creates_own_plan(self) -> bool:
        """Tell whether the viewer could create a plan for themselves now."""
        if self.membership is not None or not self.viewer.is_authenticated:
            return False
        plan_settings = PlanSettings.current()
        if not plan_settings.self_service_plans and not self.viewer.has_perm("plans.add_familyplan"):
            return False
        return may_make_another_plan(self.viewer, plan_settings=plan_settings, now=timezone.now())

    def plan(self, plan_id: int) -> FamilyPlan | None:
        """Find a plan: the viewer's own, or for staff any."""
        seat = self.membership
        if seat is not None and seat.family_plan_id == plan_id:
            return seat.family_plan
        return FamilyPlan.objects.filter(pk=plan_id).first() if self.reads_all_plans else None

    def plans(self, *, name: str = "", owner_email: str = "") -> QuerySet[FamilyPlan]:
        """Every plan the viewer may see, or those with a name and an owner's address."""
        found = FamilyPlan.objects.visible_to(self.viewer).matching(name=name, owner_email=owner_email)
        if owner_email and not self.reads_all_plans and not (self.membership and self.membership.is_owner):
            # A member who could guess until something matches would learn the owner's address.
            return found.none()
        return found

    def people(self) -> QuerySet[User]:
        """Everybody the viewer may look up: themselves, who shares their plan, and for staff all."""
        everybody: QuerySet[User] = get_user_model().objects.select_related("membership")
        if self.reads_all_plans:
            return everybody
        if self.membership is None:
            return everybody.filter(pk=self.viewer.pk or 0)
        return everybody.filter(
            Q(pk=self.viewer.pk) | Q(membership__family_plan=self.membership.family_plan_id)
        )
