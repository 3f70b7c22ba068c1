"""The types of the API: what clients see of plans, people, invites and Zammad's users."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Self, TypeAlias, cast

import strawberry
from django.contrib.auth import get_user_model
from django.db.models import Model
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.functional import SimpleLazyObject
from strawberry.relay.utils import to_base64
from strawberry.types import Info as StrawberryInfo
from strawberry.types.field import StrawberryField

from graphql_api.pages import After, Connection, First, Page
from plans import models
from plans.access import Access
from plans.models import display_name
from plans.reading import People, PlansRead
from plans.settings import PlanSettings

if TYPE_CHECKING:
    from django.contrib.auth.models import User as Person
else:
    Person = get_user_model()


class Context:
    """What the resolvers of one request share: who asks, when, and what was read for them."""

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
        # Read when first asked for: a plan with a limit of its own needs none of them.
        return cast("PlanSettings", SimpleLazyObject(PlanSettings.current))

    @cached_property
    def people(self) -> People:
        return People()

    @cached_property
    def plans_read(self) -> dict[int, PlansRead]:
        return {}

    def read_together(self, plans: Iterable[models.FamilyPlan]) -> None:
        """Remember plans of one page: what is asked of one is fetched for all."""
        new = {plan.pk for plan in plans} - self.plans_read.keys()
        self.plans_read.update(dict.fromkeys(new, PlansRead(new, now=self.now, people=self.people)))

    def forget(self) -> None:
        """Ask everything anew: a mutation has changed it, and an invite it expired is not open."""
        for name in ("now", "access", "plan_settings", "people", "plans_read"):
            self.__dict__.pop(name, None)


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

    row: strawberry.Private[Model]
    context: strawberry.Private[Context]

    @attribute()
    def id(self) -> strawberry.ID:
        return strawberry.ID(to_base64(type(self).__name__, self.row.pk))

    @classmethod
    def of(cls, row: Model | None, context: Context) -> Self | None:
        return None if row is None else cls(row=row, context=context)


# --- People ----------------------------------------------------------------------------


@strawberry.type(description="A person, as those who share a plan see them.")
class User(Node):
    row: strawberry.Private[Person]

    @attribute("How others read the person: the full name, else the words of the address up to the @.")
    def display_name(self) -> str:
        return display_name(self.row)

    @attribute(
        "The address one signs in with. For the person, the owner of their plan, and staff who may read "
        "every plan; null for everybody else."
    )
    def email(self) -> str | None:
        return self.row.email if self.context.access.sees_address_of(self.row) else None


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
    row: strawberry.Private[models.Membership]

    @attribute("The person who has the seat.")
    def user(self) -> User:
        return User(row=self.row.user, context=self.context)

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
        found = self.context.access.zammad_user_of(self.row)
        return found.zammad_id if found else None

    @attribute(
        "The person's data in Zammad; null until they are associated. For staff who may see Zammad's data, "
        "and for the person while the address in Zammad is one they have verified; null for everybody else."
    )
    def zammad_user(self) -> ZammadUser | None:
        return self.context.access.zammad_user_of(self.row)  # type: ignore[return-value]  # has the same attributes


# --- Invites and events ----------------------------------------------------------------


@strawberry.type(
    description=(
        "A seat held for whoever brings the token, until it is used or expires. Shown to the plan's owner "
        "and to staff who may read every plan. The token is not here: `CreatedInvite` answers it once."
    ),
)
class FamilyPlanInvite(Node):
    row: strawberry.Private[models.FamilyPlanInvite]

    @attribute(
        "The only address that may accept, in lower case; null: whoever has the link may. Also null once "
        "it was erased, long after the invite ended."
    )
    def email(self) -> str | None:
        return self.row.email or None

    @attribute("What the invite is at the moment of asking.")
    def status(self) -> models.FamilyPlanInvite.Status:
        return self.row.status(now=self.context.now)

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
        return User.of(self.context.people.get(self.row.created_by_id), self.context)

    @attribute("Who holds a seat by it; null while it is unused.")
    def user(self) -> User | None:
        return User.of(self.context.people.get(self.row.user_id), self.context)

    @attribute("What became of the mail with its link, when it was last created or reissued.")
    def mail_status(self) -> models.FamilyPlanInvite.MailStatus:
        return models.FamilyPlanInvite.MailStatus(self.row.mail_status)


@strawberry.type(description="One line of a plan's history: written once, never changed.")
class PlanEvent(Node):
    row: strawberry.Private[models.PlanEvent]

    @attribute("What happened.")
    def kind(self) -> models.PlanEvent.Kind:
        return models.PlanEvent.Kind(self.row.kind)

    @attribute("When it happened.")
    def at(self) -> datetime.datetime:
        return self.row.at

    @attribute("Who did it; null once that account is erased.")
    def actor(self) -> User | None:
        return User.of(self.context.people.get(self.row.actor_id), self.context)

    @attribute("To whom it was done; null if to nobody, or once that account is erased.")
    def subject(self) -> User | None:
        return User.of(self.context.people.get(self.row.subject_id), self.context)

    @attribute("The invite it was about; null if it was about none.")
    def invite(self) -> FamilyPlanInvite | None:
        return FamilyPlanInvite.of(self.row.invite, self.context)


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
    row: strawberry.Private[models.FamilyPlan]

    @attribute("The plan's name: 1 to 80 characters on one line.")
    def name(self) -> str:
        return self.row.name

    @attribute("How many people fit, including the owner: the limit in force, from 1 to 100.")
    def user_limit(self) -> int:
        return self._limit()

    @attribute("How many seats are taken: members, the owner among them, and open invites.")
    def seats_taken(self) -> int:
        return self._seats_taken()

    @attribute("How many seats are free now: 0 also for a closed plan, and when a limit was lowered.")
    def seats_available(self) -> int:
        if self.row.closed_at:
            return 0
        return max(0, self._limit() - self._seats_taken())

    @attribute("Who shares the plan, the main subscriber; null once it is closed.")
    def owner(self) -> User | None:
        owners = (member.user for member in self._read.members[self.row.pk] if member.is_owner)
        return User.of(next(owners, None), self.context)

    @attribute("Everybody in the plan, the owner first; empty once it is closed.")
    def members(self) -> list[Membership]:
        return [Membership(row=row, context=self.context) for row in self._read.members[self.row.pk]]

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
        if not self.context.access.sees_history_of(self.row):
            return None
        page = Page(first=first, after=after)
        rows = self._read.invites(self.row.pk, status=status, before=page.after, count=page.fetched)
        return page.connection_of(rows, lambda row: FamilyPlanInvite(row=row, context=self.context))

    @strawberry.field(
        description="Its history, newest first. For the owner and staff who may read every plan; else null."
    )
    def events(self, first: First = None, after: After = None) -> Connection[PlanEvent] | None:
        if not self.context.access.sees_history_of(self.row):
            return None
        page = Page(first=first, after=after)
        rows = self._read.events(self.row.pk, before=page.after, count=page.fetched)
        return page.connection_of(rows, lambda row: PlanEvent(row=row, context=self.context))

    @attribute("When the plan was created.")
    def created_at(self) -> datetime.datetime:
        return self.row.created_at

    @attribute("When the plan was closed; null while it is open.")
    def closed_at(self) -> datetime.datetime | None:
        return self.row.closed_at

    @property
    def _read(self) -> PlansRead:
        if self.row.pk not in self.context.plans_read:
            self.context.read_together([self.row])
        return self.context.plans_read[self.row.pk]

    def _seats_taken(self) -> int:
        return self._read.seats_taken.get(self.row.pk, 0)

    def _limit(self) -> int:
        return self.row.limit_in_force(self.context.plan_settings)


@strawberry.type(description="The person who asks, with the seat and the plan they have.")
class Viewer:
    person: strawberry.Private[Person]
    context: strawberry.Private[Context]

    @attribute("The person's node id, the same as of their `User`.")
    def id(self) -> strawberry.ID:
        return strawberry.ID(to_base64("User", self.person.pk))

    @attribute("The address one signs in with.")
    def email(self) -> str:
        return self.person.email

    @attribute("How others read the person: the full name, else the words of the address up to the @.")
    def display_name(self) -> str:
        return display_name(self.person)

    @attribute("The seat one has; null for who is in no plan.")
    def membership(self) -> Membership | None:
        return Membership.of(self.context.access.membership, self.context)

    @attribute("The plan one is in; null for who is in none.")
    def plan(self) -> FamilyPlan | None:
        seat = self.context.access.membership
        return FamilyPlan.of(seat.family_plan if seat else None, self.context)

    @attribute(
        "Whether `createPlan` would make a plan of one's own now: one is in no plan, and staff let "
        "everybody create one or gave the right to this person."
    )
    def can_create_plan(self) -> bool:
        return self.context.access.creates_own_plan()
