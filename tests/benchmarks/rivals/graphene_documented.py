"""The plan query in graphene-django, as its documentation writes it, and the URLs of its service."""

from typing import Any

import constance
import graphene
from allauth.account import urls as account_urls
from django.contrib.auth import get_user_model
from django.db.models import Prefetch
from django.urls import include, path
from django.utils import timezone
from django.views.decorators.csrf import csrf_exempt
from graphene import relay
from graphene.validation import depth_limit_validator
from graphene_django import DjangoConnectionField, DjangoObjectType
from graphene_django.views import GraphQLView

from config.views import healthz
from plans import models
from tests.benchmarks.rivals.plain import sees_zammad_of, with_session_token

InviteStatus = graphene.Enum.from_enum(models.FamilyPlanInvite.Status)


class User(DjangoObjectType):
    class Meta:
        model = get_user_model()
        fields = ("id",)
        interfaces = (relay.Node,)

    display_name = graphene.String(required=True)
    email = graphene.String()

    def resolve_display_name(root: Any, info: Any) -> str:
        return models.display_name(root)

    def resolve_email(root: Any, info: Any) -> str | None:
        viewer = info.context.user
        seat, own = root.membership, viewer.membership
        sees = root == viewer or (own.is_owner and own.family_plan_id == seat.family_plan_id)
        return root.email if sees else None


class Membership(DjangoObjectType):
    class Meta:
        model = models.Membership
        fields = ("id", "role", "joined_at", "user")
        interfaces = (relay.Node,)

    zammad_user_id = graphene.Int()

    def resolve_zammad_user_id(root: Any, info: Any) -> int | None:
        sees_zammad = sees_zammad_of(root.user, info.context.user)
        zammad_user = getattr(root.user, "zammad_user", None) if sees_zammad else None
        return zammad_user.zammad_id if zammad_user else None


class FamilyPlanInvite(DjangoObjectType):
    class Meta:
        model = models.FamilyPlanInvite
        fields = ("id", "expires_at", "created_at", "mail_status")
        interfaces = (relay.Node,)

    email = graphene.String()
    status = InviteStatus(required=True)

    def resolve_email(root: Any, info: Any) -> str | None:
        return root.email or None

    def resolve_status(root: Any, info: Any) -> str:
        return root.status(now=timezone.now())


class FamilyPlan(DjangoObjectType):
    class Meta:
        model = models.FamilyPlan
        fields = ("id", "name", "created_at")
        interfaces = (relay.Node,)

    user_limit = graphene.Int(required=True)
    seats_taken = graphene.Int(required=True)
    seats_available = graphene.Int(required=True)
    owner = graphene.Field(User)
    members = graphene.List(graphene.NonNull(Membership), required=True)
    invites = DjangoConnectionField(FamilyPlanInvite, status=InviteStatus())

    def resolve_user_limit(root: Any, info: Any) -> int:
        if root.user_limit is None:  # the setting, read once
            root.user_limit = constance.config.USER_LIMIT
        return root.user_limit

    def resolve_seats_taken(root: Any, info: Any) -> int:
        return root.seats_taken_now

    def resolve_seats_available(root: Any, info: Any) -> int:
        return max(0, FamilyPlan.resolve_user_limit(root, info) - root.seats_taken_now)

    def resolve_owner(root: Any, info: Any) -> Any:
        return next((member.user for member in root.memberships.all() if member.is_owner), None)

    def resolve_members(root: Any, info: Any) -> Any:
        return root.memberships.all()

    def resolve_invites(root: Any, info: Any, status: Any = None, **page: Any) -> Any:
        return root.invites.with_status(status, now=timezone.now()).order_by("-pk")


class Viewer(graphene.ObjectType):
    plan = graphene.Field(FamilyPlan)

    def resolve_plan(root: Any, info: Any) -> Any:
        people = models.Membership.objects.owner_first().select_related(
            "user__membership", "user__zammad_user"
        )
        plans = models.FamilyPlan.objects.with_seats(now=timezone.now())
        return (
            plans.filter(memberships__user=info.context.user)
            .prefetch_related(Prefetch("memberships", people))
            .first()
        )


class Query(graphene.ObjectType):
    viewer = graphene.Field(Viewer)

    def resolve_viewer(root: Any, info: Any) -> Viewer:
        return Viewer()


schema = graphene.Schema(query=Query)
view = GraphQLView.as_view(schema=schema, validation_rules=(depth_limit_validator(max_depth=10),))

urlpatterns = [
    path("graphql/", csrf_exempt(with_session_token(view))),
    path("healthz", healthz),
    path("accounts/", include(account_urls)),
]
