"""How many SQL statements a mutation takes, without those that identify the client: two at best."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from plans.models import FamilyPlan
from tests.api import client_of, node_id, post
from tests.factories import InviteFactory, ZammadUserFactory
from zammad.sandbox import Sandbox

pytestmark = pytest.mark.django_db(transaction=True)

TOKEN = "t" * 43
CREATE = """mutation($input: CreateInviteInput!) { createInvite(input: $input) {
    __typename ... on CreatedInvite { invite { id status } token url } } }"""
ACCEPT = """mutation($input: AcceptInviteInput!) { acceptInvite(input: $input) {
    __typename ... on AcceptedInvite { membership { role } plan { name seatsTaken } redirectUrl } } }"""
DETACH = """mutation($input: DetachMemberInput!) { detachMember(input: $input) {
    __typename ... on DetachedMember { plan { seatsTaken } invite { status } } } }"""


def statements_of(person: User, mutation: str, answered: str, **values: object) -> int:
    """Run a mutation, and count its statements without those that identify the client."""
    token = str(client_of(person).session.session_key)

    def ask(query: str, **variables: object) -> tuple[str, int]:
        with CaptureQueriesContext(connection) as captured:
            response = post(Client(), query, variables, **{"X-Session-Token": token})
        [(_, answer)] = response.json()["data"].items()
        return answer["__typename"], sum(
            not query["sql"].startswith(("BEGIN", "COMMIT")) for query in captured.captured_queries
        )

    _, to_tell_who_asks = ask("{ viewer { __typename id } }")
    typename, statements = ask(mutation, input=values)
    assert typename == answered
    return statements - to_tell_who_asks


def test_an_invite_takes_so_many_statements(sandbox: Sandbox, alice: User, plan: FamilyPlan) -> None:
    def count(**values: object) -> int:
        return statements_of(alice, CREATE, "CreatedInvite", planId=node_id(plan), **values)

    assert count() == 5
    # and with a mail: its quota, and what became of it
    assert count(email="carol@example.com") == 8


def test_accepting_takes_so_many_statements(alice: User, carol: User, plan: FamilyPlan) -> None:
    InviteFactory(family_plan=plan, created_by=alice, token=TOKEN)

    assert statements_of(carol, ACCEPT, "AcceptedInvite", token=TOKEN) == 9


def test_detaching_takes_so_many_statements(alice: User, bob: User, plan: FamilyPlan) -> None:
    assert statements_of(alice, DETACH, "DetachedMember", membershipId=node_id(bob.membership)) == 6


def test_accepting_looks_for_who_waits_only_where_somebody_may(
    alice: User, carol: User, plan: FamilyPlan
) -> None:
    InviteFactory(family_plan=plan, created_by=alice, token=TOKEN)
    waiting = ZammadUserFactory(email="carol@example.com")

    assert statements_of(carol, ACCEPT, "AcceptedInvite", token=TOKEN) > 9

    waiting.refresh_from_db()
    assert waiting.user == carol
