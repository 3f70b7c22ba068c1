"""Pages by key: every row once, in both directions, whatever comes and goes in the meantime."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from plans.models import FamilyPlan, FamilyPlanInvite, PlanEvent
from tests.api import answer, ask, node_id, to_base64
from tests.factories import FamilyPlanFactory, InviteFactory

pytestmark = pytest.mark.django_db

PLANS = """query ($first: Int, $after: String, $last: Int, $before: String, $filters: PlanFilters) {
    plans(first: $first, after: $after, last: $last, before: $before, filters: $filters) {
        edges { cursor node { name } }
        pageInfo { hasNextPage hasPreviousPage startCursor endCursor } } }"""
INVITES = """query ($id: ID!, $first: Int, $after: String, $status: InviteStatus) { plan(id: $id) {
    invites(first: $first, after: $after, status: $status) {
        edges { cursor node { email } } pageInfo { hasNextPage hasPreviousPage endCursor } } } }"""
EVENTS = """query ($id: ID!, $first: Int, $after: String) { plan(id: $id) {
    events(first: $first, after: $after) {
        edges { cursor node { id } } pageInfo { hasNextPage hasPreviousPage endCursor } } } }"""


@pytest.fixture
def seven(db: None) -> list[FamilyPlan]:
    """Seven plans, all with the same name and creation time."""
    return [FamilyPlanFactory(name=f"{n}", created_at=datetime(2026, 1, 1, tzinfo=UTC)) for n in "abcdefg"]


def page(viewer: User, **arguments: object) -> tuple[str, dict[str, Any]]:
    """Query a page of plans, and return their names in a row with the page's information."""
    found = ask(viewer, PLANS, **arguments)
    cursors = [edge["cursor"] for edge in found["edges"]]
    info = found["pageInfo"]
    assert (info["startCursor"], info["endCursor"]) == (
        (cursors[0], cursors[-1]) if cursors else (None, None)
    )
    return "".join(edge["node"]["name"] for edge in found["edges"]), info


# --- plans ---------------------------------------------------------------------------------------


def test_all_plans_come_by_once_forwards(support: User, seven: list[FamilyPlan]) -> None:
    after, walked = None, []
    while True:
        names, info = page(support, first=3, after=after)
        walked.append((names, info["hasPreviousPage"], info["hasNextPage"]))
        after = info["endCursor"]
        if not info["hasNextPage"]:
            break

    assert walked == [("abc", False, True), ("def", True, True), ("g", True, False)]


def test_all_plans_come_by_once_backwards(support: User, seven: list[FamilyPlan]) -> None:
    before, walked = None, []
    while True:
        names, info = page(support, last=3, before=before)
        walked.append((names, info["hasPreviousPage"], info["hasNextPage"]))
        before = info["startCursor"]
        if not info["hasPreviousPage"]:
            break

    assert walked == [("efg", True, False), ("bcd", True, True), ("a", False, True)]


def test_a_full_last_page_has_no_next_one(support: User, seven: list[FamilyPlan]) -> None:
    names, info = page(support, first=7)

    assert (names, info["hasNextPage"]) == ("abcdefg", False)
    assert page(support, first=3, after=info["endCursor"])[0] == ""


def test_rows_that_come_and_go_meanwhile_move_no_other(support: User, seven: list[FamilyPlan]) -> None:
    _, info = page(support, first=3)

    seven[0].delete()
    seven[2].delete()  # the very row of the cursor
    seven[4].delete()
    FamilyPlanFactory(name="h")

    assert page(support, first=3, after=info["endCursor"])[0] == "dfg"
    assert page(support, last=9, before=info["endCursor"])[0] == "b"


def test_a_page_lies_between_two_cursors(support: User, seven: list[FamilyPlan]) -> None:
    cursors = [edge["cursor"] for edge in ask(support, PLANS)["edges"]]

    assert page(support, after=cursors[1], before=cursors[5])[0] == "cde"
    assert page(support, first=2, after=cursors[1], before=cursors[5])[0] == "cd"
    assert page(support, last=2, after=cursors[1], before=cursors[5])[0] == "de"
    assert page(support, after=cursors[5], before=cursors[1])[0] == ""


def test_filters_hold_on_every_page(support: User, seven: list[FamilyPlan]) -> None:
    FamilyPlan.objects.filter(name__in="aceg").update(name="x")

    names, info = page(support, first=3, filters={"name": "X"})
    assert names == "xxx"
    assert page(support, first=3, after=info["endCursor"], filters={"name": "X"})[0] == "x"


def test_a_page_is_empty_full_or_refused(support: User) -> None:
    FamilyPlan.objects.bulk_create(FamilyPlan(name="p") for _ in range(101))

    assert page(support)[0] == "p" * 100
    assert page(support, first=100)[0] == "p" * 100
    assert page(support, last=100)[0] == "p" * 100
    names, info = page(support, first=0)
    assert (names, info["hasNextPage"], info["hasPreviousPage"]) == ("", True, False)


@pytest.mark.parametrize(
    "arguments",
    [
        {"first": 101},
        {"first": -1},
        {"last": 101},
        {"last": -1},
        {"first": 2**31 - 1},
        {"first": 1, "last": 1},
        {"first": 0, "last": 0},
    ],
    ids=str,
)
def test_a_page_of_impossible_size_is_refused(arguments: dict[str, int], support: User) -> None:
    body = answer(support, PLANS, **arguments)

    assert body["data"] is None
    [error] = body["errors"]
    assert error["extensions"] == {"code": "INVALID_INPUT"}


HOSTILE_CURSORS = [
    "x",
    "====",
    "\0",
    "\ud800",
    "1",
    to_base64("cursor"),
    to_base64("cursor:"),
    to_base64("cursor:0"),
    to_base64("cursor:-1"),
    to_base64("cursor:1.5"),
    to_base64("cursor:1 OR 1=1"),
    to_base64("cursor:\u0663"),
    to_base64("cursor:01"),
    to_base64(f"cursor:{2**63}"),
    to_base64("cursor:" + "9" * 4000),
    to_base64("arrayconnection:1"),
    to_base64("FamilyPlan:1"),
    "Y3Vyc29yOjE=" * 1000,
]


@pytest.mark.parametrize("argument", ["after", "before"])
@pytest.mark.parametrize("cursor", HOSTILE_CURSORS, ids=range(len(HOSTILE_CURSORS)))
def test_a_cursor_of_ones_own_making_is_refused(argument: str, cursor: str, support: User) -> None:
    body = answer(support, PLANS, **{argument: cursor})

    assert body["data"] is None
    [error] = body["errors"]
    assert error["message"] == f"{argument} must be a cursor of this list."
    assert error["extensions"] == {"code": "INVALID_INPUT"}


def test_a_cursor_beyond_every_key_finds_nothing(support: User, seven: list[FamilyPlan]) -> None:
    beyond = to_base64(f"cursor:{2**63 - 1}")

    assert page(support, after=beyond)[0] == ""
    assert page(support, before=beyond)[0] == "abcdefg"


def test_an_empty_cursor_is_none(support: User, seven: list[FamilyPlan]) -> None:
    assert page(support, after="", before=None)[0] == "abcdefg"


# --- invites and events ----------------------------------------------------------------------------


@pytest.fixture
def invites(plan: FamilyPlan) -> list[FamilyPlanInvite]:
    """Five unused invites of the same moment, two of them expired; the plan also has a used one."""
    now = timezone.now()
    return [
        InviteFactory(
            family_plan=plan, email=f"{n}@example.com", **({"expires_at": now} if n in "bd" else {})
        )
        for n in "abcde"
    ]


def walk(viewer: User, query: str, field: str, **arguments: object) -> list[list[dict[str, Any]]]:
    pages, after = [], None
    while True:
        found = ask(viewer, query, first=2, after=after, **arguments)[field]
        assert found["pageInfo"]["hasPreviousPage"] == (after is not None)
        pages.append([edge["node"] for edge in found["edges"]])
        after = found["pageInfo"]["endCursor"]
        if not found["pageInfo"]["hasNextPage"]:
            return pages


def test_invites_come_by_newest_first(alice: User, plan: FamilyPlan, invites: list[FamilyPlanInvite]) -> None:
    pages = walk(alice, INVITES, "invites", id=node_id(plan))

    assert [[(node["email"] or "-")[0] for node in nodes] for nodes in pages] == [
        ["e", "d"],
        ["c", "b"],
        ["a", "-"],
    ]


@pytest.mark.parametrize(
    ("status", "found"), [("OPEN", "eca"), ("EXPIRED", "db"), ("USED", "-"), (None, "edcba-")]
)
def test_invites_are_chosen_by_what_they_are_now(
    status: str | None, found: str, alice: User, plan: FamilyPlan, invites: list[FamilyPlanInvite]
) -> None:
    pages = walk(alice, INVITES, "invites", id=node_id(plan), status=status)

    assert "".join((node["email"] or "-")[0] for nodes in pages for node in nodes) == found


def test_an_invite_that_comes_or_goes_meanwhile_moves_no_other(
    alice: User, plan: FamilyPlan, invites: list[FamilyPlanInvite]
) -> None:
    first = ask(alice, INVITES, id=node_id(plan), first=2)["invites"]

    invites[3].delete()
    InviteFactory(family_plan=plan, email="new@example.com")

    after = first["pageInfo"]["endCursor"]
    second = ask(alice, INVITES, id=node_id(plan), first=2, after=after)["invites"]
    assert [edge["node"]["email"][0] for edge in second["edges"]] == ["c", "b"]


def test_events_of_one_moment_come_by_once_newest_first(alice: User, plan: FamilyPlan) -> None:
    now = timezone.now()
    events = [PlanEvent.objects.create(family_plan=plan, kind="INVITE_CREATED", at=now) for _ in range(5)]

    pages = walk(alice, EVENTS, "events", id=node_id(plan))

    assert [len(nodes) for nodes in pages] == [2, 2, 1]
    assert [node["id"] for nodes in pages for node in nodes] == [node_id(event) for event in events[::-1]]


@pytest.mark.parametrize("query", [INVITES, EVENTS], ids=["invites", "events"])
@pytest.mark.parametrize("arguments", [{"first": 101}, {"first": -1}, {"after": "x"}], ids=str)
def test_an_impossible_page_of_a_plan_is_refused_alone(
    query: str, arguments: dict[str, object], alice: User, plan: FamilyPlan
) -> None:
    body = answer(alice, query, id=node_id(plan), **arguments)

    [field] = body["data"]["plan"]
    assert body["data"]["plan"][field] is None
    assert [error["extensions"]["code"] for error in body["errors"]] == ["INVALID_INPUT"]


def test_the_cursor_of_one_connection_shows_nothing_foreign_in_another(
    alice: User, plan: FamilyPlan, invites: list[FamilyPlanInvite]
) -> None:
    foreign = InviteFactory(email="foreign@example.com")

    found = ask(alice, INVITES, id=node_id(plan), after=to_base64(f"cursor:{foreign.pk}"))["invites"]

    assert [edge["node"]["email"] for edge in found["edges"]][:1] == ["e@example.com"]
    assert len(found["edges"]) == 6
