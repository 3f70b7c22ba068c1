"""The plan query in Ariadne, as its documentation writes it, and the URLs of its service."""

from typing import Any

import constance
from allauth.account import urls as account_urls
from ariadne import EnumType, ObjectType, QueryType, ScalarType, gql, make_executable_schema
from ariadne.validation import cost_validator
from ariadne_django.views import GraphQLView
from django.db.models import Prefetch
from django.urls import include, path
from django.utils import timezone

from config.views import healthz
from plans import models
from tests.benchmarks.rivals.plain import node_id, sees_zammad_of, with_session_token

type_defs = gql("""
    scalar DateTime
    enum MembershipRole { OWNER MEMBER }
    enum InviteStatus { OPEN USED EXPIRED }
    enum MailStatus { NONE SENT SKIPPED FAILED }
    type Query { viewer: Viewer }
    type Viewer { plan: FamilyPlan }
    type User { id: ID! displayName: String! email: String }
    type Membership { id: ID! role: MembershipRole! joinedAt: DateTime! zammadUserId: Int user: User! }
    type FamilyPlanInvite {
        id: ID! email: String status: InviteStatus! expiresAt: DateTime! createdAt: DateTime!
        mailStatus: MailStatus!
    }
    type InviteEdge { node: FamilyPlanInvite! }
    type InviteConnection { edges: [InviteEdge!]! }
    type FamilyPlan {
        id: ID! name: String! userLimit: Int! seatsTaken: Int! seatsAvailable: Int! createdAt: DateTime!
        owner: User members: [Membership!]! invites(status: InviteStatus): InviteConnection
    }
""")

query = QueryType()
viewer = ObjectType("Viewer")
plan = ObjectType("FamilyPlan")
membership = ObjectType("Membership")
person = ObjectType("User")
invite = ObjectType("FamilyPlanInvite")
moment = ScalarType("DateTime", serializer=lambda value: value.isoformat())

for type_ in (plan, membership, person, invite):
    type_.set_field("id", lambda row, info: node_id(info.parent_type.name, row.pk))


@query.field("viewer")
def resolve_viewer(_: Any, info: Any) -> Any:
    return info.context["request"].user


@viewer.field("plan")
def resolve_plan(user: Any, info: Any) -> Any:
    people = models.Membership.objects.owner_first().select_related("user__membership", "user__zammad_user")
    plans = models.FamilyPlan.objects.with_seats(now=timezone.now())
    return plans.filter(memberships__user=user).prefetch_related(Prefetch("memberships", people)).first()


@plan.field("userLimit")
def resolve_user_limit(row: Any, info: Any) -> int:
    if row.user_limit is None:  # the setting, read once
        row.user_limit = constance.config.USER_LIMIT
    return row.user_limit


@plan.field("seatsAvailable")
def resolve_seats_available(row: Any, info: Any) -> int:
    return max(0, resolve_user_limit(row, info) - row.seats_taken_now)


@plan.field("owner")
def resolve_owner(row: Any, info: Any) -> Any:
    return next((member.user for member in row.memberships.all() if member.is_owner), None)


@plan.field("members")
def resolve_members(row: Any, info: Any) -> Any:
    return row.memberships.all()


@plan.field("invites")
def resolve_invites(row: Any, info: Any, status: Any = None) -> Any:
    rows = row.invites.with_status(status, now=timezone.now()).order_by("-pk")[:100]
    return {"edges": [{"node": node} for node in rows]}


@membership.field("zammadUserId")
def resolve_zammad_user_id(row: Any, info: Any) -> int | None:
    sees_zammad = sees_zammad_of(row.user, info.context["request"].user)
    zammad_user = getattr(row.user, "zammad_user", None) if sees_zammad else None
    return zammad_user.zammad_id if zammad_user else None


@person.field("displayName")
def resolve_display_name(row: Any, info: Any) -> str:
    return models.display_name(row)


@person.field("email")
def resolve_email(row: Any, info: Any) -> str | None:
    user = info.context["request"].user
    seat, own = row.membership, user.membership
    sees = row == user or (own.is_owner and own.family_plan_id == seat.family_plan_id)
    return row.email if sees else None


@invite.field("email")
def resolve_invite_email(row: Any, info: Any) -> str | None:
    return row.email or None


@invite.field("status")
def resolve_status(row: Any, info: Any) -> Any:
    return row.status(now=timezone.now())


plan.set_alias("seatsTaken", "seats_taken_now")

schema = make_executable_schema(
    type_defs,
    query,
    viewer,
    plan,
    membership,
    person,
    invite,
    moment,
    EnumType("MembershipRole", models.Membership.Role),
    EnumType("InviteStatus", models.FamilyPlanInvite.Status),
    EnumType("MailStatus", models.FamilyPlanInvite.MailStatus),
    convert_names_case=True,
)
view = GraphQLView.as_view(
    schema=schema, introspection=False, validation_rules=[cost_validator(maximum_cost=1000)]
)

urlpatterns = [
    path("graphql/", with_session_token(view)),
    path("healthz", healthz),
    path("accounts/", include(account_urls)),
]
