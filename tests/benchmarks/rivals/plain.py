"""The plan query as a plain Django view over the ORM, the baseline; and the sign-in that all rivals share."""

from __future__ import annotations

import base64
from collections.abc import Callable
from functools import wraps
from typing import Any

import constance
from allauth.headless.internal.sessionkit import authenticate_by_x_session_token
from django.db.models import Prefetch
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.utils import timezone
from django.views.decorators.csrf import csrf_exempt

from plans.models import FamilyPlan, FamilyPlanInvite, Membership, display_name

View = Callable[[HttpRequest], HttpResponseBase]


def with_session_token(view: View) -> View:
    """Sign in the owner of an allauth session token, as /graphql/ does."""

    @wraps(view)
    def checked(request: HttpRequest) -> HttpResponseBase:
        found = authenticate_by_x_session_token(request.headers.get("X-Session-Token", ""))
        if found is None:
            return JsonResponse({"error": "NOT_AUTHENTICATED"}, status=401)
        request.user = found[0]
        return view(request)

    return checked


@csrf_exempt
def empty_view(request: HttpRequest) -> HttpResponse:
    """Read the body and return nothing: the most that workers and middleware can do."""
    _ = request.body
    return HttpResponse()


@csrf_exempt
@with_session_token
def plan_view(request: HttpRequest) -> JsonResponse:
    """Return the requester's plan: members, open invites and seats."""
    members = Membership.objects.owner_first().select_related("user__zammad_user")
    invites = FamilyPlanInvite.objects.open(now=timezone.now()).order_by("-pk")
    plan = (
        FamilyPlan.objects.filter(memberships__user=request.user.pk)
        .prefetch_related(
            Prefetch("memberships", members, to_attr="members"),
            Prefetch("invites", invites, to_attr="open_invites"),
        )
        .first()
    )
    return JsonResponse({"plan": plan and plan_as_json(plan, request)})


def plan_as_json(plan: Any, request: HttpRequest) -> dict[str, Any]:
    limit = plan.user_limit or constance.config.USER_LIMIT
    taken = len(plan.members) + len(plan.open_invites)
    owner = next((member.user for member in plan.members if member.is_owner), None)
    asks_owner = owner == request.user
    return {
        "id": node_id("FamilyPlan", plan.pk),
        "name": plan.name,
        "userLimit": limit,
        "seatsTaken": taken,
        "seatsAvailable": max(0, limit - taken),
        "createdAt": plan.created_at,
        "owner": owner and person_as_json(owner, request, asks_owner=asks_owner),
        "members": [member_as_json(member, request, asks_owner=asks_owner) for member in plan.members],
        "invites": [invite_as_json(invite) for invite in plan.open_invites] if asks_owner else None,
    }


def sees_zammad_of(person: Any, viewer: Any) -> bool:
    """Show Zammad's data to the person and to staff with the right, as all candidates do."""
    return bool(person == viewer or viewer.has_perm("zammad.view_zammaduser"))


def member_as_json(member: Membership, request: HttpRequest, *, asks_owner: bool) -> dict[str, Any]:
    sees_zammad = sees_zammad_of(member.user, request.user)
    zammad_user = getattr(member.user, "zammad_user", None) if sees_zammad else None
    return {
        "id": node_id("Membership", member.pk),
        "role": member.role,
        "joinedAt": member.joined_at,
        "zammadUserId": zammad_user.zammad_id if zammad_user else None,
        "user": person_as_json(member.user, request, asks_owner=asks_owner),
    }


def person_as_json(person: Any, request: HttpRequest, *, asks_owner: bool) -> dict[str, Any]:
    return {
        "id": node_id("User", person.pk),
        "displayName": display_name(person),
        "email": person.email if asks_owner or person == request.user else None,
    }


def invite_as_json(invite: FamilyPlanInvite) -> dict[str, Any]:
    return {
        "id": node_id("FamilyPlanInvite", invite.pk),
        "email": invite.email or None,
        "status": FamilyPlanInvite.Status.OPEN,
        "expiresAt": invite.expires_at,
        "createdAt": invite.created_at,
        "mailStatus": invite.mail_status,
    }


def node_id(type_name: str, key: int) -> str:
    """Return the ID that the GraphQL candidates return: all must return the same values."""
    return base64.b64encode(f"{type_name}:{key}".encode()).decode()
