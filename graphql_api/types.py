"""The types of the API: what clients see of plans, people, invites and Zammad's users."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, cast

import strawberry
import strawberry_django
from django.contrib.auth import get_user_model
from django.db.models import Prefetch, QuerySet, prefetch_related_objects
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from strawberry import relay
from strawberry.types import Info as StrawberryInfo

from graphql_api.pages import After, First, Page
from plans import models
from plans.access import Access
from plans.models import display_name
from plans.settings import PlanSettings
from zammad import models as zammad_models

if TYPE_CHECKING:
    from django.contrib.auth.models import User as Person

# The people that each row shows, with the seat that decides who sees their address.
PEOPLE_OF_MEMBERSHIP = ("user__zammad_user",)
PEOPLE_OF_INVITE = ("created_by__membership", "user__membership")
PEOPLE_OF_EVENT = (
    "actor__membership",
    "subject__membership",
    "invite__created_by__membership",
    "invite__user__membership",
)


class Context:
    """What the resolvers of one request share: who asks, when, and the settings in force."""

    def __init__(self, request: HttpRequest, response: HttpResponse) -> None:
        self.request = request
        self.response = response
        # For the count of operations: the field that is asked for, and why a mutation was refused.
        self.operation = "none"
        self.refusal = ""

    @property
    def viewer(self) -> models.Viewer:
        return self.request.user

    @cached_property
    def now(self) -> datetime.datetime:
        return timezone.now()

    @cached_property
    def access(self) -> Access:
        return Access(self.viewer)

    @cached_property
    def plan_settings(self) -> PlanSettings:
        return PlanSettings.current()

    def forget(self) -> None:
        """Ask everything anew: a mutation has changed it, and an invite it expired is not open."""
        for name in ("now", "access", "plan_settings"):
            self.__dict__.pop(name, None)


Info: TypeAlias = StrawberryInfo[Context, None]


# --- Plans of one page ---------------------------------------------------------------


def as_peers(plans: list[models.FamilyPlan]) -> list[models.FamilyPlan]:
    """Tell plans of one page about each other: what is asked of one is fetched for all."""
    for plan in plans:
        plan.__dict__["peers"] = plans
    return plans


def peers_of(plan: models.FamilyPlan) -> list[models.FamilyPlan]:
    return cast("list[models.FamilyPlan]", plan.__dict__.get("peers", [plan]))


def fetch_for_peers(
    plan: models.FamilyPlan,
    name: str,
    relation: str,
    rows: Callable[[], QuerySet[Any]],
    page: Page | None = None,
) -> list[Any]:
    """Fetch a page of a plan's relation, in one query for all its peers, and keep it under a name.

    The number of queries depends on the shape of the operation only, also under aliases.
    """
    if name in plan.__dict__:
        return cast("list[Any]", plan.__dict__[name])
    peers = peers_of(plan)
    if len(peers) == 1:
        # The same in a simpler statement: a page for each of many takes a window function.
        found = rows().filter(family_plan=plan)
        plan.__dict__[name] = list(page.slice_of(found) if page else found)
    else:
        found = page.slice_of(rows()) if page else rows()
        prefetch_related_objects(peers, Prefetch(relation, queryset=found, to_attr=name))
    return cast("list[Any]", plan.__dict__[name])


# --- People ----------------------------------------------------------------------------


def user_email(root: strawberry.Parent[Person], info: Info) -> str | None:
    return root.email if info.context.access.sees_address_of(root) else None


def user_display_name(root: strawberry.Parent[Person]) -> str:
    return display_name(root)


@strawberry_django.type(get_user_model(), description="A person, as those who share a plan see them.")
class User(relay.Node):
    display_name: str = strawberry.field(
        resolver=user_display_name,
        description="How others read the person: the full name, else the address up to the @.",
    )
    email: str | None = strawberry.field(
        resolver=user_email,
        description=(
            "The address one signs in with. For the person, the owner of their plan, and staff who may read "
            "every plan; null for everybody else."
        ),
    )


@strawberry_django.type(
    zammad_models.ZammadUser,
    description=(
        "A user of Zammad, the helpdesk, as it last described them. A copy, taken when Zammad tells of a "
        "change; nothing of it grants a right, and an agent may have written anything there."
    ),
)
class ZammadUser:
    zammad_id: int = strawberry_django.field(description="The user's id in Zammad, from 2 up.")
    email: str = strawberry_django.field(description="The address in Zammad, in lower case; may be empty.")
    firstname: str = strawberry_django.field(description="The first name in Zammad; may be empty.")
    lastname: str = strawberry_django.field(description="The last name in Zammad; may be empty.")
    organization: str = strawberry_django.field(
        description="The name of the organization in Zammad; may be empty."
    )
    phone: str = strawberry_django.field(
        description="The telephone number, as it is written in Zammad; may be empty."
    )
    mobile: str = strawberry_django.field(
        description="The mobile number, as it is written in Zammad; may be empty."
    )
    vip: bool = strawberry_django.field(description="Whether agents marked the user as very important.")
    active: bool = strawberry_django.field(
        description="Whether the user is active in Zammad; says nothing about the account here."
    )
    updated_at: datetime.datetime = strawberry_django.field(description="When Zammad last changed the user.")
    synced_at: datetime.datetime = strawberry_django.field(description="When this copy was last renewed.")


def membership_zammad_user(root: strawberry.Parent[models.Membership], info: Info) -> Any:
    if not info.context.access.sees_zammad_of(root):
        return None
    return getattr(root.user, "zammad_user", None)


def membership_zammad_user_id(root: strawberry.Parent[models.Membership], info: Info) -> int | None:
    zammad_user = membership_zammad_user(root, info)
    return zammad_user.zammad_id if zammad_user else None


Role = strawberry.enum(
    models.Membership.Role, name="MembershipRole", description="What a person is to the plan they are in."
)
InviteStatus = strawberry.enum(
    models.FamilyPlanInvite.Status,
    name="InviteStatus",
    description="What an invite is at a moment, by the clock; USED wins over EXPIRED.",
)
MailStatus = strawberry.enum(
    models.FamilyPlanInvite.MailStatus,
    name="MailStatus",
    description="What became of the mail with the invite's link. The invite stands either way.",
)
EventKind = strawberry.enum(
    models.PlanEvent.Kind,
    name="PlanEventKind",
    description="What happened to a plan. More kinds may be added.",
)


@strawberry_django.type(
    models.Membership,
    description="A person's seat in a plan: at most one each, until they leave or are detached.",
)
class Membership(relay.Node):
    user: User = strawberry.field(description="The person who has the seat.")
    role: Role = strawberry.field(description="Whether the person owns the plan.")  # type: ignore[valid-type]
    joined_at: datetime.datetime = strawberry.field(description="When the person took the seat.")
    zammad_user_id: int | None = strawberry.field(
        resolver=membership_zammad_user_id,
        description=(
            "The person's id in Zammad; null until they are associated. For the person and staff who may "
            "see Zammad's data; null for everybody else."
        ),
    )
    zammad_user: ZammadUser | None = strawberry.field(
        resolver=membership_zammad_user,
        description=(
            "The person's data in Zammad; null until they are associated. For the person and staff who may "
            "see Zammad's data; null for everybody else."
        ),
    )


# --- Invites and events ----------------------------------------------------------------


def invite_status(
    root: strawberry.Parent[models.FamilyPlanInvite], info: Info
) -> models.FamilyPlanInvite.Status:
    return root.status(now=info.context.now)


def invite_email(root: strawberry.Parent[models.FamilyPlanInvite]) -> str | None:
    return root.email or None


def invite_is_used(root: strawberry.Parent[models.FamilyPlanInvite]) -> bool:
    return root.user_id is not None


@strawberry_django.type(
    models.FamilyPlanInvite,
    description=(
        "A seat held for whoever brings the token, until it is used or expires. Shown to the plan's owner "
        "and to staff who may read every plan. The token is not here: `CreatedInvite` answers it once."
    ),
)
class FamilyPlanInvite(relay.Node):
    email: str | None = strawberry.field(
        resolver=invite_email,
        description=(
            "The only address that may accept, in lower case; null: whoever has the link may. Also null once "
            "it was erased, long after the invite ended."
        ),
    )
    status: InviteStatus = strawberry.field(  # type: ignore[valid-type]
        resolver=invite_status, description="What the invite is at the moment of asking."
    )
    is_used: bool = strawberry.field(
        resolver=invite_is_used,
        description="Whether somebody holds a seat by it: false again once they are detached.",
    )
    expires_at: datetime.datetime = strawberry.field(
        description="Until when it can be accepted; in the past for one that was revoked or freed."
    )
    created_at: datetime.datetime = strawberry.field(
        description="When it was created; reissuing leaves that as it is."
    )
    created_by: User | None = strawberry.field(
        description="Who created it; null once that account is erased."
    )
    user: User | None = strawberry.field(description="Who holds a seat by it; null while it is unused.")
    mail_status: MailStatus = strawberry.field(  # type: ignore[valid-type]
        description="What became of the mail with its link, when it was last created or reissued."
    )


@strawberry_django.type(
    models.PlanEvent, description="One line of a plan's history: written once, never changed."
)
class PlanEvent(relay.Node):
    kind: EventKind = strawberry.field(description="What happened.")  # type: ignore[valid-type]
    at: datetime.datetime = strawberry.field(description="When it happened.")
    actor: User | None = strawberry.field(description="Who did it; null once that account is erased.")
    subject: User | None = strawberry.field(
        description="To whom it was done; null if to nobody, or once that account is erased."
    )
    invite: FamilyPlanInvite | None = strawberry.field(
        description="The invite it was about; null if it was about none."
    )


@strawberry.type(description="What the holder of an invite's token may know before accepting.")
class InvitePreview:
    plan_name: str = strawberry.field(description="The name of the plan one would join.")
    owner_name: str = strawberry.field(
        description="The display name of the plan's owner; empty once the plan is closed."
    )
    expires_at: datetime.datetime = strawberry.field(description="Until when the invite can be accepted.")
    status: InviteStatus = strawberry.field(  # type: ignore[valid-type]
        description="What the invite is at the moment of asking."
    )


# --- Plans -----------------------------------------------------------------------------


def memberships_of(plan: models.FamilyPlan) -> list[models.Membership]:
    return fetch_for_peers(
        plan,
        "members_with_people",
        "memberships",
        lambda: models.Membership.objects.owner_first().select_related(*PEOPLE_OF_MEMBERSHIP),
    )


def plan_members(root: strawberry.Parent[models.FamilyPlan]) -> Any:
    return memberships_of(root)


def plan_owner(root: strawberry.Parent[models.FamilyPlan]) -> Any:
    return next((member.user for member in memberships_of(root) if member.is_owner), None)


def plan_user_limit(root: strawberry.Parent[models.FamilyPlan], info: Info) -> int:
    return root.limit_in_force(info.context.plan_settings)


def plan_seats_taken(root: strawberry.Parent[models.FamilyPlan], info: Info) -> int:
    if "seats_taken_now" not in root.__dict__:
        peers = peers_of(root)
        plans = models.FamilyPlan.objects.filter(pk__in=[plan.pk for plan in peers])
        rows = plans.with_seats(now=info.context.now).values_list(  # type: ignore[misc]  # annotated
            "pk", "seats_taken_now"
        )
        taken: dict[int, int] = dict(rows)
        for plan in peers:
            plan.__dict__["seats_taken_now"] = taken.get(plan.pk, 0)
    return cast("int", root.__dict__["seats_taken_now"])


def plan_seats_available(root: strawberry.Parent[models.FamilyPlan], info: Info) -> int:
    if root.closed_at:
        return 0
    return max(0, plan_user_limit(root, info) - plan_seats_taken(root, info))


def plan_invites(
    root: strawberry.Parent[models.FamilyPlan],
    info: Info,
    first: First = None,
    after: After = None,
    status: Annotated[
        InviteStatus | None,  # type: ignore[valid-type]
        strawberry.argument(description="Only invites that are this now; all of them if not given."),
    ] = None,
) -> relay.Connection[FamilyPlanInvite] | None:
    if not info.context.access.sees_history_of(root):
        return None
    page = Page(first=first, after=after, newest_first=True)
    invites = models.FamilyPlanInvite.objects.with_status(status, now=info.context.now)
    rows = fetch_for_peers(
        root,
        f"invites_{status}_{page.size}_{page.after}",
        "invites",
        lambda: invites.select_related(*PEOPLE_OF_INVITE),
        page,
    )
    return page.connection_of(rows)


def plan_events(
    root: strawberry.Parent[models.FamilyPlan], info: Info, first: First = None, after: After = None
) -> relay.Connection[PlanEvent] | None:
    if not info.context.access.sees_history_of(root):
        return None
    page = Page(first=first, after=after, newest_first=True)
    rows = fetch_for_peers(
        root,
        f"events_{page.size}_{page.after}",
        "events",
        lambda: models.PlanEvent.objects.select_related(*PEOPLE_OF_EVENT),
        page,
    )
    return page.connection_of(rows)


@strawberry_django.type(
    models.FamilyPlan,
    description=(
        "A plan that one owner shares with the people they invite. A seat is taken by every member, the "
        "owner included, and by every invite that is neither used nor expired."
    ),
)
class FamilyPlan(relay.Node):
    name: str = strawberry.field(description="The plan's name: 1 to 80 characters on one line.")
    user_limit: int = strawberry.field(
        resolver=plan_user_limit,
        description="How many people fit, including the owner: the limit in force, from 1 to 100.",
    )
    seats_taken: int = strawberry.field(
        resolver=plan_seats_taken,
        description="How many seats are taken: members, the owner among them, and open invites.",
    )
    seats_available: int = strawberry.field(
        resolver=plan_seats_available,
        description="How many seats are free now: 0 also for a closed plan, and when a limit was lowered.",
    )
    owner: User | None = strawberry.field(
        resolver=plan_owner, description="Who shares the plan, the main subscriber; null once it is closed."
    )
    members: list[Membership] = strawberry.field(
        resolver=plan_members, description="Everybody in the plan, the owner first; empty once it is closed."
    )
    invites: relay.Connection[FamilyPlanInvite] | None = strawberry.field(
        resolver=plan_invites,
        description="Its invites, newest first. For the owner and staff who may read every plan; else null.",
    )
    events: relay.Connection[PlanEvent] | None = strawberry.field(
        resolver=plan_events,
        description="Its history, newest first. For the owner and staff who may read every plan; else null.",
    )
    created_at: datetime.datetime = strawberry.field(description="When the plan was created.")
    closed_at: datetime.datetime | None = strawberry.field(
        description="When the plan was closed; null while it is open."
    )


def viewer_membership(info: Info) -> Any:
    return info.context.access.membership


def viewer_plan(info: Info) -> Any:
    membership = info.context.access.membership
    return membership.family_plan if membership else None


def viewer_id(root: strawberry.Parent[Person]) -> relay.GlobalID:
    return relay.GlobalID("User", str(root.pk))


def viewer_creates_plan(info: Info) -> bool:
    return info.context.access.creates_own_plan()


@strawberry.type(description="The person who asks, with the seat and the plan they have.")
class Viewer:
    id: relay.GlobalID = strawberry.field(
        resolver=viewer_id, description="The person's node id, the same as of their `User`."
    )
    email: str = strawberry.field(description="The address one signs in with.")
    display_name: str = strawberry.field(
        resolver=user_display_name,
        description="How others read the person: the full name, else the address up to the @.",
    )
    membership: Membership | None = strawberry.field(
        resolver=viewer_membership, description="The seat one has; null for who is in no plan."
    )
    plan: FamilyPlan | None = strawberry.field(
        resolver=viewer_plan, description="The plan one is in; null for who is in none."
    )
    can_create_plan: bool = strawberry.field(
        resolver=viewer_creates_plan,
        description=(
            "Whether `createPlan` would make a plan of one's own now: one is in no plan, and staff let "
            "everybody create one or gave the right to this person."
        ),
    )
