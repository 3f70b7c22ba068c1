"""Database queries of plans: the rows that are shown or decided on, mostly by prepared statement."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from allauth.account.models import EmailAddress
from django.contrib.auth import get_user_model
from django.db.models import Exists, F, FilteredRelation, OuterRef, Q, QuerySet, Subquery, Value, Window
from django.db.models.functions import RowNumber

from plans.models import (
    FamilyPlan,
    FamilyPlanInvite,
    Membership,
    PlanEvent,
    count_of,
    open_invites,
    seats_taken,
)
from plans.settings import settings_as_stored
from zammad.statements import statement

if TYPE_CHECKING:
    from django.contrib.auth.models import User

# --- Plans and their rows -------------------------------------------------------------------


class Plan(NamedTuple):
    pk: int
    name: str
    user_limit: int | None
    created_at: datetime.datetime
    closed_at: datetime.datetime | None


class Account(NamedTuple):
    """A user's name and address."""

    pk: int
    first_name: str
    last_name: str
    email: str


class Person(NamedTuple):
    """A user's name and address, and their plan, which decides who sees the address."""

    pk: int
    first_name: str
    last_name: str
    email: str
    family_plan_id: int | None

    @classmethod
    def of(cls, user: Account | User, *, plan_id: int | None) -> Person:
        return cls(user.pk, user.first_name, user.last_name, user.email, plan_id)


class ZammadData(NamedTuple):
    """What Zammad last said about one of its users."""

    zammad_id: int
    email: str
    firstname: str
    lastname: str
    organization: str
    phone: str
    mobile: str
    vip: bool
    active: bool
    updated_at: datetime.datetime
    synced_at: datetime.datetime


class Member(NamedTuple):
    pk: int
    family_plan_id: int
    role: str
    joined_at: datetime.datetime
    user: Account
    family_plan: Plan
    zammad_user: ZammadData | None

    @property
    def is_owner(self) -> bool:
        return self.role == Membership.Role.OWNER


class Invite(NamedTuple):
    pk: int
    family_plan_id: int
    email: str
    created_at: datetime.datetime
    created_by_id: int | None
    expires_at: datetime.datetime
    user_id: int | None
    mail_status: str

    def status(self, *, now: datetime.datetime) -> FamilyPlanInvite.Status:
        return FamilyPlanInvite.Status.at(now, user_id=self.user_id, expires_at=self.expires_at)


class Event(NamedTuple):
    pk: int
    family_plan_id: int
    kind: str
    at: datetime.datetime
    actor_id: int | None
    subject_id: int | None
    invite: Invite | None


class SeatsTaken(NamedTuple):
    family_plan_id: int
    seats_taken: int


def _members() -> QuerySet[Any]:
    known: dict[str, Any] = {"zammad_user": FilteredRelation("user__zammad_user")}
    return Membership.objects.owner_first().annotate(**known)


@statement(Member)
def members(*, plan_ids: list[int]) -> QuerySet[Any]:
    """Fetch the members of plans, owners first."""
    return _members().filter(family_plan__in=plan_ids)


@statement(Member)
def membership_of(*, user_id: int) -> QuerySet[Any]:
    return _members().filter(user=user_id)


@statement(SeatsTaken)
def seats_taken_in(*, plan_ids: list[int], now: datetime.datetime) -> QuerySet[Any]:
    return FamilyPlan.objects.filter(pk__in=plan_ids).annotate(
        family_plan_id=F("pk"), seats_taken=seats_taken(now=now)
    )


@statement(Invite)
def invites(
    *,
    plan_ids: list[int],
    status: FamilyPlanInvite.Status | None,
    before: int | None,
    count: int,
    now: datetime.datetime,
) -> QuerySet[Any]:
    """Fetch the newest invites of each plan, or the newest before one of them."""
    rows = FamilyPlanInvite.objects.with_status(status, now=now)
    return _newest(rows, plan_ids=plan_ids, before=before, count=count)


@statement(Event)
def events(*, plan_ids: list[int], before: int | None, count: int) -> QuerySet[Any]:
    """Fetch the newest events of each plan, or the newest before one of them."""
    return _newest(PlanEvent.objects.all(), plan_ids=plan_ids, before=before, count=count)


def _newest(rows: QuerySet[Any], *, plan_ids: list[int], before: int | None, count: int) -> QuerySet[Any]:
    rows = rows.filter(family_plan__in=plan_ids)
    if before is not None:
        rows = rows.filter(pk__lt=before)
    place = Window(RowNumber(), partition_by=F("family_plan"), order_by="-pk")
    newest: QuerySet[Any] = rows.alias(place=place).filter(place__lte=count).order_by("-pk")
    return newest


@statement(Person)
def people(*, user_ids: list[int]) -> QuerySet[Any]:
    everybody = get_user_model()._default_manager
    return everybody.filter(pk__in=user_ids).annotate(family_plan_id=F("membership__family_plan"))


# --- What rights and rules depend on --------------------------------------------------------


class PlanRole(NamedTuple):
    """A user's role in a plan that exists."""

    role: str | None


class PlanRoom(NamedTuple):
    """A plan, and whether it can issue an invite. The invite itself does not count as a seat taken."""

    role: str | None
    user_limit: int | None
    closed_at: datetime.datetime | None
    seats_taken: int
    issued: int  # since a moment, in this plan
    issued_by_owner: int  # since then, by this user as the owner of any plan
    address_sits: bool
    address_invited: bool
    settings: str

    @property
    def is_owned(self) -> bool:
        return self.role == Membership.Role.OWNER


def _plan_and_role(plan_id: int, user_id: int) -> QuerySet[FamilyPlan]:
    seat = Membership.objects.filter(family_plan=OuterRef("pk"), user=user_id)
    return FamilyPlan.objects.filter(pk=plan_id).annotate(role=Subquery(seat.values("role")))


@statement(PlanRole)
def plan_and_role(*, plan_id: int, user_id: int) -> QuerySet[Any]:
    return _plan_and_role(plan_id, user_id)


@statement(PlanRoom)
def plan_and_room(
    *,
    plan_id: int,
    user_id: int,
    invite_id: int | None,
    address: str | None,
    spellings: list[str],
    now: datetime.datetime,
    since: datetime.datetime,
) -> QuerySet[Any]:
    """Fetch what decides whether a new or known invite may be issued, for an address or for anybody."""
    issued = PlanEvent.objects.issuing(since=since)
    # In this plan only: the response must not reveal an account or a plan elsewhere.
    members = Membership.objects.filter(
        family_plan=OuterRef("pk"),
        user__emailaddress__email__in=spellings,
        user__emailaddress__verified=True,
    )
    others = open_invites(now=now, besides=invite_id).filter(email=address)
    return _plan_and_role(plan_id, user_id).annotate(
        seats_taken=seats_taken(now=now, besides=invite_id),
        issued=count_of(issued.filter(family_plan=OuterRef("pk"))),
        issued_by_owner=count_of(issued.counted_for(user_id), by="actor"),
        address_sits=Exists(members) if address else Value(False),
        address_invited=Exists(others) if address else Value(False),
        settings=settings_as_stored(),
    )


def addresses_of(user_id: int | None) -> list[str]:
    """List the addresses that a user has verified, in lower case as allauth stores them."""
    verified = EmailAddress.objects.filter(user=user_id, verified=True)
    return list(verified.values_list("email", flat=True))


# --- Under the lock of a plan ---------------------------------------------------------------


class LockedPlan(NamedTuple):
    """A plan whose row is locked, with the settings in force."""

    pk: int
    name: str
    user_limit: int | None
    created_at: datetime.datetime
    closed_at: datetime.datetime | None
    settings: str


class InviteOfToken(NamedTuple):
    """An invite as the holder of its token sees it."""

    pk: int
    email: str
    expires_at: datetime.datetime
    user_id: int | None
    members: int  # how many people are in the plan
    family_plan: Plan

    def status(self, *, now: datetime.datetime) -> FamilyPlanInvite.Status:
        return FamilyPlanInvite.Status.at(now, user_id=self.user_id, expires_at=self.expires_at)


class Seat(NamedTuple):
    pk: int
    family_plan_id: int
    role: str


class AccountAddress(NamedTuple):
    """A user, one of their verified addresses, their seat, and the invite that led to it."""

    pk: int
    first_name: str
    last_name: str
    email: str
    is_active: bool
    address: str | None
    membership: Seat | None
    family_plan_invite: Invite | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Participant:
    """A user involved in a change of a plan, as they are now."""

    user: AccountAddress
    addresses: list[str] = field(default_factory=list)  # verified; the primary one comes last

    @property
    def seat(self) -> Seat | None:
        return self.user.membership

    def role_in(self, plan_id: int) -> str | None:
        return self.seat.role if self.seat and self.seat.family_plan_id == plan_id else None


# No joins: FOR UPDATE would lock the rows of every joined table.
def _locked_plans() -> QuerySet[FamilyPlan]:
    return FamilyPlan.objects.select_for_update().annotate(settings=settings_as_stored())


@statement(LockedPlan)
def lock_plan(*, plan_id: int) -> QuerySet[Any]:
    return _locked_plans().filter(pk=plan_id)


@statement(LockedPlan)
def lock_plan_of_token(*, token_digest: str) -> QuerySet[Any]:
    invite = FamilyPlanInvite.objects.filter(token_digest=token_digest)
    return _locked_plans().filter(pk__in=invite.values("family_plan"))


@statement(LockedPlan)
def lock_plan_of_member(*, membership_id: int, seen_by: int | None) -> QuerySet[Any]:
    """Lock the plan of a membership; with `seen_by`, only if that user is in the plan, too."""
    seats = Membership.objects.values("family_plan")
    plans = _locked_plans().filter(pk__in=seats.filter(pk=membership_id))
    return plans if seen_by is None else plans.filter(pk__in=seats.filter(user=seen_by))


@statement(Account)
def lock_person(*, user_id: int) -> QuerySet[Any]:
    """Lock an active user, so that two plans cannot seat them at the same time."""
    # NO KEY UPDATE: others may write foreign keys to this user without waiting.
    everybody = get_user_model()._default_manager.select_for_update(no_key=True)
    return everybody.filter(pk=user_id, is_active=True)


@statement(InviteOfToken)
def invite_of_token(*, token_digest: str, lock: bool) -> QuerySet[Any]:
    rows = FamilyPlanInvite.objects.filter(token_digest=token_digest)
    members = Membership.objects.filter(family_plan=OuterRef("family_plan"))
    rows = rows.annotate(members=count_of(members))
    return rows.select_for_update() if lock else rows


@statement(AccountAddress)
def _participants(*, plan_id: int, user_id: int, membership_id: int | None) -> QuerySet[Any]:
    everybody = get_user_model()._default_manager
    seats = Membership.objects.values("user")
    # A union: with OR the database would scan all users.
    keys = [seats.filter(family_plan=plan_id, role=Membership.Role.OWNER)]
    if membership_id is not None:
        keys.append(seats.filter(pk=membership_id))
    return (
        everybody.filter(pk__in=everybody.filter(pk=user_id).values("pk").union(*keys, all=True))
        .annotate(
            verified=FilteredRelation("emailaddress", condition=Q(emailaddress__verified=True)),
            address=F("verified__email"),
        )
        .order_by("verified__primary")
    )


def participants(
    *, plan_id: int, user_id: int, membership_id: int | None = None
) -> tuple[dict[int, Participant], Participant | None]:
    """Fetch a user, a membership's user and the plan's owner, by primary key; return the owner as well."""
    people: dict[int, Participant] = {}
    for row in _participants(plan_id=plan_id, user_id=user_id, membership_id=membership_id):
        participant = people.setdefault(row.pk, Participant(user=row))
        if row.address is not None:
            participant.addresses.append(row.address)
    owners = (each for each in people.values() if each.role_in(plan_id) == Membership.Role.OWNER)
    return people, next(owners, None)
