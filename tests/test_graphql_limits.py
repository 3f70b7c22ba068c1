"""What you may send: each limit at its edge and one past it, twice, since the second hits the caches."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
from django.contrib.auth.models import User
from django.db import DatabaseError, connection
from django.test import Client
from pytest_django import Settings

from plans import services
from plans.models import FamilyPlan
from tests.api import JSON, URL, client_of, node_id, post
from tests.factories import PASSWORD, InviteFactory, UserFactory
from tests.refusals import unchanged

pytestmark = pytest.mark.django_db

GRAPHQL_RESPONSE = "application/graphql-response+json"
SECRET = "k" * 43


def send(body: str | bytes, content_type: str = JSON, **headers: str) -> Any:
    return Client().post(URL, body, content_type=content_type, headers=headers)


def errors_of(response: Any) -> list[str]:
    """Return why nothing was executed; an empty list if it was."""
    body = response.json()
    assert ("errors" in body) != ("data" in body), body
    return [error["message"] for error in body.get("errors", [])]


# --- The document --------------------------------------------------------------------------------


def deep(depth: int) -> str:
    """Write an operation this deep; the schema ends before, so it is not valid."""
    return "{ plan" + " { plan" * (depth - 1) + " }" * depth


def with_tokens(count: int) -> str:
    """Write a document of this many tokens, with a comment for each."""
    return "{" + " __typename #\n" * (count - 2) + "}"


def with_aliases(count: int) -> str:
    return "{" + " ".join(f"a{n}: __typename" for n in range(count)) + "}"


def with_directives(count: int) -> str:
    return (
        "{" + " ".join("...F @skip(if: false)" for _ in range(count)) + "} fragment F on Query { __typename }"
    )


@pytest.mark.parametrize(
    ("document", "limit", "told"),
    [
        (with_aliases, 15, "16 aliases found, fragments included. Allowed: 15."),
        (with_directives, 50, "51 directives found, fragments included. Allowed: 50."),
    ],
    ids=["aliases", "directives"],
)
def test_a_document_is_held_to_its_limits_also_from_the_cache(
    document: Callable[[int], str], limit: int, told: str
) -> None:
    for _ in range(2):
        assert errors_of(post(Client(), document(limit))) == []
        [error] = errors_of(post(Client(), document(limit + 1)))
        assert told in error


def test_a_document_has_at_most_1000_tokens_also_from_the_cache() -> None:
    for _ in range(2):
        at_limit = errors_of(post(Client(), with_tokens(1000)))
        assert at_limit == ["'__typename' is selected more than 20 times at one place."]
        [past_it] = errors_of(post(Client(), with_tokens(1001)))
        assert "1000 tokens" in past_it


def test_an_operation_is_at_most_ten_levels_deep_also_from_the_cache() -> None:
    for _ in range(2):
        at_limit = errors_of(post(Client(), deep(11)))
        assert at_limit  # the schema ends before
        assert not [error for error in at_limit if "depth" in error]
        past_it = errors_of(post(Client(), deep(12)))
        assert past_it == ["11 levels of depth found, fragments included. Allowed: 10."]


def test_the_deepest_useful_query_is_allowed(alice: User, plan: FamilyPlan) -> None:
    query = """query ($id: ID!) { plan(id: $id) {
        events { edges { node { invite { createdBy { email } } } } } } }"""

    for _ in range(2):
        assert errors_of(post(client_of(alice), query, {"id": node_id(plan)})) == []


@pytest.mark.parametrize(
    "document",
    [
        "{a" * 1000,
        "{a" * 190 + "}" * 190,
        "query ($x: " + "[" * 190 + "Int" + "]" * 190 + ") { viewer { id } }",
        "{ plans(filters: " + "[" * 190 + "]" * 190 + ") { edges { cursor } } }",
        "{ ...A } fragment A on Query { ...B } fragment B on Query { ...A }",
        "{ ...A } fragment A on Query { ...A }",
        "",
        " ",
        "\ufeff",
        "\0",
        "\ud800",
        '{ node(id: "\ud800") { id } }',
        '{ node(id: "\\ud800") { id } }',
        "{ viewer { id } " + "# " * 40_000,
        "subscription { viewer { id } }",
        "type Query { x: Int }",
        "{ viewer }",
        "{ viewer { id } } { viewer { id } }",
        "{ viewer { id @skip } }",
        "{ viewer @defer { id } }",
        "mutation { closePlan(input: null) { __typename } }",
    ],
    ids=range(21),
)
def test_a_document_that_makes_no_sense_is_refused_in_words(
    document: str, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        response = post(Client(), document)

        assert response.status_code in {200, 400}
        assert errors_of(response)
        assert "INTERNAL_ERROR" not in response.text
    assert [record for record in caplog.records if record.name.startswith("graphql_api")] == []


# --- The body ------------------------------------------------------------------------------------


def test_a_request_is_at_most_100_kilobytes() -> None:
    def body_of(size: int) -> str:
        frame = len(json.dumps({"query": "{ __typename } #"}))
        return json.dumps({"query": "{ __typename } #" + "x" * (size - frame)})

    for _ in range(2):
        assert send(body_of(100 * 1024)).json() == {"data": {"__typename": "Query"}}
        for size in (100 * 1024 + 1, 2 * 1024 * 1024):
            response = send(body_of(size))
            assert response.status_code == 413
            assert response.json()["errors"] == [
                {"message": "The request is too large.", "extensions": {"code": "INVALID_INPUT"}}
            ]


@pytest.mark.parametrize(
    "body",
    [
        b" ",
        b'"x"',
        b"5",
        b"null",
        b"true",
        b"[]",
        b'[{"query": "{ __typename }"}]',
        b"NaN",
        b'{"query": "{ __typename }", "variables": {"x": NaN}}',
        b'{"query": "{ __typename }", "variables": {"x": -Infinity}}',
        b'{"query": "{ __typename }"',
        b'{"query": "{ __typename }"} {}',
        b"\xff\xfe\x00",
        b'{"query": "\xff"}',
        b"[" * 100_000,
        b'{"a":' * 20_000,
        b'{"query": ' + b"9" * 5000 + b"}",
        b"{}",
        b'{"query": null}',
        b'{"query": ""}',
        b'{"query": 5}',
        b'{"query": ["{ __typename }"]}',
        b'{"query": {"a": 1}}',
        b'{"query": true}',
        *(
            b'{"query": "{ __typename }", "%s": %s}' % (name, value)
            for name in (b"variables", b"extensions")
            for value in (b'"x"', b"5", b"[]", b"[1]", b"true", b"0")
        ),
        *(
            b'{"query": "query A { __typename }", "operationName": %s}' % value
            for value in (b'"B"', b"5", b"[]", b'["A"]', b"{}", b"true")
        ),
        b'{"query": "query A { __typename }", "operationName": ""}',
    ],
)
def test_a_body_that_is_no_request_is_refused(body: bytes) -> None:
    for accept in (JSON, GRAPHQL_RESPONSE):
        response = send(body, Accept=accept)

        assert response.status_code == 400
        assert response["Content-Type"] == f"{accept}; charset=utf-8"
        assert len(errors_of(response)) == 1


def test_an_operation_is_chosen_by_its_name() -> None:
    document = "query A { a: __typename } query B { b: __typename }"

    response = send(
        json.dumps({"query": document, "operationName": "B", "variables": None, "extensions": {}})
    )

    assert response.json() == {"data": {"b": "Query"}}


@pytest.mark.parametrize("name", [None, ""])
def test_one_of_several_operations_must_be_named(name: str | None) -> None:
    document = "query A { a: __typename } mutation B { b: __typename }"

    for _ in range(2):  # the second finds the document in the caches
        response = send(json.dumps({"query": document, "operationName": name}))

        assert "data" not in response.json()
        assert len(errors_of(response)) == 1
    assert send(json.dumps({"query": document, "operationName": "A"})).json() == {"data": {"a": "Query"}}


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "text/plain",
        "application/graphql",
        "application/x-www-form-urlencoded",
        "application/jsonp",
        "multipart/form-data; boundary=x",
        "multipart/form-data",
        "application/json-patch+json",
        "x" * 200,
    ],
)
def test_another_content_type_is_refused(content_type: str) -> None:
    response = send('{"query": "{ __typename }"}', content_type)

    assert response.status_code == 415
    assert errors_of(response) == ["Send the request as application/json."]


@pytest.mark.parametrize(
    "content_type", ["application/json", "application/json; charset=utf-8", "Application/JSON;charset=UTF-8"]
)
def test_json_is_taken_however_it_is_named(content_type: str) -> None:
    assert send('{"query": "{ __typename }"}', content_type).json() == {"data": {"__typename": "Query"}}


def test_files_are_not_taken(alice: User) -> None:
    operations = json.dumps({"query": "{ __typename }"})

    response = client_of(alice).post(URL, {"operations": operations, "map": "{}"})

    assert response.status_code == 415


# --- Variables -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("declared", "value"),
    [
        ("Int", "one"),
        ("Int", 1.5),
        ("Int", 2**31),
        ("Int", 10**400),
        ("Int", [1, 2]),
        ("Int", {"a": 1}),
        ("Int", True),
        ("String", 5),
        ("String", ["a"]),
        ("InviteStatus", "open"),
        ("InviteStatus", 0),
        ("InviteStatus", "NO"),
        ("PlanFilters", "x"),
        ("PlanFilters", {"name": 5}),
        ("PlanFilters", {"nome": "x"}),
        ("[Int]", "x"),
        ("ID!", None),
        ("ID!", 1.5),
        ("ID!", {}),
        ("Nothing", 1),
        ("FamilyPlan", {}),
    ],
)
def test_a_variable_of_the_wrong_type_is_refused(declared: str, value: object) -> None:
    query = f"query ($x: {declared}) {{ ...F @skip(if: true) }} fragment F on Query {{ __typename }}"
    used = {
        "Int": "plans(first: $x) { edges { cursor } }",
        "String": "plans(after: $x) { edges { cursor } }",
        "PlanFilters": "plans(filters: $x) { edges { cursor } }",
        "ID!": "node(id: $x) { id }",
    }
    if declared in used:
        query = f"query ($x: {declared}) {{ {used[declared]} }}"

    response = post(Client(), query, {"x": value})

    assert response.status_code == 200
    assert errors_of(response)
    assert "INTERNAL_ERROR" not in response.text


# --- Methods and media types -----------------------------------------------------------------------


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "TRACE", "PROPFIND"])
def test_another_method_is_refused_with_those_that_work(method: str) -> None:
    response = Client().generic(method, URL, '{"query": "{ __typename }"}', content_type=JSON)

    assert response.status_code == 405
    assert response["Allow"] == "GET, HEAD, OPTIONS, POST"
    assert response.json()["errors"][0]["message"] == "Send GraphQL by POST."


@pytest.mark.parametrize("accept", [JSON, GRAPHQL_RESPONSE])
def test_queries_by_get_are_off(accept: str) -> None:
    response = Client().get(URL, {"query": "{ __typename }"}, headers={"Accept": accept})

    assert response.status_code == 405
    assert response["Allow"] == "OPTIONS, POST"
    assert "data" not in response.json()


def test_a_mutation_by_get_changes_nothing(alice: User, plan: FamilyPlan) -> None:
    mutation = f'mutation {{ closePlan(input: {{planId: "{node_id(plan)}"}}) {{ __typename }} }}'

    with unchanged():
        for accept in (JSON, "text/html", "*/*"):
            client_of(alice).get(URL, {"query": mutation}, headers={"Accept": accept})


def test_head_is_get_without_a_body_and_options_tells_the_methods(support: User) -> None:
    client = client_of(support)

    for accept, status in (("text/html", 200), (JSON, 405)):
        head = client.head(URL, headers={"Accept": accept})
        assert (head.status_code, head.content) == (status, b"")
        assert client.get(URL, headers={"Accept": accept}).status_code == status
    options = client.options(URL)
    assert (options.status_code, options["Allow"]) == (200, "GET, HEAD, POST, OPTIONS")


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        (None, JSON),
        ("", JSON),
        ("*/*", JSON),
        ("text/html", JSON),
        (JSON, JSON),
        (GRAPHQL_RESPONSE, GRAPHQL_RESPONSE),
        (f"{GRAPHQL_RESPONSE}, {JSON};q=0.9", GRAPHQL_RESPONSE),
        (f"{JSON}, {GRAPHQL_RESPONSE};q=0.9", JSON),
        ("a/b/c,;;q=x", JSON),
    ],
)
def test_the_answer_is_of_the_type_that_the_client_prefers(accept: str | None, media_type: str) -> None:
    headers = {} if accept is None else {"Accept": accept}

    for query, strict_status in (("{ __typename }", 200), ("{ nothing }", 400), ("{", 400)):
        response = post(Client(), query, **headers)

        assert response["Content-Type"] == f"{media_type}; charset=utf-8"
        assert response.status_code == (strict_status if media_type == GRAPHQL_RESPONSE else 200)


def test_an_operation_that_ran_is_a_success_whatever_its_fields_say(support: User) -> None:
    response = post(client_of(support), "{ plans(first: -1) { edges { cursor } } }", Accept=GRAPHQL_RESPONSE)

    assert response.status_code == 200
    assert response.json()["data"] is None


# --- What a stranger learns ------------------------------------------------------------------------

INTROSPECTION = "query Introspect { __schema { types { name } } }"


def test_a_stranger_who_repeats_a_query_of_staff_gets_nothing_from_the_caches(
    support: User, alice: User
) -> None:
    for _ in range(2):
        assert errors_of(post(client_of(support), INTROSPECTION)) == []
        for stranger in (None, alice, UserFactory(is_staff=False)):
            errors = errors_of(post(client_of(stranger), INTROSPECTION))
            assert "introspection has been disabled" in errors[0]
    assert errors_of(post(client_of(support), INTROSPECTION)) == []


@pytest.mark.parametrize(
    ("query", "near"),
    [
        ("{ vewer { id } }", "viewer"),
        ("{ viewer { emial } }", "email"),
        ("{ plans(frst: 1) { edges { cursor } } }", "first"),
        ("{ plans(filters: {nam: 1}) { edges { cursor } } }", "name"),
        ('{ node(id: "x") { ... on FamilyPlanz { id } } }', "FamilyPlan'"),
        ('{ node(id: "x") { ... on FamilyPlan { invites(status: OPE) { edges { cursor } } } } }', "OPEN"),
        ("{ viewer { id @skp(if: true) } }", "skip"),
    ],
)
def test_a_typo_is_told_without_the_name_that_was_meant(query: str, near: str) -> None:
    for _ in range(2):
        errors = " ".join(errors_of(post(Client(), query)))
        assert errors
        assert "Did you mean" not in errors
        assert near not in errors


def test_a_variable_with_a_typo_is_told_without_the_name_that_was_meant() -> None:
    query = "query ($x: PlanFilters) { plans(filters: $x) { edges { cursor } } }"

    [error] = errors_of(post(Client(), query, {"x": {"nome": "x"}}))

    assert "nome" in error
    assert "Did you mean" not in error
    assert "'name'" not in error


def test_developers_are_told_what_they_may_have_meant(settings: Settings) -> None:
    settings.DEBUG = True

    [error] = errors_of(post(Client(), "{ viewer { emial } }"))

    assert error == "Cannot query field 'emial' on type 'Viewer'. Did you mean 'email'?"


# --- What nobody anticipated -----------------------------------------------------------------------


def internal_error(error: dict[str, Any]) -> str:
    """Check that an error says nothing, and return the ID to ask for."""
    assert error["message"] == "Unexpected error."
    extensions = error["extensions"]
    assert set(extensions) == {"code", "requestId"}
    assert extensions["code"] == "INTERNAL_ERROR"
    return str(extensions["requestId"])


def logged_once(caplog: pytest.LogCaptureFixture, request_id: str) -> logging.LogRecord:
    [record] = [record for record in caplog.records if request_id in record.getMessage()]
    assert record.levelno == logging.ERROR
    assert [one for one in caplog.records if one.levelno >= logging.ERROR] == [record]
    return record


@pytest.mark.parametrize(
    "error", [RuntimeError(f"secret {SECRET}"), DatabaseError("down"), KeyError("x")], ids=repr
)
def test_a_bug_is_masked_and_logged_once_with_the_id_that_is_answered(
    error: Exception,
    alice: User,
    plan: FamilyPlan,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(services, "close_plan", mock.Mock(side_effect=error))
    mutation = "mutation ($id: ID!) { closePlan(input: {planId: $id}) { __typename } }"

    response = post(client_of(alice), mutation, {"id": node_id(plan)})

    assert response.status_code == 200
    [shown] = response.json()["errors"]
    record = logged_once(caplog, internal_error(shown))
    assert record.exc_info is not None
    assert record.exc_info[1] is error
    assert str(error) not in response.text


def test_a_bug_before_anything_runs_is_masked_as_well(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("graphql_api.operations.may_explore", mock.Mock(side_effect=RuntimeError("bug")))

    response = post(Client(), "{ __typename }")

    body = response.json()
    assert "data" not in body
    logged_once(caplog, internal_error(body["errors"][0]))


def test_a_failing_database_is_masked_where_it_fails(
    alice: User, plan: FamilyPlan, caplog: pytest.LogCaptureFixture
) -> None:
    client = client_of(alice)

    def fail_from(table: str) -> Callable[..., Any]:
        def execute(run: Callable[..., Any], sql: str, *rest: Any) -> Any:
            if f'FROM "{table}"' in sql:
                raise DatabaseError(f"lost {SECRET}")
            return run(sql, *rest)

        return execute

    with connection.execute_wrapper(fail_from("plans_membership")):
        response = post(client, "{ viewer { email membership { id } } }")
    assert response.status_code == 200
    assert response.json()["data"] == {"viewer": {"email": "alice@example.com", "membership": None}}
    logged_once(caplog, internal_error(response.json()["errors"][0]))

    caplog.clear()
    with connection.execute_wrapper(fail_from("config_session")):
        response = Client(raise_request_exception=False).post(
            URL, '{"query": "{ __typename }"}', content_type=JSON, headers={"X-Session-Token": "x" * 32}
        )
    assert response.status_code == 500
    assert SECRET not in response.text
    record = next(one for one in caplog.records if one.name == "graphql_api.views")
    assert internal_error(response.json()["errors"][0]) in record.getMessage()


def test_a_mistake_of_the_client_is_no_news(alice: User, caplog: pytest.LogCaptureFixture) -> None:
    for query in ("{", "{ nothing }", "{ plans(first: -1) { edges { cursor } } }"):
        post(client_of(alice), query)

    assert [
        record for record in caplog.records if record.name.split(".")[0] in {"graphql_api", "strawberry"}
    ] == []


def test_the_log_of_a_journey_holds_no_secret(
    alice: User, plan: FamilyPlan, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    InviteFactory(family_plan=plan, token=SECRET)
    login = json.dumps({"email": alice.email, "password": PASSWORD})
    session = Client().post("/_allauth/app/v1/auth/login", login, content_type=JSON).json()
    token = session["meta"]["session_token"]
    mutation = "mutation ($token: String!) { acceptInvite(input: {token: $token}) { __typename } }"

    for query in (mutation, "query ($token: String!) { invite(token: $token) { status } }", "{ nothing }"):
        post(Client(), query, {"token": SECRET}, **{"X-Session-Token": token})
    post(Client(), mutation, {"token": SECRET}, **{"X-Session-Token": "x" + token})

    logged = " ".join(
        record.getMessage() for record in caplog.records if not record.name.startswith("django.db")
    )
    for secret in (SECRET, token, PASSWORD):
        assert secret not in logged
