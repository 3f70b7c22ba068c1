"""Who may see what: every field of every type, queried in every role.

The table is compared with the schema: a field without a decision fails.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from graphql import GraphQLInterfaceType, GraphQLObjectType, get_named_type

from graphql_api.schema import schema
from plans.models import FamilyPlan, FamilyPlanInvite, Membership, PlanEvent
from tests.api import answer, ask, client_of, node_id, post
from tests.factories import InviteFactory, MembershipFactory, UserFactory, ZammadUserFactory

pytestmark = pytest.mark.django_db

NOBODY = frozenset[str]()
SUPPORT = frozenset({"support"})
OWNER = SUPPORT | {"owner"}
PLAN = OWNER | {"member", "fellow"}  # everybody in the plan, and Support
SELF = SUPPORT | {"member"}  # the person whom the row is about, and Support
SIGNED_IN = PLAN | {"stranger", "clerk"}
ROLES = sorted(SIGNED_IN | {"nobody"})

# Who gets a value of each field of the rows about the member of Alice's plan.
# A row that you may not see is null as a whole, so a field is as open as its row unless it says less.
TABLE: dict[tuple[str, str], frozenset[str]] = {
    ("Query", "viewer"): SIGNED_IN,
    ("Query", "plan"): PLAN,
    ("Query", "plans"): PLAN,
    ("Query", "invite"): SIGNED_IN,
    ("Query", "planByZammadUser"): SUPPORT,
    ("Query", "node"): PLAN,
    ("Viewer", "id"): SIGNED_IN,
    ("Viewer", "email"): SIGNED_IN,
    ("Viewer", "displayName"): SIGNED_IN,
    ("Viewer", "membership"): frozenset({"owner", "member", "fellow"}),
    ("Viewer", "plan"): frozenset({"owner", "member", "fellow"}),
    ("Viewer", "canCreatePlan"): SIGNED_IN,
    ("FamilyPlan", "id"): PLAN,
    ("FamilyPlan", "name"): PLAN,
    ("FamilyPlan", "userLimit"): PLAN,
    ("FamilyPlan", "seatsTaken"): PLAN,
    ("FamilyPlan", "seatsAvailable"): PLAN,
    ("FamilyPlan", "owner"): PLAN,
    ("FamilyPlan", "members"): PLAN,
    ("FamilyPlan", "invites"): OWNER,
    ("FamilyPlan", "events"): OWNER,
    ("FamilyPlan", "createdAt"): PLAN,
    ("FamilyPlan", "closedAt"): PLAN,
    ("Membership", "id"): PLAN,
    ("Membership", "user"): PLAN,
    ("Membership", "role"): PLAN,
    ("Membership", "joinedAt"): PLAN,
    ("Membership", "zammadUserId"): SELF,
    ("Membership", "zammadUser"): SELF,
    ("User", "id"): PLAN,
    ("User", "displayName"): PLAN,
    ("User", "email"): OWNER | SELF,
    ("FamilyPlanInvite", "id"): OWNER,
    ("FamilyPlanInvite", "email"): OWNER,
    ("FamilyPlanInvite", "status"): OWNER,
    ("FamilyPlanInvite", "isUsed"): OWNER,
    ("FamilyPlanInvite", "expiresAt"): OWNER,
    ("FamilyPlanInvite", "createdAt"): OWNER,
    ("FamilyPlanInvite", "createdBy"): OWNER,
    ("FamilyPlanInvite", "user"): OWNER,
    ("FamilyPlanInvite", "mailStatus"): OWNER,
    ("PlanEvent", "id"): OWNER,
    ("PlanEvent", "kind"): OWNER,
    ("PlanEvent", "at"): OWNER,
    ("PlanEvent", "actor"): OWNER,
    ("PlanEvent", "subject"): OWNER,
    ("PlanEvent", "invite"): OWNER,
    ("ZammadUser", "zammadId"): SELF,
    ("ZammadUser", "email"): SELF,
    ("ZammadUser", "firstname"): SELF,
    ("ZammadUser", "lastname"): SELF,
    ("ZammadUser", "organization"): SELF,
    ("ZammadUser", "phone"): SELF,
    ("ZammadUser", "mobile"): SELF,
    ("ZammadUser", "vip"): SELF,
    ("ZammadUser", "active"): SELF,
    ("ZammadUser", "updatedAt"): SELF,
    ("ZammadUser", "syncedAt"): SELF,
    ("InvitePreview", "planName"): SIGNED_IN,
    ("InvitePreview", "ownerName"): SIGNED_IN,
    ("InvitePreview", "expiresAt"): SIGNED_IN,
    ("InvitePreview", "status"): SIGNED_IN,
}
TOKEN = "t" * 43
# They cannot hold a secret: pages around nodes, and the payloads of mutations that you may run.
# The payloads lead to the types above; test_a_payload_shows_no_more_than_a_query looks at them.
SHELLS = {
    "PageInfo",
    "FamilyPlanConnection",
    "FamilyPlanEdge",
    "FamilyPlanInviteConnection",
    "FamilyPlanInviteEdge",
    "PlanEventConnection",
    "PlanEventEdge",
    "OperationInfo",
    "OperationMessage",
    "CreatedPlan",
    "CreatedInvite",
    "AcceptedInvite",
    "RevokedInvite",
    "DetachedMember",
    "TransferredOwnership",
    "ClosedPlan",
    "Mutation",  # test_graphql_mutations.py covers each of them in each role
    "Node",
}

TYPES = {
    name: kind
    for name, kind in schema._schema.type_map.items()
    if isinstance(kind, (GraphQLObjectType, GraphQLInterfaceType)) and not name.startswith("__")
}


@dataclass
class World:
    """Alice's plan with everything it can have, and one person for each role."""

    people: dict[str, User | None]
    rows: dict[str, Any]


@pytest.fixture
def world(alice: User, bob: User, carol: User, support: User, plan: FamilyPlan) -> World:
    fellow = MembershipFactory(family_plan=plan).user
    clerk = UserFactory(is_staff=True)
    invite = FamilyPlanInvite.objects.get(user=bob)
    FamilyPlanInvite.objects.filter(pk=invite.pk).update(email=bob.email)
    FamilyPlan.objects.filter(pk=plan.pk).update(closed_at=timezone.now())  # so that no field is null
    InviteFactory(family_plan=plan, token=TOKEN, expires_at=timezone.now() + timedelta(hours=1))
    ZammadUserFactory(zammad_id=57, user=bob, email=bob.email, phone="1", mobile="2", organization="Acme")
    event = PlanEvent.objects.create(
        family_plan=plan, kind="INVITE_ACCEPTED", actor=bob, subject=bob, invite=invite
    )
    return World(
        people={
            "nobody": None,
            "stranger": carol,
            "clerk": clerk,
            "fellow": fellow,
            "member": bob,
            "owner": alice,
            "support": support,
        },
        rows={
            "FamilyPlan": plan,
            "Membership": Membership.objects.get(user=bob),
            "User": bob,
            "FamilyPlanInvite": invite,
            "PlanEvent": event,
        },
    )


def selection_of(type_name: str, field: str) -> str:
    """Select a field; of an object, something that is never null."""
    kind = get_named_type(TYPES[type_name].fields[field].type)
    return f"{field} {{ __typename }}" if kind.name in TYPES else field


def operation_for(type_name: str, field: str, world: World) -> tuple[str, list[str]]:
    """Write the shortest query for a field of the member's row, and return the path to it."""
    chosen = selection_of(type_name, field)
    rows = world.rows
    match type_name, field:
        case "Query", "viewer":
            return f"{{ {chosen} }}", ["viewer"]
        case "Query", ("plan" | "node"):
            return f'{{ {field}(id: "{node_id(rows["FamilyPlan"])}") {{ __typename }} }}', [field]
        case "Query", "plans":
            return "{ plans { edges { node { __typename } } } }", ["plans", "edges"]
        case "Query", "invite":
            return f'{{ invite(token: "{TOKEN}") {{ __typename }} }}', ["invite"]
        case "Query", "planByZammadUser":
            return "{ planByZammadUser(zammadUserId: 57) { __typename } }", ["planByZammadUser"]
        case "Viewer", _:
            return f"{{ viewer {{ {chosen} }} }}", ["viewer", field]
        case "InvitePreview", _:
            return f'{{ invite(token: "{TOKEN}") {{ {chosen} }} }}', ["invite", field]
        case "ZammadUser", _:
            inner = f"... on Membership {{ zammadUser {{ {chosen} }} }}"
            return f'{{ node(id: "{node_id(rows["Membership"])}") {{ {inner} }} }}', [
                "node",
                "zammadUser",
                field,
            ]
        case _:
            inner = f"... on {type_name} {{ {chosen} }}"
            return f'{{ node(id: "{node_id(rows[type_name])}") {{ {inner} }} }}', ["node", field]


def test_every_field_of_the_schema_has_a_decision() -> None:
    fields = {(name, field) for name, kind in TYPES.items() if name not in SHELLS for field in kind.fields}

    assert fields == set(TABLE)
    assert set(TYPES) >= SHELLS


@pytest.mark.parametrize(("type_name", "field"), TABLE, ids=lambda part: part)
def test_a_field_is_for_those_whom_the_table_names(type_name: str, field: str, world: World) -> None:
    query, path = operation_for(type_name, field, world)

    sees = set()
    for role in ROLES:
        found: Any = answer(world.people[role], query)["data"]
        for step in path:
            found = found and found[step]
        if found not in (None, []):
            sees.add(role)

    assert sees == TABLE[type_name, field]


# --- Edges: the same row by every way to it -------------------------------------------------------

# Each way to a person, from what a client can name; it ends at the member of the plan.
WAYS_TO_A_USER = {
    "members": "plan(id: $plan) { members { user { id email } } }",
    "owner": "plan(id: $plan) { owner { id email } }",
    "page": "plans { edges { node { members { user { id email } } owner { id email } } } }",
    "viewer": "viewer { membership { user { id email } } plan { members { user { id email } } } }",
    "createdBy": "plan(id: $plan) { invites { edges { node { createdBy { id email } } } } }",
    "user": "plan(id: $plan) { invites { edges { node { user { id email } } } } }",
    "actor": "plan(id: $plan) { events { edges { node { actor { id email } } } } }",
    "subject": "plan(id: $plan) { events { edges { node { subject { id email } } } } }",
    "event's invite": """plan(id: $plan) { events { edges { node {
        invite { createdBy { id email } user { id email } } } } } }""",
    "node": "node(id: $member) { ... on User { id email } }",
    "membership": "node(id: $membership) { ... on Membership { user { id email } } }",
}


def people_in(found: Any) -> list[tuple[str, str | None]]:
    """Collect every person in a response, with the address shown."""
    if isinstance(found, list):
        return [person for part in found for person in people_in(part)]
    if not isinstance(found, dict):
        return []
    here = [(found["id"], found["email"])] if "email" in found else []
    return here + [person for part in found.values() for person in people_in(part)]


@pytest.mark.parametrize("way", WAYS_TO_A_USER)
def test_an_address_is_guarded_on_every_way_to_a_person(way: str, world: World) -> None:
    plan, seat, bob = (world.rows[name] for name in ("FamilyPlan", "Membership", "User"))
    names = {"plan": node_id(plan), "membership": node_id(seat), "member": node_id(bob)}
    used = [name for name in names if f"${name})" in WAYS_TO_A_USER[way]]
    declared = ", ".join(f"${name}: ID!" for name in used)
    query = f"query {f'({declared})' if used else ''} {{ {WAYS_TO_A_USER[way]} }}"
    members = {node_id(seat.user): seat.user for seat in plan.memberships.select_related("user")}
    shown = 0

    for role, viewer in world.people.items():
        for person, address in people_in(answer(viewer, query, **{name: names[name] for name in used})):
            shown += 1
            sees = role in {"owner", "support"} or members[person] == viewer
            assert address == (members[person].email if sees else None), (role, members[person])

    assert shown > 0


def test_the_owner_of_another_plan_is_a_stranger_here(world: World) -> None:
    other = MembershipFactory(role="OWNER").user

    for row in world.rows.values():
        assert ask(other, "query ($id: ID!) { node(id: $id) { id } }", id=node_id(row)) is None


def test_a_former_member_and_the_helper_from_support_keep_their_addresses(world: World) -> None:
    plan, alice = world.rows["FamilyPlan"], world.people["owner"]
    former, support = UserFactory(), world.people["support"]
    PlanEvent.objects.create(family_plan=plan, kind="MEMBER_DETACHED", actor=support, subject=former)
    query = """query ($id: ID!) { plan(id: $id) { events(first: 1) { edges { node {
        actor { displayName email } subject { displayName email } } } } } }"""

    [edge] = ask(alice, query, id=node_id(plan))["events"]["edges"]

    assert edge["node"] == {
        "actor": {"displayName": f"Pat {support.last_name}" if support else "", "email": None},
        "subject": {"displayName": f"Pat {former.last_name}", "email": None},
    }


def test_a_payload_shows_no_more_than_a_query(world: World) -> None:
    carol = world.people["stranger"]
    assert carol is not None
    FamilyPlan.objects.update(closed_at=None)
    accept = """mutation ($token: String!) { acceptInvite(input: {token: $token}) {
        ... on AcceptedInvite { plan { members { user { id email } zammadUserId zammadUser { email } }
            owner { id email } invites { edges { cursor } } events { edges { cursor } } } } } }"""

    plan = ask(carol, accept, token=TOKEN)["plan"]

    assert (plan["invites"], plan["events"]) == (None, None)
    shown = {address for _, address in people_in(plan["members"][:-1]) + people_in([plan["owner"]])}
    assert shown == {None}
    assert plan["members"][-1]["user"] == {"id": node_id(carol), "email": "carol@example.com"}
    assert {member["zammadUserId"] for member in plan["members"]} == {None}
    assert {bool(member["zammadUser"]) for member in plan["members"]} == {False}


@pytest.mark.parametrize("role", ["nobody", "stranger", "member", "fellow", "owner", "support"])
def test_the_schema_itself_is_for_staff_who_explore(role: str, world: World) -> None:
    response = post(client_of(world.people[role]), "{ __schema { queryType { name } } }")

    body = response.json()
    assert ("data" in body) == (role == "support")
