"""The types of the API: what clients see of plans, people, invites and Zammad's users."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Self, TypeAlias, TypeVar

import strawberry
from django.http import HttpRequest, HttpResponse
from strawberry.relay.utils import to_base64
from strawberry.types import Info as StrawberryInfo
from strawberry.types.field import StrawberryField

from graphql_api.pages import After, Connection, First, Keyed, Page
from plans import models, queries
from plans.models import display_name
from plans.reading import Reading
from plans.rules import may_create_plan

if TYPE_CHECKING:
    from django.contrib.auth.models import User as Account

    from plans.visibility import Actor
    from zammad.models import ZammadUser as ZammadRecord

InviteID = Annotated[strawberry.ID, strawberry.argument(description="The node ID of the invite.")]
MembershipID = Annotated[strawberry.ID, strawberry.argument(description="The node ID of the membership.")]
PlanID = Annotated[strawberry.ID, strawberry.argument(description="The node ID of the plan.")]
Token = Annotated[str, strawberry.argument(description="The token from the invite's link: 43 characters.")]

HISTORY_VISIBILITY = "Visible to the owner and to staff who may read every plan; otherwise null."
DISPLAY_NAME = "The name that others see: the full name, or else the words of the address before the @."
ZAMMAD_VISIBILITY = (
    "Visible to staff who may see Zammad's data, and to this person while the address in Zammad is one that "
    "they have verified; otherwise null."
)


class Context:
    """What the resolvers of one request share."""

    def __init__(self, request: HttpRequest, response: HttpResponse) -> None:
        self.request = request
        self.response = response
        self.reading = Reading(request.user)
        # For metrics: the selected field of Query or Mutation, and the code of a refusal.
        self.operation = "none"
        self.refusal = ""

    @property
    def user(self) -> Actor:
        return self.request.user


Info: TypeAlias = StrawberryInfo[Context, None]


Method = TypeVar("Method", bound=Callable[[Any], Any])


class Attribute(StrawberryField):
    """A field that needs nothing but its object, and so skips Strawberry's handling of arguments.

    That handling takes several times as long as most of these fields.
    """

    @property
    def is_basic_field(self) -> bool:
        return True

    def get_result(self, source: Any, info: Any, args: Any, kwargs: Any) -> Any:
        return self.base_resolver.wrapped_func(source)  # type: ignore[union-attr, operator]


def attribute(description: str) -> Callable[[Method], Method]:
    """Declare a method without arguments as a field; on an object it remains that method."""
    return Attribute(description=description)  # type: ignore[return-value]


@strawberry.interface(description="An object with a node ID, by which `node` finds it.")
class Node:
    """A row, as the viewer may see it: an instance of a model, or a named tuple with the same names."""

    row: strawberry.Private[Keyed]
    reading: strawberry.Private[Reading]

    @attribute("The node ID, for `node` and for arguments: opaque, permanent and never reused.")
    def id(self) -> strawberry.ID:
        return strawberry.ID(to_base64(type(self).__name__, self.row.pk))

    @classmethod
    def of(cls, row: Keyed | None, reading: Reading) -> Self | None:
        return None if row is None else cls(row=row, reading=reading)


# --- People ----------------------------------------------------------------------------


@strawberry.type(description="A person, as the others in their plan see them.")
class User(Node):
    row: strawberry.Private[queries.Person]

    @attribute(DISPLAY_NAME)
    def display_name(self) -> str:
        return display_name(self.row)

    @attribute(
        "The address that this person signs in with. Visible to them, to the owner of their plan, and to "
        "staff who may read every plan; otherwise null."
    )
    def email(self) -> str | None:
        return self.row.email if self.reading.viewer.sees_address_of(self.row) else None


@strawberry.type(
    description=(
        "A user of Zammad, the helpdesk: a copy, updated when Zammad reports a change. Nothing in it grants "
        "a right, and an agent may have entered anything."
    ),
)
class ZammadUser:
    zammad_id: int = strawberry.field(description="The user's ID in Zammad: 2 or higher.")
    email: str = strawberry.field(description="The address in Zammad, in lower case; may be empty.")
    firstname: str = strawberry.field(description="The first name in Zammad; may be empty.")
    lastname: str = strawberry.field(description="The last name in Zammad; may be empty.")
    organization: str = strawberry.field(description="The name of the organization in Zammad; may be empty.")
    phone: str = strawberry.field(description="The telephone number, as entered in Zammad; may be empty.")
    mobile: str = strawberry.field(description="The mobile number, as entered in Zammad; may be empty.")
    vip: bool = strawberry.field(description="Whether agents marked the user as very important.")
    active: bool = strawberry.field(
        description="Whether the user is active in Zammad; unrelated to their account here."
    )
    updated_at: datetime.datetime = strawberry.field(description="When Zammad last changed the user.")
    synced_at: datetime.datetime = strawberry.field(description="When this copy was last updated.")


strawberry.enum(models.Membership.Role, name="MembershipRole", description="A person's role in their plan.")
strawberry.enum(
    models.FamilyPlanInvite.Status,
    name="InviteStatus",
    description="An invite's status at the time of the request; USED takes precedence over EXPIRED.",
)
strawberry.enum(
    models.FamilyPlanInvite.MailStatus,
    name="MailStatus",
    description="What happened to the mail with the invite's link. The invite is valid either way.",
)
strawberry.enum(
    models.PlanEvent.Kind,
    name="PlanEventKind",
    description="What happened to a plan. More kinds may be added.",
)


@strawberry.type(
    description="A person's seat in a plan, until they leave or are detached. A person has at most one."
)
class Membership(Node):
    row: strawberry.Private[queries.Member | models.Membership]

    @attribute("The person in the seat.")
    def user(self) -> User:
        person = queries.Person.of(self.row.user, plan_id=self.row.family_plan_id)
        return User(row=person, reading=self.reading)

    @attribute("Whether the person is the plan's owner or a member.")
    def role(self) -> models.Membership.Role:
        return models.Membership.Role(self.row.role)

    @attribute("When the person took the seat.")
    def joined_at(self) -> datetime.datetime:
        return self.row.joined_at

    @attribute(f"The associated Zammad user's ID, or null if there is none. {ZAMMAD_VISIBILITY}")
    def zammad_user_id(self) -> int | None:
        return self._zammad_user.zammad_id if self._zammad_user else None

    @attribute(f"The associated Zammad user, or null if there is none. {ZAMMAD_VISIBILITY}")
    def zammad_user(self) -> ZammadUser | None:
        return self._zammad_user  # type: ignore[return-value]  # has the same attributes

    @property
    def _zammad_user(self) -> queries.ZammadData | ZammadRecord | None:
        return self.row.zammad_user if self.reading.viewer.sees_zammad_user_of(self.row) else None


# --- Invites and events ----------------------------------------------------------------


@strawberry.type(
    description=(
        "A seat held for the bearer of a token, until the invite is used or expires. Visible to the plan's "
        "owner and to staff who may read every plan. Only `CreatedInvite` returns the token, once."
    )
)
class FamilyPlanInvite(Node):
    row: strawberry.Private[queries.Invite | models.FamilyPlanInvite]

    @attribute(
        "The only address that can accept it, in lower case. Null if anyone with the link can, and once the "
        "address has been erased, long after the invite ended."
    )
    def email(self) -> str | None:
        return self.row.email or None

    @attribute("The invite's status at the time of the request.")
    def status(self) -> models.FamilyPlanInvite.Status:
        return self.row.status(now=self.reading.now)

    @attribute("Whether someone has a seat through it; false again once they have left or been detached.")
    def is_used(self) -> bool:
        return self.row.user_id is not None

    @attribute("When it expires; in the past if it was revoked, or if the member who used it is gone.")
    def expires_at(self) -> datetime.datetime:
        return self.row.expires_at

    @attribute("When it was created; reissuing does not change this.")
    def created_at(self) -> datetime.datetime:
        return self.row.created_at

    @attribute("Who created it; null once that account has been erased.")
    def created_by(self) -> User | None:
        return User.of(self.reading.person(self.row.created_by_id), self.reading)

    @attribute("Who has a seat through it; null while it is unused.")
    def user(self) -> User | None:
        return User.of(self.reading.person(self.row.user_id), self.reading)

    @attribute("What happened to the mail with its link when it was created or last reissued.")
    def mail_status(self) -> models.FamilyPlanInvite.MailStatus:
        return models.FamilyPlanInvite.MailStatus(self.row.mail_status)


@strawberry.type(description="An entry in a plan's history. It never changes.")
class PlanEvent(Node):
    row: strawberry.Private[queries.Event | models.PlanEvent]

    @attribute("What happened.")
    def kind(self) -> models.PlanEvent.Kind:
        return models.PlanEvent.Kind(self.row.kind)

    @attribute("When it happened.")
    def at(self) -> datetime.datetime:
        return self.row.at

    @attribute("Who did it; null once that account has been erased.")
    def actor(self) -> User | None:
        return User.of(self.reading.person(self.row.actor_id), self.reading)

    @attribute("The person it was done to; null if there is none, or once that account has been erased.")
    def subject(self) -> User | None:
        return User.of(self.reading.person(self.row.subject_id), self.reading)

    @attribute("The invite involved; null if there is none.")
    def invite(self) -> FamilyPlanInvite | None:
        return FamilyPlanInvite.of(self.row.invite, self.reading)


@strawberry.type(description="What you may know about an invite before you accept it, if you have its token.")
class InvitePreview:
    plan_name: str = strawberry.field(description="The name of the plan that you would join.")
    owner_name: str = strawberry.field(
        description="The display name of the plan's owner; empty once the plan is closed."
    )
    expires_at: datetime.datetime = strawberry.field(description="Until when the invite can be accepted.")
    status: models.FamilyPlanInvite.Status = strawberry.field(
        description="The invite's status at the time of the request."
    )


# --- Plans -----------------------------------------------------------------------------


@strawberry.type(
    description=(
        "A plan that its owner shares with the people they invite. Each member takes a seat, including the "
        "owner, and so does each invite that is neither used nor expired."
    )
)
class FamilyPlan(Node):
    row: strawberry.Private[queries.Plan | queries.LockedPlan | models.FamilyPlan]

    @attribute("The plan's name: 1 to 80 characters on one line.")
    def name(self) -> str:
        return self.row.name

    @attribute("How many people fit, including the owner: the limit in force, from 1 to 100.")
    def user_limit(self) -> int:
        # A plan with a limit of its own needs no settings.
        return self.row.user_limit or self.reading.settings.user_limit

    @attribute("How many seats are taken: by members, including the owner, and by open invites.")
    def seats_taken(self) -> int:
        return self.reading.seats_taken(self.row.pk)

    @attribute(
        "How many seats are free now; never below 0, even if the limit was lowered, and 0 for a closed plan."
    )
    def seats_available(self) -> int:
        if self.row.closed_at:
            return 0
        return max(0, self.user_limit() - self.seats_taken())

    @attribute("The member who shares the plan, its main subscriber; null once it is closed.")
    def owner(self) -> User | None:
        return next((member.user() for member in self.members() if member.row.is_owner), None)

    @attribute("Everyone in the plan, the owner first; empty once it is closed.")
    def members(self) -> list[Membership]:
        return [Membership(row=row, reading=self.reading) for row in self.reading.members(self.row.pk)]

    @strawberry.field(description=f"The plan's invites, newest first. {HISTORY_VISIBILITY}")
    def invites(
        self,
        first: First = None,
        after: After = None,
        status: Annotated[
            models.FamilyPlanInvite.Status | None,
            strawberry.argument(description="Only invites with this status now; all of them if omitted."),
        ] = None,
    ) -> Connection[FamilyPlanInvite] | None:
        if not self.reading.viewer.sees_history_of(self.row.pk):
            return None
        page = Page(first=first, after=after)
        rows = self.reading.invites(self.row.pk, status=status, before=page.after, count=page.fetched)
        return page.connection_of(rows, lambda row: FamilyPlanInvite(row=row, reading=self.reading))

    @strawberry.field(description=f"The plan's history, newest first. {HISTORY_VISIBILITY}")
    def events(self, first: First = None, after: After = None) -> Connection[PlanEvent] | None:
        if not self.reading.viewer.sees_history_of(self.row.pk):
            return None
        page = Page(first=first, after=after)
        rows = self.reading.events(self.row.pk, before=page.after, count=page.fetched)
        return page.connection_of(rows, lambda row: PlanEvent(row=row, reading=self.reading))

    @attribute("When the plan was created.")
    def created_at(self) -> datetime.datetime:
        return self.row.created_at

    @attribute("When the plan was closed; null while it is open.")
    def closed_at(self) -> datetime.datetime | None:
        return self.row.closed_at


@strawberry.type(description="You, with your seat and your plan.")
class Viewer:
    reading: strawberry.Private[Reading]

    @attribute("Your node ID, the same as on your `User`.")
    def id(self) -> strawberry.ID:
        return strawberry.ID(to_base64("User", self.reading.viewer.user_id))

    @attribute("The address that you sign in with.")
    def email(self) -> str:
        return self._user.email

    @attribute(DISPLAY_NAME)
    def display_name(self) -> str:
        return display_name(self._user)

    @attribute("Your seat; null if you are not in a plan.")
    def membership(self) -> Membership | None:
        return Membership.of(self.reading.viewer.membership, self.reading)

    @attribute("Your plan; null if you are not in one.")
    def plan(self) -> FamilyPlan | None:
        seat = self.reading.viewer.membership
        return FamilyPlan.of(seat.family_plan if seat else None, self.reading)

    @attribute(
        "Whether `createPlan` would create a plan for you now: you are not in a plan, you have not reached "
        "the limit of plans in 24 hours, and staff let everyone create plans or gave you the right."
    )
    def can_create_plan(self) -> bool:
        return may_create_plan(self.reading)

    @property
    def _user(self) -> Account:
        return self.reading.viewer.user  # type: ignore[return-value]  # a Viewer is signed in
