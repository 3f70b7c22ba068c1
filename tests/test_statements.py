"""Prepared statements return what their QuerySets do, on every database."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from typing import Any, NamedTuple

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection, transaction
from django.db.models import QuerySet
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from config import accounts
from plans import queries
from plans.models import FamilyPlan, FamilyPlanInvite, Membership, PlanEvent, digest_of
from tests.factories import InviteFactory, ZammadUserFactory
from zammad.statements import Statement, statement

pytestmark = pytest.mark.django_db

NOW = timezone.now()
DAY = datetime.timedelta(days=1)
TOKEN = "t" * 43

STATEMENTS: dict[str, Statement[..., Any]] = {
    name: each
    for module in (queries, accounts)
    for name, each in vars(module).items()
    if isinstance(each, Statement)
}


@pytest.fixture
def world(plan: FamilyPlan, alice: User, bob: User, carol: User) -> dict[str, Any]:
    """A plan with rows of every kind, and null wherever a column allows it."""
    ZammadUserFactory(user=bob)
    open_invite = InviteFactory(
        family_plan=plan, created_by=alice, email="x@example.com", token=TOKEN, expires_at=NOW + DAY
    )
    InviteFactory(family_plan=plan, created_by=None, expires_at=NOW - DAY)
    for kind, invite in [("PLAN_CREATED", None), ("INVITE_CREATED", open_invite)]:
        PlanEvent.objects.create(family_plan=plan, kind=kind, invite=invite, actor=alice, at=NOW)
    PlanEvent.objects.create(family_plan=plan, kind="PLAN_CLOSED")
    bob.user_permissions.add(Permission.objects.get(codename="view_familyplan"))
    return {
        "plan": plan.pk,
        "alice": alice.pk,
        "bob": bob.pk,
        "carol": carol.pk,
        "seat": bob.membership.pk,
        "invite": open_invite.pk,
        "digest": digest_of(TOKEN),
    }


# Values for each statement: some that match, and some that are empty, null or unknown.
VALUES: dict[str, Callable[[dict[str, Any]], list[dict[str, Any]]]] = {
    "members": lambda w: [{"plan_ids": [w["plan"]]}, {"plan_ids": [w["plan"], 0]}, {"plan_ids": []}],
    "membership_of": lambda w: [{"user_id": w["alice"]}, {"user_id": w["bob"]}, {"user_id": w["carol"]}],
    "seats_taken_in": lambda w: [{"plan_ids": [w["plan"]], "now": NOW}, {"plan_ids": [], "now": NOW}],
    "invites": lambda w: [
        {"plan_ids": [w["plan"]], "status": status, "before": before, "count": count, "now": NOW}
        for status in (None, *FamilyPlanInvite.Status)
        for before in (None, w["invite"] + 1)
        for count in (0, 1, 100)
    ],
    "events": lambda w: [
        {"plan_ids": plan_ids, "before": before, "count": count}
        for plan_ids in ([w["plan"]], [])
        for before in (None, 10**9)
        for count in (1, 100)
    ],
    "people": lambda w: [{"user_ids": [w["alice"], w["carol"]]}, {"user_ids": []}],
    "plan_and_role": lambda w: [
        {"plan_id": w["plan"], "user_id": w["alice"]},
        {"plan_id": w["plan"], "user_id": w["carol"]},
        {"plan_id": 0, "user_id": w["alice"]},
    ],
    "plan_and_room": lambda w: [
        {
            "plan_id": w["plan"],
            "user_id": user_id,
            "invite_id": invite_id,
            "address": address,
            "spellings": [address] if address else [],
            "now": NOW,
            "since": NOW - DAY,
        }
        for user_id in (w["alice"], w["carol"])
        for invite_id in (None, w["invite"])
        for address in (None, "bob@example.com", "x@example.com")
    ],
    "lock_plan": lambda w: [{"plan_id": w["plan"]}, {"plan_id": 0}],
    "lock_plan_of_token": lambda w: [{"token_digest": w["digest"]}, {"token_digest": ""}],
    "lock_plan_of_member": lambda w: [
        {"membership_id": w["seat"], "seen_by": seen_by} for seen_by in (None, w["alice"], w["carol"])
    ],
    "lock_person": lambda w: [{"user_id": w["alice"]}, {"user_id": 0}],
    "invite_of_token": lambda w: [
        {"token_digest": digest, "lock": lock} for digest in (w["digest"], "") for lock in (True, False)
    ],
    "_participants": lambda w: [
        {"plan_id": w["plan"], "user_id": user_id, "membership_id": membership_id}
        for user_id in (w["alice"], w["carol"])
        for membership_id in (None, w["seat"])
    ],
    "rights_of": lambda w: [{"user_id": w["bob"]}, {"user_id": w["alice"]}],
}


@pytest.mark.parametrize("name", sorted(STATEMENTS))
def test_a_statement_returns_the_rows_of_its_queryset(name: str, world: dict[str, Any]) -> None:
    each = STATEMENTS[name]
    found_something = False
    for values in VALUES[name](world):
        with transaction.atomic():
            found = each(**values)
            expected = [each.make(row) for row in each.rows(**values).values_list(*each.columns)]
        assert sorted(found, key=repr) == sorted(expected, key=repr)
        found_something = found_something or bool(found)
    assert found_something


# --- How a statement works ----------------------------------------------------------------------


class Invite(NamedTuple):
    pk: int
    email: str


class Person(NamedTuple):
    pk: int
    email: str


class Seat(NamedTuple):
    pk: int
    user: Person


class PersonWithSeat(NamedTuple):
    pk: int
    membership: Seat | None


@statement(Invite)
def addressed(*, email: str) -> QuerySet[Any]:
    return FamilyPlanInvite.objects.filter(email=email)


@statement(PersonWithSeat)
def people_with_seats(*, user_ids: list[int]) -> QuerySet[Any]:
    return User.objects.filter(pk__in=user_ids).order_by("pk")


def test_related_rows_are_named_tuples_within_or_none(alice: User, carol: User, plan: FamilyPlan) -> None:
    with CaptureQueriesContext(connection) as captured:
        found = people_with_seats(user_ids=[alice.pk, carol.pk])

    assert len(captured) == 1
    seat = Membership.objects.get(user=alice)
    assert found == [
        PersonWithSeat(alice.pk, Seat(seat.pk, Person(alice.pk, "alice@example.com"))),
        PersonWithSeat(carol.pk, None),
    ]


def test_each_execution_takes_its_own_values_and_compiles_nothing(plan: FamilyPlan) -> None:
    made: list[int] = []

    @statement(Invite)
    def open_invites(*, plan_id: int, now: datetime.datetime) -> QuerySet[Any]:
        made.append(1)
        return FamilyPlanInvite.objects.open(now=now).filter(family_plan=plan_id)

    invite = InviteFactory(family_plan=plan, expires_at=NOW + DAY)

    assert [row.pk for row in open_invites(plan_id=plan.pk, now=NOW)] == [invite.pk]
    assert open_invites(plan_id=plan.pk, now=NOW + 2 * DAY) == []
    assert open_invites(plan_id=plan.pk + 1, now=NOW) == []
    assert len(made) == (1 if connection.vendor == "postgresql" else 3)


class Order(Enum):
    UP = "pk"
    DOWN = "-pk"


def test_none_a_bool_and_an_enum_choose_the_queryset(plan: FamilyPlan, alice: User, bob: User) -> None:
    @statement(Invite)
    def invites_of(*, user_id: int | None, order: Order, none: bool) -> QuerySet[Any]:
        rows = FamilyPlanInvite.objects.filter(user=user_id).order_by(order.value)
        return rows.none() if none else rows

    invites = [InviteFactory(family_plan=plan).pk, InviteFactory(family_plan=plan).pk]
    used = FamilyPlanInvite.objects.get(user=bob).pk

    def keys(**values: Any) -> list[int]:
        return [row.pk for row in invites_of(**values)]

    assert keys(user_id=None, order=Order.UP, none=False) == invites
    assert keys(user_id=None, order=Order.DOWN, none=False) == invites[::-1]
    assert keys(user_id=bob.pk, order=Order.UP, none=False) == [used]
    assert keys(user_id=alice.pk, order=Order.UP, none=False) == []


def test_a_value_is_a_value_and_never_a_piece_of_the_statement(plan: FamilyPlan) -> None:
    InviteFactory(family_plan=plan, email="x@example.com")

    assert len(addressed(email="x@example.com")) == 1
    assert addressed(email="' OR 1=1 --") == []
    assert addressed(email="%s") == []


def test_a_missing_value_is_an_error_and_not_a_broader_question(plan: FamilyPlan) -> None:
    addressed(email="x@example.com")

    with pytest.raises((TypeError, KeyError)):
        addressed()  # type: ignore[call-arg]


@pytest.mark.django_db(transaction=True)
def test_threads_share_a_statement_and_not_a_connection(plan: FamilyPlan) -> None:
    @statement(Invite)
    def of_plan(*, plan_id: int) -> QuerySet[Any]:
        return FamilyPlanInvite.objects.filter(family_plan=plan_id)

    invite = InviteFactory(family_plan=plan, email=f"{uuid.uuid4()}@example.com")

    def fetch(_: int) -> tuple[bool, int]:
        try:
            return Invite(invite.pk, invite.email) in of_plan(plan_id=plan.pk), id(connection.connection)
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(fetch, range(8)))

    assert all(found for found, _ in answers)
    assert len({used for _, used in answers}) > 1
