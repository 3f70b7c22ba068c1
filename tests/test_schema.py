"""The schema matches the design, and explains itself to people who explore it."""

from __future__ import annotations

from pathlib import Path

import pytest
from graphql import (
    GraphQLEnumType,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLNamedType,
    GraphQLObjectType,
    GraphQLUnionType,
    get_named_type,
)
from strawberry.printer import print_schema

from graphql_api.schema import schema

EXPORTED = Path(__file__).resolve().parent.parent / "graphql_api" / "schema.graphql"
TYPES: dict[str, GraphQLNamedType] = {
    name: kind for name, kind in schema._schema.type_map.items() if not name.startswith("__")
}

PROMISED = {
    "Query": """viewer: Viewer | plan(id: ID!): FamilyPlan |
        plans(first: Int, after: String, last: Int, before: String, filters: PlanFilters):
            FamilyPlanConnection! |
        invite(token: String!): InvitePreview | planByZammadUser(zammadUserId: Int!): FamilyPlan |
        node(id: ID!): Node""",
    "Viewer": """id: ID! | email: String! | displayName: String! | membership: Membership | plan: FamilyPlan |
        canCreatePlan: Boolean!""",
    "FamilyPlan": """id: ID! | name: String! | userLimit: Int! | seatsTaken: Int! | seatsAvailable: Int! |
        owner: User | members: [Membership!]! |
        invites(first: Int, after: String, status: InviteStatus): FamilyPlanInviteConnection |
        events(first: Int, after: String): PlanEventConnection | createdAt: DateTime! | closedAt: DateTime""",
    "Membership": """id: ID! | user: User! | role: MembershipRole! | joinedAt: DateTime! | zammadUserId: Int |
        zammadUser: ZammadUser""",
    "User": "id: ID! | displayName: String! | email: String",
    "FamilyPlanInvite": """id: ID! | email: String | status: InviteStatus! | isUsed: Boolean! |
        expiresAt: DateTime! | createdAt: DateTime! | createdBy: User | user: User |
        mailStatus: MailStatus!""",
    "ZammadUser": """zammadId: Int! | email: String! | firstname: String! | lastname: String! |
        organization: String! | phone: String! | mobile: String! | vip: Boolean! | active: Boolean! |
        updatedAt: DateTime! | syncedAt: DateTime!""",
    "InvitePreview": "planName: String! | ownerName: String! | expiresAt: DateTime! | status: InviteStatus!",
    "PlanEvent": """id: ID! | kind: PlanEventKind! | at: DateTime! | actor: User | subject: User |
        invite: FamilyPlanInvite""",
    "Mutation": """createPlan(input: CreatePlanInput!): CreatePlanPayload! |
        createInvite(input: CreateInviteInput!): CreateInvitePayload! |
        acceptInvite(input: AcceptInviteInput!): AcceptInvitePayload! |
        reissueInvite(input: ReissueInviteInput!): ReissueInvitePayload! |
        revokeInvite(input: RevokeInviteInput!): RevokeInvitePayload! |
        detachMember(input: DetachMemberInput!): DetachMemberPayload! |
        transferOwnership(input: TransferOwnershipInput!): TransferOwnershipPayload! |
        closePlan(input: ClosePlanInput!): ClosePlanPayload!""",
    "CreatedPlan": "plan: FamilyPlan!",
    "CreatedInvite": "invite: FamilyPlanInvite! | token: String! | url: String!",
    "AcceptedInvite": "membership: Membership! | plan: FamilyPlan! | redirectUrl: String!",
    "RevokedInvite": "invite: FamilyPlanInvite!",
    "DetachedMember": "plan: FamilyPlan | invite: FamilyPlanInvite",
    "TransferredOwnership": "plan: FamilyPlan!",
    "ClosedPlan": "plan: FamilyPlan!",
    "OperationInfo": "messages: [OperationMessage!]!",
    "OperationMessage": "kind: OperationMessageKind! | message: String! | field: String | code: String",
    "PlanFilters": "name: String | ownerEmail: String",
    "CreatePlanInput": "name: String! | ownerEmail: String",
    "CreateInviteInput": "planId: ID! | email: String",
    "AcceptInviteInput": "token: String!",
    "ReissueInviteInput": "inviteId: ID!",
    "RevokeInviteInput": "inviteId: ID!",
    "DetachMemberInput": "membershipId: ID!",
    "TransferOwnershipInput": "membershipId: ID!",
    "ClosePlanInput": "planId: ID!",
}
VALUES = {
    "InviteStatus": "OPEN USED EXPIRED",
    "MembershipRole": "OWNER MEMBER",
    "MailStatus": "NONE SENT SKIPPED FAILED",
    "PlanEventKind": """PLAN_CREATED PLAN_CLOSED INVITE_CREATED INVITE_REISSUED INVITE_REVOKED INVITE_ACCEPTED
        MEMBER_DETACHED MEMBER_LEFT OWNERSHIP_TRANSFERRED""",
}
UNIONS = {
    "CreatePlanPayload": "CreatedPlan",
    "CreateInvitePayload": "CreatedInvite",
    "AcceptInvitePayload": "AcceptedInvite",
    "ReissueInvitePayload": "CreatedInvite",
    "RevokeInvitePayload": "RevokedInvite",
    "DetachMemberPayload": "DetachedMember",
    "TransferOwnershipPayload": "TransferredOwnership",
    "ClosePlanPayload": "ClosedPlan",
}


def signatures(kind: GraphQLNamedType) -> set[str]:
    """Write each field as the design does."""
    assert isinstance(kind, (GraphQLObjectType, GraphQLInputObjectType))
    written = set()
    for name, field in kind.fields.items():
        arguments = ", ".join(
            f"{argument}: {taken.type}" for argument, taken in getattr(field, "args", {}).items()
        )
        written.add(f"{name}{f'({arguments})' if arguments else ''}: {field.type}")
    return written


def test_the_exported_schema_is_fresh() -> None:
    assert EXPORTED.read_text() == print_schema(schema), "run make schema"


@pytest.mark.parametrize("name", PROMISED)
def test_a_type_has_the_fields_that_were_promised(name: str) -> None:
    assert signatures(TYPES[name]) == {
        " ".join(signature.split()) for signature in PROMISED[name].split(" |")
    }


def test_enums_and_unions_are_what_was_promised() -> None:
    enums = {
        name: set(kind.values)
        for name, kind in TYPES.items()
        if isinstance(kind, GraphQLEnumType) and name != "OperationMessageKind"
    }
    unions = {
        name: {member.name for member in kind.types}
        for name, kind in TYPES.items()
        if isinstance(kind, GraphQLUnionType)
    }

    assert enums == {name: set(values.split()) for name, values in VALUES.items()}
    assert unions == {name: {success, "OperationInfo"} for name, success in UNIONS.items()}


def test_there_is_no_type_but_those() -> None:
    pages = {"PageInfo", "Node"} | {
        f"{node}{part}"
        for node in ("FamilyPlan", "FamilyPlanInvite", "PlanEvent")
        for part in ("Connection", "Edge")
    }
    scalars = {"ID", "String", "Int", "Boolean", "DateTime"}

    assert set(TYPES) == {*PROMISED, *VALUES, *UNIONS, *pages, *scalars, "OperationMessageKind"}
    assert schema._schema.subscription_type is None


def test_everything_is_described() -> None:
    undescribed = set()
    for name, kind in TYPES.items():
        if not kind.description:
            undescribed.add(name)
        for field_name, field in getattr(kind, "fields", {}).items():
            if not field.description:
                undescribed.add(f"{name}.{field_name}")
            for argument_name, argument in getattr(field, "args", {}).items():
                if not argument.description:
                    undescribed.add(f"{name}.{field_name}({argument_name}:)")
        for value_name, value in getattr(kind, "values", {}).items():
            if not value.description:
                undescribed.add(f"{name}.{value_name}")

    assert undescribed == set()


def reachable_from(kind: GraphQLNamedType) -> set[str]:
    """Walk every edge that leads on from a type."""
    found: set[str] = set()
    ahead = [kind]
    while ahead:
        here = ahead.pop()
        if isinstance(here, GraphQLUnionType):
            next_types = list(here.types)
        elif isinstance(here, (GraphQLObjectType, GraphQLInterfaceType)):
            next_types = [get_named_type(field.type) for field in here.fields.values()]
        else:
            next_types = []
        new = [one for one in next_types if one.name not in found]
        found |= {one.name for one in new}
        ahead += new
    return found


def test_nothing_leads_back_to_itself() -> None:
    cycles = {name for name, kind in TYPES.items() if name in reachable_from(kind)}

    assert cycles == set()
    assert {"User", "Membership", "FamilyPlanInvite", "PlanEvent"} <= reachable_from(TYPES["FamilyPlan"])
    assert reachable_from(TYPES["User"]) == {"ID", "String"}
