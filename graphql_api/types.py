"""The types of the API: what clients see of plans, people, invites and Zammad's users."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Self, TypeAlias

import strawberry
from django.http import HttpRequest, HttpResponse
from strawberry.relay.utils import to_base64
from strawberry.types import Info as StrawberryInfo
from strawberry.types.field import StrawberryField

from graphql_api.pages import After, Connection, First, Page
from plans import models, queries
from plans.models import display_name
from plans.reading import Reading
from plans.rules import may_create_plan

if TYPE_CHECKING:
    from django.contrib.auth.models import User as Account

    from plans.visibility import Actor
    from zammad.models import ZammadUser as ZammadRecord

# A row as a mutation leaves it is an instance of its model, with the same names.
Row: TypeAlias = (
    queries.Person
    | queries.Member
    | queries.Invite
    | queries.Event
    | queries.Plan
    | queries.LockedPlan
    | models.Membership
    | models.FamilyPlanInvite
    | models.PlanEvent
    | models.FamilyPlan
)


class Context:
    """What the resolvers of one request share: the request, and what the operation reads."""

    def __init__(self, request: HttpRequest, response: HttpResponse) -> None:
        self.request = request
        self.response = response
        self.reading = Reading(request.user)
        # For the count of operations: the field that is asked for, and why a mutation was refused.
        self.operation = "none"
        self.refusal = ""

    @property
    def user(self) -> Actor:
        return self.request.user


Info: TypeAlias = StrawberryInfo[Context, None]


class Attribute(StrawberryField):
    """A field that needs nothing but its object.

    The library reads it like a plain attribute: what a resolver is given (the Info, arguments) costs
    several times as much as most of these fields.
    """

    @property
    def is_basic_field(self) -> bool:
        return True

    def get_result(self, source: Any, info: Any, args: Any, kwargs: Any) -> Any:
        return self.base_resolver.wrapped_func(source)  # type: ignore[union-attr, operator]


def attribute(description: str = "") -> Callable[[Callable[[Any], Any]], Any]:
    """Declare a method without arguments as a field."""
    return Attribute(description=description or None)


@strawberry.interface
class Node:
    """A row, as the viewer may see it."""

    row: strawberry.Private[Row]
    reading: strawberry.Private[Reading]

    @attribute()
    def id(self) -> strawberry.ID:
        return strawberry.ID(to_base64(type(self).__name__, self.row.pk))

    @classmethod
    def of(cls, row: Row | None, reading: Reading) -> Self | None:
        return None if row is None else cls(row=row, reading=reading)


# --- People ----------------------------------------------------------------------------


@strawberry.type(description="A person, as those who share a plan see them.")
class User(Node):
    row: strawberry.Private[queries.Person]

    @attribute("How others read the person: the full name, else the words of the address up to the @.")
    def display_name(self) -> str:
        return display_name(self.row)

    @attribute(
        "The address one signs in with. For the person, the owner of their plan, and staff who may read "
        "every plan; null for everybody else."
    )
    def email(self) -> str | None:
        return self.row.email if self.reading.viewer.sees_address_of(self.row) else None


@strawberry.type(
    description=(
        "A user of Zammad, the helpdesk, as it last described them. A copy, taken when Zammad tells of a "
        "change; nothing of it grants a right, and an agent may have written anything there."
    ),
)
class ZammadUser:
    zammad_id: int = strawberry.field(description="The user's id in Zammad, from 2 up.")
    email: str = strawberry.field(description="The address in Zammad, in lower case; may be empty.")
    firstname: str = strawberry.field(description="The first name in Zammad; may be empty.")
    lastname: str = strawberry.field(description="The last name in Zammad; may be empty.")
    organization: str = strawberry.field(description="The name of the organization in Zammad; may be empty.")
    phone: str = strawberry.field(
        description="The telephone number, as it is written in Zammad; may be empty."
    )
    mobile: str = strawberry.field(description="The mobile number, as it is written in Zammad; may be empty.")
    vip: bool = strawberry.field(description="Whether agents marked the user as very important.")
    active: bool = strawberry.field(
        description="Whether the user is active in Zammad; says nothing about the account here."
    )
    updated_at: datetime.datetime = strawberry.field(description="When Zammad last changed the user.")
    synced_at: datetime.datetime = strawberry.field(description="When this copy was last renewed.")


strawberry.enum(
    models.Membership.Role, name="MembershipRole", description="What a person is to the plan they are in."
)
strawberry.enum(
    models.FamilyPlanInvite.Status,
    name="InviteStatus",
    description="What an invite is at a moment, by the clock; USED wins over EXPIRED.",
)
strawberry.enum(
    models.FamilyPlanInvite.MailStatus,
    name="MailStatus",
    description="What became of the mail with the invite's link. The invite stands either way.",
)
strawberry.enum(
    models.PlanEvent.Kind,
    name="PlanEventKind",
    description="What happened to a plan. More kinds may be added.",
)


@strawberry.type(
    description="A person's seat in a plan: at most one each, until they leave or are detached.",
)
class Membership(Node):
    row: strawberry.Private[queries.Member | models.Membership]

    @attribute("The person who has the seat.")
    def user(self) -> User:
        person = queries.Person.of(self.row.user, plan_id=self.row.family_plan_id)
        return User(row=person, reading=self.reading)

    @attribute("Whether the person owns the plan.")
    def role(self) -> models.Membership.Role:
        return models.Membership.Role(self.row.role)

    @attribute("When the person took the seat.")
    def joined_at(self) -> datetime.datetime:
        return self.row.joined_at

    @attribute(
        "The person's id in Zammad; null until they are associated. For staff who may see Zammad's data, "
        "and for the person while the address in Zammad is one they have verified; null for everybody else."
    )
    def zammad_user_id(self) -> int | None:
        return self._zammad_user.zammad_id if self._zammad_user else None

    @attribute(
        "The person's data in Zammad; null until they are associated. For staff who may see Zammad's data, "
        "and for the person while the address in Zammad is one they have verified; null for everybody else."
    )
    def zammad_user(self) -> ZammadUser | None:
        return self._zammad_user  # type: ignore[return-value]  # has the same attributes

    @property
    def _zammad_user(self) -> queries.ZammadData | ZammadRecord | None:
        return self.row.zammad_user if self.reading.viewer.sees_zammad_user_of(self.row) else None


# --- Invites and events ----------------------------------------------------------------


@strawberry.type(
    description=(
        "A seat held for whoever brings the token, until it is used or expires. Shown to the plan's owner "
        "and to staff who may read every plan. The token is not here: `CreatedInvite` answers it once."
    ),
)
class FamilyPlanInvite(Node):
    row: strawberry.Private[queries.Invite | models.FamilyPlanInvite]

    @attribute(
        "The only address that may accept, in lower case; null: whoever has the link may. Also null once "
        "it was erased, long after the invite ended."
    )
    def email(self) -> str | None:
        return self.row.email or None

    @attribute("What the invite is at the moment of asking.")
    def status(self) -> models.FamilyPlanInvite.Status:
        return self.row.status(now=self.reading.now)

    @attribute("Whether somebody holds a seat by it: false again once they are detached.")
    def is_used(self) -> bool:
        return self.row.user_id is not None

    @attribute("Until when it can be accepted; in the past for one that was revoked or freed.")
    def expires_at(self) -> datetime.datetime:
        return self.row.expires_at

    @attribute("When it was created; reissuing leaves that as it is.")
    def created_at(self) -> datetime.datetime:
        return self.row.created_at

    @attribute("Who created it; null once that account is erased.")
    def created_by(self) -> User | None:
        return User.of(self.reading.person(self.row.created_by_id), self.reading)

    @attribute("Who holds a seat by it; null while it is unused.")
    def user(self) -> User | None:
        return User.of(self.reading.person(self.row.user_id), self.reading)

    @attribute("What became of the mail with its link, when it was last created or reissued.")
    def mail_status(self) -> models.FamilyPlanInvite.MailStatus:
        return models.FamilyPlanInvite.MailStatus(self.row.mail_status)


@strawberry.type(description="One line of a plan's history: written once, never changed.")
class PlanEvent(Node):
    row: strawberry.Private[queries.Event | models.PlanEvent]

    @attribute("What happened.")
    def kind(self) -> models.PlanEvent.Kind:
        return models.PlanEvent.Kind(self.row.kind)

    @attribute("When it happened.")
    def at(self) -> datetime.datetime:
        return self.row.at

    @attribute("Who did it; null once that account is erased.")
    def actor(self) -> User | None:
        return User.of(self.reading.person(self.row.actor_id), self.reading)

    @attribute("To whom it was done; null if to nobody, or once that account is erased.")
    def subject(self) -> User | None:
        return User.of(self.reading.person(self.row.subject_id), self.reading)

    @attribute("The invite it was about; null if it was about none.")
    def invite(self) -> FamilyPlanInvite | None:
        return FamilyPlanInvite.of(self.row.invite, self.reading)


@strawberry.type(description="What the holder of an invite's token may know before accepting.")
class InvitePreview:
    plan_name: str = strawberry.field(description="The name of the plan one would join.")
    owner_name: str = strawberry.field(
        description="The display name of the plan's owner; empty once the plan is closed."
    )
    expires_at: datetime.datetime = strawberry.field(description="Until when the invite can be accepted.")
    status: models.FamilyPlanInvite.Status = strawberry.field(
        description="What the invite is at the moment of asking."
    )


# --- Plans -----------------------------------------------------------------------------


@strawberry.type(
    description=(
        "A plan that one owner shares with the people they invite. A seat is taken by every member, the "
        "owner included, and by every invite that is neither used nor expired."
    ),
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

    @attribute("How many seats are taken: members, the owner among them, and open invites.")
    def seats_taken(self) -> int:
        return self.reading.seats_taken(self.row.pk)

    @attribute("How many seats are free now: 0 also for a closed plan, and when a limit was lowered.")
    def seats_available(self) -> int:
        if self.row.closed_at:
            return 0
        return max(0, int(self.user_limit() - self.seats_taken()))

    @attribute("Who shares the plan, the main subscriber; null once it is closed.")
    def owner(self) -> User | None:
        return next((member.user() for member in self.members() if member.row.is_owner), None)

    @attribute("Everybody in the plan, the owner first; empty once it is closed.")
    def members(self) -> list[Membership]:
        return [Membership(row=row, reading=self.reading) for row in self.reading.members(self.row.pk)]

    @strawberry.field(
        description="Its invites, newest first. For the owner and staff who may read every plan; else null."
    )
    def invites(
        self,
        first: First = None,
        after: After = None,
        status: Annotated[
            models.FamilyPlanInvite.Status | None,
            strawberry.argument(description="Only invites that are this now; all of them if not given."),
        ] = None,
    ) -> Connection[FamilyPlanInvite] | None:
        if not self.reading.viewer.sees_history_of(self.row.pk):
            return None
        page = Page(first=first, after=after)
        rows = self.reading.invites(self.row.pk, status=status, before=page.after, count=page.fetched)
        return page.connection_of(rows, lambda row: FamilyPlanInvite(row=row, reading=self.reading))

    @strawberry.field(
        description="Its history, newest first. For the owner and staff who may read every plan; else null."
    )
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


@strawberry.type(description="The person who asks, with the seat and the plan they have.")
class Viewer:
    reading: strawberry.Private[Reading]

    @attribute("The person's node id, the same as of their `User`.")
    def id(self) -> strawberry.ID:
        return strawberry.ID(to_base64("User", self.reading.viewer.user_id))

    @attribute("The address one signs in with.")
    def email(self) -> str:
        return self._user.email

    @attribute("How others read the person: the full name, else the words of the address up to the @.")
    def display_name(self) -> str:
        return display_name(self._user)

    @attribute("The seat one has; null for who is in no plan.")
    def membership(self) -> Membership | None:
        return Membership.of(self.reading.viewer.membership, self.reading)

    @attribute("The plan one is in; null for who is in none.")
    def plan(self) -> FamilyPlan | None:
        seat = self.reading.viewer.membership
        return FamilyPlan.of(seat.family_plan if seat else None, self.reading)

    @attribute(
        "Whether `createPlan` would make a plan of one's own now: one is in no plan, and staff let "
        "everybody create one or gave the right to this person."
    )
    def can_create_plan(self) -> bool:
        return may_create_plan(self.reading)

    @property
    def _user(self) -> Account:
        return self.reading.viewer.user  # type: ignore[return-value]  # a stranger has no Viewer
