"""The page for API users cannot rot: its examples run, and every query and mutation has one."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.http import HttpResponse
from django.test import Client
from graphql import FieldNode, OperationDefinitionNode, parse, validate
from pytest_django import Settings
from time_machine import TimeMachineFixture

from graphql_api.schema import schema
from plans.management.commands.demo_data import PASSWORD
from tests.factories import ZammadUserFactory
from zammad.sandbox import Sandbox

BASE_DIR = Path(__file__).resolve().parent.parent
PAGE = (BASE_DIR / "docs" / "api.md").read_text()
README = (BASE_DIR / "README.md").read_text()
MORNING = datetime(2026, 3, 2, 9, tzinfo=UTC)
PEOPLE = {
    "Ada": "admin@example.com",
    "Alice": "alice@example.com",
    "Bob": "bob@example.com",
    "Carol": "carol@example.com",
}
EXAMPLES = re.compile(
    r"```http\n(?P<request>.*?)```\s+```http\n(?P<response>.*?)```"
    r"|"
    r"(?:As (?P<who>\w+)|Signed out):\s+```graphql\n(?P<query>.*?)```\s+"
    r"(?:Variables:\s+```json\n(?P<variables>.*?)```\s+)?"
    r"Response:\s+```json\n(?P<answer>.*?)```",
    re.DOTALL,
)
# These change with every run: a value is compared with the one in its place on the page.
TOKEN = re.compile(r'"(?:session_|device_)?token": "([^"]+)"')


class Reader:
    """A reader who tries the page from top to bottom."""

    def __init__(self) -> None:
        self.client = Client()
        self.sessions: dict[str, str] = {}
        self.tokens: dict[str, str] = {}

    def send(self, path: str, body: str, **headers: str) -> Any:
        """Post a body, with the real tokens where the page prints examples."""
        for printed, real in self.tokens.items():
            body = body.replace(printed, real)
            headers = {name: value.replace(printed, real) for name, value in headers.items()}
        return self.client.post(path, body, content_type="application/json", headers=headers)

    def check(self, response: HttpResponse, printed: str) -> None:
        """Compare a response with the printed one, all of it."""
        answered, expected = (json.dumps(json.loads(text)) for text in (response.content, printed))
        self.tokens |= zip(TOKEN.findall(expected), TOKEN.findall(answered), strict=False)
        for token, real in self.tokens.items():
            answered = answered.replace(real, token)
        assert json.loads(answered) == json.loads(expected)

    def sign_in(self, who: str) -> str:
        if who not in self.sessions:
            body = json.dumps({"email": PEOPLE[who], "password": PASSWORD})
            response = self.send("/_allauth/app/v1/auth/login", body)
            self.sessions[who] = json.loads(response.content)["meta"]["session_token"]
        return self.sessions[who]

    def try_http(self, request: str, response: str) -> None:
        head, _, body = request.partition("\n\n")
        first, *lines = head.splitlines()
        headers = dict(line.split(": ", 1) for line in lines)
        assert headers.pop("Content-Type") == "application/json"
        head, _, expected = response.partition("\n\n")
        status, *lines = head.splitlines()

        answered = self.send(first.split()[1], body, **headers)

        assert first.split()[::2] == ["POST", "HTTP/1.1"]
        assert status == f"HTTP/1.1 {answered.status_code} {HTTPStatus(answered.status_code).phrase}"
        assert lines == [f"{name}: {answered[name]}" for name, _ in (line.split(": ", 1) for line in lines)]
        self.check(answered, expected)

    def try_operation(self, who: str | None, query: str, variables: str | None, answer: str) -> None:
        body = json.dumps({"query": query, "variables": json.loads(variables or "{}")})
        headers = {"X-Session-Token": self.sign_in(who)} if who else {}
        self.check(self.send("/graphql/", body, **headers), answer)


@pytest.mark.django_db(transaction=True, reset_sequences=True)
@pytest.mark.parametrize("page", [PAGE, README], ids=["api.md", "README.md"])
def test_every_example_is_answered_as_the_page_says(
    page: str, sandbox: Sandbox, settings: Settings, time_machine: TimeMachineFixture
) -> None:
    # given the demo data on a certain morning, and a delivery about Bob
    time_machine.move_to(MORNING, tick=False)
    settings.DEBUG = True
    call_command("demo_data")
    settings.DEBUG = False
    bob = User.objects.get(email="bob@example.com")
    ZammadUserFactory(zammad_id=4, user=bob, email=bob.email, firstname="Bob", updated_at=MORNING)

    # when the examples run in their order, then all responses are as printed
    examples = list(EXAMPLES.finditer(page))
    assert examples
    reader = Reader()
    for example in examples:
        asked: dict[str, Any] = example.groupdict()
        if asked["request"]:
            reader.try_http(asked["request"], asked["response"])
        else:
            reader.try_operation(*(asked[part] for part in ("who", "query", "variables", "answer")))


def test_there_is_an_example_of_every_query_and_mutation() -> None:
    shown = set()
    for example in EXAMPLES.finditer(PAGE):
        for operation in parse(example["query"] or "{ __typename }").definitions:
            assert isinstance(operation, OperationDefinitionNode)
            fields = [one for one in operation.selection_set.selections if isinstance(one, FieldNode)]
            shown |= {(operation.operation.value, field.name.value) for field in fields}

    kinds = {"query": schema._schema.query_type, "mutation": schema._schema.mutation_type}
    assert shown - {("query", "__typename")} == {
        (operation, name) for operation, kind in kinds.items() if kind for name in kind.fields
    }


def test_every_block_of_the_page_is_tried_or_valid() -> None:
    tried = "".join(example[0] for example in EXAMPLES.finditer(PAGE))
    blocks = re.findall(r"```\w+\n(.*?)```", PAGE, re.DOTALL)

    [untried] = [block for block in blocks if block not in tried]

    assert validate(schema._schema, parse(untried)) == []
