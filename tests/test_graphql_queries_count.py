"""How many SQL queries an operation takes: as many for fifty rows as for one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings

from plans.models import FamilyPlan, PlanEvent
from tests.api import client_of, node_id, post
from tests.factories import InviteFactory, MembershipFactory, OwnerFactory, UserFactory, ZammadUserFactory

pytestmark = pytest.mark.django_db

PERSON = "{ id displayName email }"
INVITE = f"id email status isUsed expiresAt createdAt createdBy {PERSON} user {PERSON} mailStatus"
EVENT = f"id kind at actor {PERSON} subject {PERSON} invite {{ {INVITE} }}"
EVERYTHING = f"""id name userLimit seatsTaken seatsAvailable createdAt closedAt owner {PERSON}
    members {{ id role joinedAt user {PERSON} zammadUserId zammadUser {{ zammadId email }} }}
    invites {{ edges {{ cursor node {{ {INVITE} }} }} pageInfo {{ hasNextPage }} }}
    events {{ edges {{ cursor node {{ {EVENT} }} }} pageInfo {{ hasNextPage }} }}"""
TWICE = f"""open: invites(first: 3, status: OPEN) {{ edges {{ node {{ {INVITE} }} }} }}
    used: invites(first: 3, status: USED) {{ edges {{ node {{ {INVITE} }} }} }}
    same: invites(first: 3, status: USED) {{ edges {{ node {{ id }} }} }}
    first: events(first: 3) {{ edges {{ node {{ {EVENT} }} }} }}
    again: events(first: 3) {{ edges {{ node {{ id }} }} }}"""


def fill(plan: FamilyPlan, *, people: int) -> None:
    """Let people join a plan by invites, with the events, and make each of them known to Zammad."""
    owner = User.objects.get(membership__family_plan=plan, membership__role="OWNER")
    for _ in range(people):
        person = UserFactory()
        MembershipFactory(family_plan=plan, user=person)
        ZammadUserFactory(user=person)
        used = InviteFactory(family_plan=plan, created_by=owner, user=person)
        InviteFactory(family_plan=plan, created_by=person)
        PlanEvent.objects.create(
            family_plan=plan, kind="INVITE_ACCEPTED", actor=person, subject=person, invite=used
        )


def queries_of(viewer: User, query: str, **variables: object) -> int:
    """Count the queries of an operation, including those for the session and the rights."""
    client = client_of(viewer)
    with CaptureQueriesContext(
        connection,
    ) as captured:
        response = post(client, query, variables)
    assert "errors" not in response.json(), response.json()["errors"]
    return len(captured)


@pytest.mark.parametrize(
    ("selection", "queries"),
    [
        ("id name createdAt closedAt", 3),  # session, person, seat with plan
        ("owner { id } members { id user { id } }", 4),
        ("userLimit seatsTaken seatsAvailable", 5),
        (EVERYTHING, 9),  # rights decide who sees Zammad's data
        (TWICE, 8),
    ],
    ids=["columns", "people", "seats", "everything", "twice"],
)
def test_a_plan_takes_as_many_queries_for_fifty_rows_as_for_one(
    selection: str, queries: int, alice: User, plan: FamilyPlan
) -> None:
    query = f"query ($id: ID!) {{ plan(id: $id) {{ {selection} }} }}"
    fill(plan, people=1)
    assert queries_of(alice, query, id=node_id(plan)) == queries

    fill(plan, people=49)
    assert queries_of(alice, query, id=node_id(plan)) == queries


@pytest.mark.parametrize(
    ("selection", "queries"),
    [
        ("id name createdAt closedAt", 4),  # session, person, their rights, plans
        ("owner { id } members { id user { id } }", 5),
        ("userLimit seatsTaken seatsAvailable", 6),
        (EVERYTHING, 10),
        (TWICE, 10),
    ],
    ids=["columns", "people", "seats", "everything", "twice"],
)
def test_a_page_takes_as_many_queries_for_fifty_plans_as_for_one(
    selection: str, queries: int, support: User, plan: FamilyPlan, settings: Settings
) -> None:
    settings.GRAPHQL_MAX_COST = 10**9
    query = f"{{ plans(first: 50) {{ edges {{ cursor node {{ {selection} }} }} }} }}"
    fill(plan, people=1)
    assert queries_of(support, query) == queries

    for _ in range(49):
        fill(OwnerFactory().family_plan, people=1)
    assert queries_of(support, query) == queries


def test_a_viewer_takes_as_many_queries_in_a_large_plan_as_in_a_small_one(
    alice: User, plan: FamilyPlan
) -> None:
    query = f"""{{ viewer {{ id email displayName canCreatePlan
        membership {{ id role joinedAt user {PERSON} zammadUserId }} plan {{ {EVERYTHING} }} }} }}"""
    fill(plan, people=1)
    small = queries_of(alice, query)

    fill(plan, people=49)
    assert queries_of(alice, query) == small == 9


@pytest.mark.parametrize(
    ("fields", "row_of", "queries"),
    [
        (f"... on FamilyPlan {{ {EVERYTHING} }}", lambda plan: plan, 9),
        (
            f"... on Membership {{ id user {PERSON} zammadUser {{ email }} }}",
            lambda plan: plan.memberships.last(),
            5,
        ),
        (f"... on FamilyPlanInvite {{ {INVITE} }}", lambda plan: plan.invites.last(), 6),
        (f"... on PlanEvent {{ {EVENT} }}", lambda plan: plan.events.last(), 6),
        (f"... on User {PERSON}", lambda plan: plan.memberships.last().user, 4),
    ],
    ids=["FamilyPlan", "Membership", "FamilyPlanInvite", "PlanEvent", "User"],
)
def test_a_node_takes_as_many_queries_in_a_large_plan_as_in_a_small_one(
    fields: str, row_of: Callable[[FamilyPlan], FamilyPlan], queries: int, alice: User, plan: FamilyPlan
) -> None:
    query = f"query ($id: ID!) {{ node(id: $id) {{ id {fields} }} }}"
    fill(plan, people=1)
    assert queries_of(alice, query, id=node_id(row_of(plan))) == queries

    fill(plan, people=49)
    assert queries_of(alice, query, id=node_id(row_of(plan))) == queries
