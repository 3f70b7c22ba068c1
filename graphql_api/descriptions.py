"""What the schema says of what others define: the library's types, and the values of the domain's enums."""

from __future__ import annotations

from graphql import GraphQLSchema, resolve_schema_coordinate

from graphql_api.refusals import codes_as_list

NODES = ("FamilyPlan", "FamilyPlanInvite", "Membership", "PlanEvent", "User")
LISTED = {"FamilyPlan": "plans", "FamilyPlanInvite": "invites", "PlanEvent": "events"}
NODE_ID = "The node id, for `node` and for arguments: opaque, the same for ever, never given to another."
CURSOR = "The place, opaque, for `after` and `before`; it stays good when rows come and go."

DESCRIPTIONS = {
    "DateTime": (
        "A moment in UTC, as ISO 8601 writes it: `2026-03-02T09:00:00.123456+00:00`. The fraction is left "
        "out where it is zero."
    ),
    "Node": "Whatever has a node id, under which `node` finds it again.",
    **{f"{name}.id": NODE_ID for name in ("Node", *NODES)},
    # --- Pages
    "PageInfo": "Where a page lies in its list.",
    "PageInfo.hasNextPage": "Whether more follows: ask again with `endCursor` as `after`.",
    "PageInfo.hasPreviousPage": "Whether more precedes: ask again with `startCursor` as `before`.",
    "PageInfo.startCursor": "The cursor of the page's first edge; null for an empty page.",
    "PageInfo.endCursor": "The cursor of the page's last edge; null for an empty page.",
    **{f"{name}Connection": f"A page of {listed}: at most 100." for name, listed in LISTED.items()},
    **{f"{name}Connection.pageInfo": "Where the page lies in its list." for name in LISTED},
    **{f"{name}Connection.edges": "What is on the page, in its order." for name in LISTED},
    **{f"{name}Edge": "A place in a list, and what is there." for name in LISTED},
    **{f"{name}Edge.cursor": CURSOR for name in LISTED},
    **{f"{name}Edge.node": "What is at this place." for name in LISTED},
    # --- Refusals
    "OperationInfo": "Why a mutation was refused. Nothing has changed.",
    "OperationInfo.messages": "The reasons: one, or several when several values are wrong.",
    "OperationMessage": "One reason of a refusal.",
    "OperationMessage.kind": "Whether a right is missing or a rule is broken.",
    "OperationMessage.message": (
        "The reason in words that may be shown to people, in the language that `Accept-Language` asks for."
    ),
    "OperationMessage.field": "The field of the input that is wrong, such as `ownerEmail`; else null.",
    "OperationMessage.code": (
        "The reason for programs, the same in every language; never null. More may be added: take one that "
        f"you do not know for a refusal, and show its message.\n\n{codes_as_list()}"
    ),
    "OperationMessageKind": "What sort of reason it is.",
    "OperationMessageKind.PERMISSION": "A sign-in or a right is missing.",
    "OperationMessageKind.VALIDATION": "A rule is broken, or a value is wrong.",
    "OperationMessageKind.INFO": "Not used.",
    "OperationMessageKind.WARNING": "Not used.",
    "OperationMessageKind.ERROR": "Not used.",
    # --- The values of enums
    "MembershipRole.OWNER": "Shares the plan with the others: invites, detaches, transfers, closes.",
    "MembershipRole.MEMBER": "Joined the plan, and may leave it.",
    "InviteStatus.OPEN": "Can be accepted, and holds a seat.",
    "InviteStatus.USED": "Somebody holds a seat by it; counted as a member.",
    "InviteStatus.EXPIRED": "Its time is over, or it was revoked, or who used it has gone: it holds no seat.",
    "MailStatus.NONE": "No mail: the invite has no address, or the mail has not been tried yet.",
    "MailStatus.SENT": "The mail server took it.",
    "MailStatus.SKIPPED": "No mail: the address had three invitations within 24 hours, over all plans.",
    "MailStatus.FAILED": "The mail server failed: hand the link out in another way, or reissue the invite.",
    "PlanEventKind.PLAN_CREATED": "`actor` created the plan for `subject`, its first owner.",
    "PlanEventKind.PLAN_CLOSED": "`actor` closed the plan.",
    "PlanEventKind.INVITE_CREATED": "`actor` created `invite`.",
    "PlanEventKind.INVITE_REISSUED": "`actor` gave `invite` a fresh link and expiry.",
    "PlanEventKind.INVITE_REVOKED": "`actor` expired `invite` before its time.",
    "PlanEventKind.INVITE_ACCEPTED": "`subject`, who is also `actor`, joined by `invite`.",
    "PlanEventKind.MEMBER_DETACHED": "`actor` detached `subject`, who had joined by `invite`, if by any.",
    "PlanEventKind.MEMBER_LEFT": "`subject`, who is also `actor` and had joined by `invite`, left.",
    "PlanEventKind.OWNERSHIP_TRANSFERRED": "`actor` made `subject` the owner, and the owner a member.",
}


def describe(schema: GraphQLSchema) -> None:
    """Put these descriptions into the schema, in place of the library's or of none."""
    for coordinate, description in DESCRIPTIONS.items():
        found = resolve_schema_coordinate(schema, coordinate)
        if found is None:
            raise LookupError(f"The schema has no {coordinate}.")
        *_, element, _kind = found
        element.description = description
