"""The plan query in strawberry-django, as its documentation writes it: types over models, the optimizer."""

from typing import Any

import constance
import strawberry
import strawberry_django
from django.contrib.auth import get_user_model
from django.db.models import Prefetch, Q, QuerySet
from django.utils import timezone
from strawberry import auto, relay
from strawberry.extensions import (
    MaxAliasesLimiter,
    MaxTokensLimiter,
    ParserCache,
    QueryDepthLimiter,
    ValidationCache,
)
from strawberry.types import Info
from strawberry_django.optimizer import DjangoOptimizerExtension
from strawberry_django.relay import DjangoListConnection

from plans import models
from tests.benchmarks.rivals.plain import sees_zammad_of

InviteStatus = strawberry.enum(models.FamilyPlanInvite.Status, name="InviteStatus")


def asks(info: Info) -> Any:
    """Return the requester."""
    return info.context.request.user


def asks_owner(info: Info, plan_id: int) -> bool:
    seat = getattr(asks(info), "membership", None)  # Django caches it on the user: one query per request
    return seat is not None and seat.is_owner and seat.family_plan_id == plan_id


@strawberry_django.type(get_user_model())
class User(relay.Node):
    @strawberry_django.field(only=["first_name", "last_name", "email"])
    def display_name(self, root: strawberry.Parent[Any]) -> str:
        return models.display_name(root)

    @strawberry_django.field(only=["email"], select_related=["membership"])
    def email(self, root: strawberry.Parent[Any], info: Info) -> str | None:
        seat = getattr(root, "membership", None)
        visible = root.pk == asks(info).pk or (seat is not None and asks_owner(info, seat.family_plan_id))
        return root.email if visible else None


@strawberry_django.type(models.Membership)
class Membership(relay.Node):
    role: auto
    joined_at: auto
    user: User

    @classmethod
    def get_queryset(cls, queryset: QuerySet[models.Membership], info: Info) -> QuerySet[models.Membership]:
        return queryset.order_by("-role", "pk")

    @strawberry_django.field(select_related=["user__zammad_user"])
    def zammad_user_id(self, root: strawberry.Parent[Any], info: Info) -> int | None:
        sees_zammad = sees_zammad_of(root.user, asks(info))
        zammad_user = getattr(root.user, "zammad_user", None) if sees_zammad else None
        return zammad_user.zammad_id if zammad_user else None


@strawberry_django.filter_type(models.FamilyPlanInvite)
class InviteFilter:
    @strawberry_django.filter_field
    def status(self, value: InviteStatus, prefix: str) -> Q:  # type: ignore[valid-type]
        match value:
            case models.FamilyPlanInvite.Status.USED:
                return Q(**{f"{prefix}user__isnull": False})
            case models.FamilyPlanInvite.Status.OPEN:
                return Q(**{f"{prefix}user": None, f"{prefix}expires_at__gt": timezone.now()})
            case _:
                return Q(**{f"{prefix}user": None, f"{prefix}expires_at__lte": timezone.now()})


@strawberry_django.type(models.FamilyPlanInvite, filters=InviteFilter)
class FamilyPlanInvite(relay.Node):
    expires_at: auto
    created_at: auto
    mail_status: auto

    @classmethod
    def get_queryset(
        cls, queryset: QuerySet[models.FamilyPlanInvite], info: Info
    ) -> QuerySet[models.FamilyPlanInvite]:
        return queryset.order_by("-pk")

    @strawberry_django.field(only=["email"])
    def email(self, root: strawberry.Parent[Any]) -> str | None:
        return root.email or None

    @strawberry_django.field(only=["user", "expires_at"])
    def status(self, root: strawberry.Parent[Any]) -> InviteStatus:  # type: ignore[valid-type]
        return root.status(now=timezone.now())


def limit_of(plan: Any) -> int:
    """Return the current limit, from a setting that is read once."""
    if "limit" not in plan.__dict__:
        plan.limit = plan.user_limit or constance.config.USER_LIMIT
    return int(plan.limit)


@strawberry_django.type(models.FamilyPlan)
class FamilyPlan(relay.Node):
    name: auto
    created_at: auto
    members: list[Membership] = strawberry_django.field(field_name="memberships")
    invites: DjangoListConnection[FamilyPlanInvite] | None = strawberry_django.connection()

    @strawberry_django.field(only=["user_limit"])
    def user_limit(self, root: strawberry.Parent[Any]) -> int:
        return limit_of(root)

    @strawberry_django.field
    def seats_taken(self, root: strawberry.Parent[Any]) -> int:
        return root.seats_taken_now

    @strawberry_django.field(only=["user_limit"])
    def seats_available(self, root: strawberry.Parent[Any]) -> int:
        return max(0, limit_of(root) - root.seats_taken_now)

    @strawberry_django.field(
        prefetch_related=[
            lambda info: Prefetch(
                "memberships",
                models.Membership.objects.filter(role="OWNER").select_related("user__membership"),
                to_attr="owners",
            )
        ]
    )
    def owner(self, root: strawberry.Parent[Any]) -> User | None:
        return root.owners[0].user if root.owners else None


@strawberry.type
class Viewer:
    @strawberry_django.field
    def plan(self, info: Info) -> FamilyPlan | None:
        plans = models.FamilyPlan.objects.with_seats(now=timezone.now())
        return plans.filter(memberships__user=asks(info))  # type: ignore[return-value]


@strawberry.type
class Query:
    @strawberry.field
    def viewer(self) -> Viewer:
        return Viewer()


schema = strawberry.Schema(
    Query,
    extensions=[
        lambda: QueryDepthLimiter(max_depth=10),
        lambda: MaxAliasesLimiter(max_alias_count=15),
        lambda: MaxTokensLimiter(max_token_count=1000),
        lambda: ParserCache(maxsize=256),
        lambda: ValidationCache(maxsize=256),
        DjangoOptimizerExtension,
    ],
)
