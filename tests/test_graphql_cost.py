"""What an operation may ask for: what is counted, that the count is right, and in one walk."""

from __future__ import annotations

import json
import random
import re
from typing import Any
from unittest import mock

import pytest
from django.contrib.auth.models import User
from django.test import Client
from graphql import (
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    InlineFragmentNode,
    IntValueNode,
    SelectionSetNode,
    get_introspection_query,
    parse,
    specified_rules,
)
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from pytest_django import Settings

from graphql_api import costs, limits
from graphql_api.costs import fields_of
from graphql_api.limits import Document, cost_of
from graphql_api.schema import schema
from graphql_api.walk import LISTS_OF_TYPES, Measure, Walk
from plans.models import FamilyPlan
from tests.api import JSON, URL, client_of, node_id, post
from tests.hostile import HOSTILE, many
from tests.refusals import unchanged
from tests.server import BASE_DIR

GRAPHQL = schema._schema
MAX_TOKENS = 1000
SCREEN = """query ($id: ID!) { plan(id: $id) {
  id name userLimit seatsTaken seatsAvailable closedAt owner { id displayName }
  members { id role joinedAt zammadUserId user { id displayName email } }
  invites(first: 50, status: OPEN) { pageInfo { hasNextPage endCursor } edges { node {
    id email status isUsed expiresAt createdAt mailStatus
    createdBy { id displayName } user { id displayName } } } }
  events(first: 20) { pageInfo { hasNextPage endCursor } edges { node {
    id kind at actor { id displayName } subject { id displayName } } } } } }"""
ALL_PLANS = """{ plans(first: 100) { pageInfo { hasNextPage endCursor } edges { cursor node {
  id name userLimit seatsTaken seatsAvailable createdAt closedAt owner { id displayName email }
  members { id role joinedAt zammadUserId user { id displayName email }
    zammadUser { zammadId email firstname lastname organization phone mobile vip active
      updatedAt syncedAt } } } } } }"""


def document(text: str) -> Document:
    return Document(text, GRAPHQL, MAX_TOKENS)


def cost(text: str, **variables: object) -> int:
    read = document(text)
    return cost_of(read, read.operations[0], variables)


# --- One walk ------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_document_is_decided_on_in_as_many_steps_as_it_has_selections(text: str) -> None:
    try:
        read = document(text)
    except GraphQLError:
        return  # the parser, or its limit of lines
    walk = Walk(read.schema, read.fragments, {})
    for operation in read.operations:
        walk.of_operation(operation)
    assert walk.steps <= text.count(" ")  # each selection at most once

    refused = read.over_limit() or read.laborious()
    if not refused:
        # Little is left for rules that compare pairs.
        assert read.total.size <= 2 * MAX_TOKENS
        assert len(read.validate(tuple(specified_rules))) <= limits.MAX_ERRORS + 1


@pytest.mark.django_db
def test_every_hostile_document_is_answered_in_words_also_the_second_time(alice: User) -> None:
    client = client_of(alice)

    for text in HOSTILE.values():
        assert len(json.dumps({"query": text})) < 100 * 1024
        answers = [post(client, text) for _ in range(2)]
        for response in answers:
            assert response.status_code in {200, 400}  # 400: none of several operations is named
            assert "INTERNAL_ERROR" not in response.text
        assert answers[0].json() == answers[1].json()


@pytest.mark.parametrize(
    "text", ["{ __typename }", "{ nothing }", HOSTILE["each fragment spreads the next twice"]], ids=range(3)
)
@pytest.mark.django_db
def test_what_was_learned_of_a_document_is_not_asked_again(text: str) -> None:
    post(Client(), text)

    with (
        mock.patch.object(limits, "parse", side_effect=AssertionError),
        mock.patch.object(limits, "validate", side_effect=AssertionError),
        mock.patch.object(limits, "Walk", side_effect=AssertionError),
    ):
        response = post(Client(), text)

    assert "INTERNAL_ERROR" not in response.text


# --- The walk is right: another way to count, slow and simple ---------------------------------------


class Slow:
    """Count by writing every fragment out, again and again."""

    def __init__(self, text: str, sizes: dict[str, int]) -> None:
        self.definitions = parse(text).definitions
        self.fragments = {
            node.name.value: node for node in self.definitions if isinstance(node, FragmentDefinitionNode)
        }
        self.fields = fields_of(GRAPHQL)
        self.sizes = sizes
        self.paths: list[tuple[str, ...]] = []

    def walk(self, selection_set: SelectionSetNode, parent: str, path: tuple[str, ...]) -> Measure:
        total = Measure()
        for node in selection_set.selections:
            directives = len(node.directives or ())
            own = Measure(size=1 + directives, directives=directives)
            match node:
                case FieldNode():
                    below = self.field(node, parent, path)
                case InlineFragmentNode(type_condition=condition):
                    below = self.walk(node.selection_set, condition.name.value if condition else parent, path)
                case FragmentSpreadNode():
                    fragment = self.fragments[node.name.value]
                    below = self.walk(fragment.selection_set, fragment.type_condition.name.value, path)
                case _:
                    raise AssertionError
            total = total.plus(own, below)
        return total

    def field(self, node: FieldNode, parent: str, path: tuple[str, ...]) -> Measure:
        path = (*path, (node.alias or node.name).value)
        self.paths.append(path)
        field = self.fields.get(parent, {}).get(node.name.value)
        lists = node.name.value in LISTS_OF_TYPES
        arguments = len(node.arguments or ())
        own = Measure(0, lists, arguments, bool(node.alias), 0, 1)
        below = Measure()
        type_ = field.type if field else ""
        if node.selection_set:
            below = self.walk(node.selection_set, type_, path)
        length: float = 1
        if field and field.length is None:
            length = 100
            for argument in node.arguments or ():
                if isinstance(argument.value, IntValueNode):
                    length = max(1, int(argument.value.value))
                else:
                    length = max(1, self.sizes[argument.value.name.value])  # type: ignore[attr-defined]
        elif field and field.length is not None:
            length = field.length
        weight = field.weight if field else costs.Weight()
        return Measure(
            0 if node.name.value.startswith("__") or not node.selection_set else below.depth + 1,
            below.lists_of_types + own.lists_of_types,
            below.size + own.size,
            below.aliases + own.aliases,
            below.directives,
            weight.once + -int(-(length * (weight.each + below.cost)) // 1),
        )


FIELDS = {
    "Query": [
        ("viewer", "Viewer"),
        ("plans(first: {n})", "FamilyPlanConnection"),
        ("plans(last: $x)", "FamilyPlanConnection"),
        ("__schema", "__Schema"),
        ("__typename", ""),
        ("unknown", "FamilyPlan"),
    ],
    "Viewer": [("id", ""), ("plan", "FamilyPlan"), ("membership", "Membership")],
    "FamilyPlanConnection": [("edges", "FamilyPlanEdge"), ("pageInfo", "PageInfo")],
    "FamilyPlanEdge": [("cursor", ""), ("node", "FamilyPlan")],
    "FamilyPlan": [
        ("name", ""),
        ("owner", "User"),
        ("members", "Membership"),
        ("invites(first: $x)", "FamilyPlanInviteConnection"),
    ],
    "FamilyPlanInviteConnection": [("edges", "FamilyPlanInviteEdge"), ("__typename", "")],
    "FamilyPlanInviteEdge": [("cursor", "")],
    "Membership": [("id", ""), ("user", "User")],
    "User": [("id", ""), ("email @include(if: true)", "")],
    "PageInfo": [("hasNextPage", "")],
    "__Schema": [("types", "__Type")],
    "__Type": [("name", ""), ("fields", "__Field"), ("ofType", "__Type")],
    "__Field": [("name", ""), ("type", "__Type")],
}


class Writer:
    """Write a random document in which each fragment spreads only later ones."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)  # noqa: S311
        self.fragments = [self.chance.choice(list(FIELDS)) for _ in range(self.chance.randint(0, 6))]

    def selections(self, parent: str, depth: int, after: int) -> str:
        return " ".join(self.selection(parent, depth, after) for _ in range(self.chance.randint(1, 3)))

    def selection(self, parent: str, depth: int, after: int) -> str:
        kind = self.chance.random()
        later = list(range(after, len(self.fragments)))
        directive = self.chance.choice(["", "", " @skip(if: false)"])
        if kind < 0.3 and later:
            return f"...F{self.chance.choice(later)}{directive}"
        if kind < 0.4 and depth:
            condition = self.chance.choice(["", f" on {parent}"])
            return f"...{condition}{directive} {{ {self.selections(parent, depth - 1, after)} }}"
        name, type_ = self.chance.choice(FIELDS[parent] if depth else [("__typename", "")])
        alias = self.chance.choice(["", "", "a: ", "b: "])
        below = f" {{ {self.selections(type_, depth - 1, after)} }}" if type_ else ""
        return f"{alias}{name.replace('{n}', str(self.chance.randint(0, 9)))}{directive}{below}"

    def document(self) -> str:
        fragments = (
            f"fragment F{n} on {parent} {{ {self.selections(parent, 3, n + 1)} }}"
            for n, parent in enumerate(self.fragments)
        )
        return " ".join([f"query ($x: Int) {{ {self.selections('Query', 4, 0)} }}", *fragments])


@given(seed=st.integers(0, 2**32), size=st.integers(0, 100))
@examples(max_examples=300, deadline=None, derandomize=True, database=None)
def test_one_walk_counts_what_fragments_written_out_come_to(seed: int, size: int) -> None:
    text = Writer(seed).document()
    read = document(text)
    [operation] = read.operations
    slow = Slow(text, {"x": size})
    variables = Measure(size=1)

    expected = slow.walk(operation.selection_set, "Query", ()).plus(variables)

    assert Walk(read.schema, read.fragments, {"x": size}).of_operation(operation) == expected, text
    most = max(slow.paths.count(path) for path in slow.paths) if slow.paths else 0
    if most <= limits.MAX_REPEATS:
        assert read.repeated is None, text


def test_a_name_is_counted_at_its_place_through_fragments_and_through_fields_that_merge() -> None:
    spread = "{ viewer { plan { ...A ...B } } viewer { ... { plan { name } } } } "
    fragments = "fragment A on FamilyPlan { %s } fragment B on FamilyPlan { name }"

    assert document(spread + fragments % ("name " * 18)).repeated is None
    assert document(spread + fragments % ("name " * 19)).repeated == "name"


@pytest.mark.parametrize(
    ("fragments", "allowed"),
    [
        ("fragment F on Query { a: __typename b: __typename c: __typename }", True),
        ("fragment F on Query { a: __typename b: __typename c: __typename d: __typename }", False),
    ],
)
def test_aliases_of_a_fragment_count_at_each_spread(fragments: str, allowed: bool) -> None:
    refusal = document("{ ...F ...F ...F ...F ...F } " + fragments).over_limit()

    assert (refusal is None) == allowed
    if refusal:
        assert refusal.message == "20 aliases found, fragments included. Allowed: 15."


def test_directives_count_wherever_they_stand_and_at_each_spread() -> None:
    text = """query ($x: Boolean = true @a) @b { ...F @skip(if: $x) ... @c { __typename @d } ...F }
        fragment F on Query @e { __typename @f @g }"""

    assert document(text).total.directives == 5 + 2 * 3


def test_each_operation_of_a_document_is_bounded_and_the_chosen_one_is_weighed() -> None:
    text = "query A { viewer { id } } query B { plans { edges { node { name } } } }"
    read = document(text)

    assert cost_of(read, read.operations[0], {}) == 20 + 1
    assert cost_of(read, read.operations[1], {}) == 50 + 100 * (5 + 1 + 1 + 1)
    deep = "{" + " plan {" * 11 + " id" + " }" * 12
    assert document(f"query A {{ __typename }} query B {deep}").over_limit() is not None
    assert document(f"{{ __typename }} fragment F on Query {deep}").over_limit() is not None


# --- What it costs -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "variables", "rows"),
    [
        ("", {}, 100),
        ("(first: 7)", {}, 7),
        ("(last: 7)", {}, 7),
        ("(first: 0)", {}, 1),
        ("(first: null)", {}, 100),
        ("(first: -1)", {}, 100),
        ("(first: 101)", {}, 100),
        ("(first: 1000000000000)", {}, 100),
        ('(first: "1")', {}, 100),
        ("(first: 1.5)", {}, 100),
        ("(first: [1])", {}, 100),
        ("(first: 7, last: 9)", {}, 9),
        ("(first: $x)", {"x": 7}, 7),
        ("(first: $x)", {"x": 7.0}, 7),
        ("(first: $x)", {}, 100),
        ("(first: $x)", {"x": None}, 100),
        ("(first: $x)", {"x": -5}, 100),
        ("(first: $x)", {"x": "7"}, 100),
        ("(first: $x)", {"x": True}, 100),
        ("(first: $x)", {"x": float("inf")}, 100),
        ("(first: $x)", {"x": 10**400}, 100),
        ("(first: $x)", {"x": {"a": 1}}, 100),
        ("(first: $defaults)", {}, 3),
        ("(first: $defaults)", {"defaults": 7}, 7),
        ("(first: $defaults)", {"defaults": None}, 100),
        ("(first: $undeclared)", {"undeclared": 1}, 100),
    ],
)
def test_a_page_costs_what_it_may_hold(arguments: str, variables: dict[str, object], rows: int) -> None:
    text = f"query ($x: Int, $defaults: Int = 3) {{ plans{arguments} {{ edges {{ node {{ name }} }} }} }}"

    assert cost(text, **variables) == 50 + rows * (5 + 3)


def test_lists_without_pages_cost_as_many_as_there_usually_are() -> None:
    assert cost('{ plan(id: "x") { members { id } } }') == 50 + 10 + 5 * (5 + 1)
    assert cost('{ plan(id: "x") { name } }') == 50 + 1


def test_every_list_of_the_schema_is_weighed() -> None:
    plain = {
        f"{type_}.{name}"
        for type_, fields in fields_of(GRAPHQL).items()
        for name, field in fields.items()
        if field.length == costs.OTHER_LIST
    }

    assert plain == set()  # give it a length in LISTS


def test_fields_that_are_skipped_cost_as_well() -> None:
    assert cost("{ viewer @skip(if: true) { id } }") == cost("{ viewer { id } }")


def test_introspection_costs_at_least_what_it_answers(superuser: User) -> None:
    def count(value: Any) -> int:
        if isinstance(value, dict):
            return len(value) + sum(map(count, value.values()))
        return sum(map(count, value)) if isinstance(value, list) else 0

    for query in (
        get_introspection_query(),
        "{ __schema { types { name fields { name type { ofType { ofType { ofType { name } } } } } } } }",
        "{ __schema { types { enumValues { name } inputFields { name } possibleTypes { name } } } }",
    ):
        answered = post(client_of(superuser), query).json()
        assert "errors" not in answered
        assert count(answered["data"]) <= cost(query) <= 10 * count(answered["data"])


# --- What is allowed, and how it is refused ----------------------------------------------------------


def test_usual_screens_and_staffs_largest_questions_pass(
    alice: User, plan: FamilyPlan, superuser: User
) -> None:
    everything = get_introspection_query(
        specified_by_url=True,
        directive_is_repeatable=True,
        schema_description=True,
        input_value_deprecation=True,
    )

    for person, query in ((alice, SCREEN), (superuser, ALL_PLANS), (superuser, everything)):
        answered = post(client_of(person), query, {"id": node_id(plan)}).json()
        assert "errors" not in answered, answered


@pytest.mark.parametrize("name", ["a plan fifteen times", "all plans fifteen times"])
@pytest.mark.parametrize(("accept", "status"), [(JSON, 200), ("application/graphql-response+json", 400)])
def test_what_is_too_expensive_is_refused_with_its_cost_and_the_limit(
    name: str, accept: str, status: int, superuser: User, django_assert_max_num_queries: Any
) -> None:
    client = client_of(superuser)

    for _ in range(2):
        with django_assert_max_num_queries(2):  # to identify the client, and no more
            response = post(client, HOSTILE[name], Accept=accept)
        assert response.status_code == status
        [error] = response.json()["errors"]
        assert "data" not in response.json()
        assert error["extensions"] == {
            "code": "OPERATION_TOO_EXPENSIVE",
            "cost": cost(HOSTILE[name]),
            "limit": 25_000,
        }
        assert f"costs {cost(HOSTILE[name])}. Allowed: 25000." in error["message"]


def test_the_ceiling_is_a_setting_and_holds_at_its_edge(alice: User, settings: Settings) -> None:
    query = "query ($n: Int) { plans(first: $n) { edges { node { name } } } }"
    settings.GRAPHQL_MAX_COST = 50 + 10 * (5 + 3)

    assert "errors" not in post(client_of(alice), query, {"n": 10}).json()
    [error] = post(client_of(alice), query, {"n": 11}).json()["errors"]
    assert error["extensions"]["cost"] == settings.GRAPHQL_MAX_COST + 8
    # A number that is refused by itself does not make it cheap.
    [error] = post(client_of(alice), query, {"n": -1}).json()["errors"]
    assert error["extensions"]["code"] == "OPERATION_TOO_EXPENSIVE"


def test_mutations_that_are_too_many_at_once_do_nothing(alice: User, plan: FamilyPlan) -> None:
    invites = many("m{n}: createInvite(input: {planId: $id}) { __typename }", 13)
    text = "mutation ($id: ID!) { " + invites + " }"

    with unchanged():
        [error] = post(client_of(alice), text, {"id": node_id(plan)}).json()["errors"]

    assert error["extensions"] == {
        "code": "OPERATION_TOO_EXPENSIVE",
        "cost": 13 * (2000 + 1),
        "limit": 25_000,
    }


# --- Odd bodies ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        '{"query": "{ __typename }", "variables": {"x": ' + "9" * 5000 + "}}",
        '{"query": "{ __typename }", "variables": {"x": -' + "9" * 5000 + "}}",
        '{"query": "{ __typename }", "variables": {"x": ' + "[" * 20_000 + "}}",
        '{"query": "{ __typename }", "variables": {"x": ' + "[" * 20_000 + "]" * 20_000 + "}}",
        '{"query": "{ __typename }", "variables": ' + '{"x": ' * 10_000 + "1" + "}" * 10_000 + "}",
    ],
    ids=range(5),
)
@pytest.mark.django_db
def test_numbers_and_brackets_without_end_are_no_json(
    body: str | bytes, alice: User, caplog: pytest.LogCaptureFixture
) -> None:
    response = client_of(alice).post(URL, body, content_type=JSON)

    assert response.status_code == 400
    assert response.json()["errors"] == [
        {"message": "The body is not JSON.", "extensions": {"code": "INVALID_INPUT"}}
    ]
    assert [record for record in caplog.records if record.name.startswith("graphql_api")] == []


@pytest.mark.parametrize(
    "literal",
    ["9" * 5000, "-" + "9" * 5000, "1e" + "9" * 5000, "[" * 150 + "]" * 150, r'"\ud800"'],
    ids=range(5),
)
@pytest.mark.django_db
def test_a_literal_that_makes_no_sense_is_refused_in_words(literal: str, alice: User) -> None:
    for field in ("plans(first: %s) { edges { cursor } }", "plans(filters: {name: %s}) { edges { cursor } }"):
        response = post(client_of(alice), "{ " + field % literal + " }")

        assert response.status_code == 200
        assert "errors" in response.json()
        assert "INTERNAL_ERROR" not in response.text


@pytest.mark.parametrize("text", ["\0", "a\0b", "\x01", "\U0001f600", "\r\n", "\u2028", "x" * 90_000])
def test_odd_texts_in_variables_break_nothing(text: str, plan: FamilyPlan, superuser: User) -> None:
    questions = [
        "query ($x: String!) { plans(filters: {name: $x}) { edges { cursor } } }",
        "query ($x: String!) { plans(filters: {ownerEmail: $x}) { edges { cursor } } }",
        "query ($x: String!) { plans(after: $x) { edges { cursor } } }",
        "query ($x: String!) { invite(token: $x) { status } }",
        "query ($x: ID!) { node(id: $x) { id } }",
        "query ($x: ID!) { plan(id: $x) { id } }",
        "mutation ($x: String!) { acceptInvite(input: {token: $x}) { __typename } }",
        "mutation ($x: String!) { createPlan(input: {name: $x, ownerEmail: $x}) { __typename } }",
        "mutation ($x: String!, $id: ID!) { createInvite(input: {planId: $id, email: $x}) { __typename } }",
        "mutation ($x: ID!) { detachMember(input: {membershipId: $x}) { __typename } }",
    ]

    for question in questions:
        variables = {"x": text} | ({"id": node_id(plan)} if "$id" in question else {})
        response = post(client_of(superuser), question, variables)
        assert response.status_code == 200
        assert "INTERNAL_ERROR" not in response.text, (question, json.dumps(text))


def test_the_page_for_api_users_tells_what_fields_cost() -> None:
    page = (BASE_DIR / "docs" / "api.md").read_text()

    told = re.findall(r"^\| `(\w+\.\w+)` \| (\d+) \| (\d+) \|$", page, re.MULTILINE)

    assert told == [(name, str(weight.once), str(weight.each)) for name, weight in costs.WEIGHTS.items()]
    assert f"| any other mutation | {costs.MUTATION.once} | {costs.MUTATION.each} |" in page


def test_each_weight_is_of_a_field_that_there_is() -> None:
    fields = fields_of(GRAPHQL)

    for coordinate in [*costs.WEIGHTS, *costs.LISTS]:
        type_, _, name = coordinate.partition(".")
        assert name in fields[type_]


@pytest.mark.django_db
def test_a_refusal_repeats_little_of_what_was_sent() -> None:
    filters = many("name{n}: 1", 12) + f' name: "{"x" * 90_000}"'

    response = post(Client(), "{ plans(filters: {" + filters + "}) { edges { cursor } } }")

    assert "errors" in response.json()
    assert len(response.content) < 10_000


def test_a_document_full_of_mistakes_hears_of_a_few() -> None:
    errors = post(Client(), "{ __typename" + " @aa" * 10 + " }").json()["errors"]

    assert len(errors) == limits.MAX_ERRORS + 1  # the last one shows that there are more
