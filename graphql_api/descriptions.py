"""Descriptions of what others define: the libraries' types, generated inputs, and the domain's enums."""

from __future__ import annotations

from graphql import GraphQLSchema, resolve_schema_coordinate

from graphql_api.refusals import codes_as_list

INPUTS = {
    "createPlan": "The plan to create.",
    "createInvite": "The invite to create.",
    "acceptInvite": "The invite to accept.",
    "reissueInvite": "The invite to reissue.",
    "revokeInvite": "The invite to revoke.",
    "detachMember": "The member to detach.",
    "transferOwnership": "The member to make the owner.",
    "closePlan": "The plan to close.",
}

DESCRIPTIONS = {
    "DateTime": (
        "A moment in UTC, in ISO 8601: `2026-03-02T09:00:00.123456+00:00`. A fraction of zero is left out."
    ),
    # --- Inputs
    **{f"{name[0].upper()}{name[1:]}Input": text for name, text in INPUTS.items()},
    **{f"Mutation.{name}(input:)": text for name, text in INPUTS.items()},
    # --- Refusals
    "OperationInfo": "Why a mutation was refused. Nothing has changed.",
    "OperationInfo.messages": "The reasons: one, or several if several values are wrong.",
    "OperationMessage": "A reason for a refusal.",
    "OperationMessage.kind": "Whether a right is missing or a rule is broken.",
    "OperationMessage.message": (
        "The reason in words that you can show to people, in the language that `Accept-Language` asks for."
    ),
    "OperationMessage.field": "The field of the input that is wrong, such as `ownerEmail`; otherwise null.",
    "OperationMessage.code": (
        "The reason for programs, the same in every language; never null. More codes may be added: treat "
        f"one that you do not know as a refusal, and show its message.\n\n{codes_as_list()}"
    ),
    "OperationMessageKind": "The kind of a reason.",
    "OperationMessageKind.PERMISSION": "You are not signed in, or a right is missing.",
    "OperationMessageKind.VALIDATION": "A rule is broken, or a value is wrong.",
    "OperationMessageKind.INFO": "Not used.",
    "OperationMessageKind.WARNING": "Not used.",
    "OperationMessageKind.ERROR": "Not used.",
    # --- Values of enums
    "MembershipRole.OWNER": "Shares the plan: invites and detaches people, transfers or closes the plan.",
    "MembershipRole.MEMBER": "Joined the plan, and can leave it.",
    "InviteStatus.OPEN": "Can be accepted, and holds a seat.",
    "InviteStatus.USED": "Someone has a seat through it, and counts as a member.",
    "InviteStatus.EXPIRED": "Its time is over, it was revoked, or its user left the plan: it holds no seat.",
    "MailStatus.NONE": "No mail: the invite has no address, or the mail has not been tried yet.",
    "MailStatus.SENT": "The mail server accepted it.",
    "MailStatus.SKIPPED": "No mail: the address has had three invitations in 24 hours, over all plans.",
    "MailStatus.FAILED": "The mail server failed: pass the link on in another way, or reissue the invite.",
    "PlanEventKind.PLAN_CREATED": "`actor` created the plan for `subject`, its first owner.",
    "PlanEventKind.PLAN_CLOSED": "`actor` closed the plan.",
    "PlanEventKind.INVITE_CREATED": "`actor` created `invite`.",
    "PlanEventKind.INVITE_REISSUED": "`actor` gave `invite` a new link and expiry.",
    "PlanEventKind.INVITE_REVOKED": "`actor` revoked `invite` before it expired.",
    "PlanEventKind.INVITE_ACCEPTED": "`subject`, also the `actor`, joined with `invite`.",
    "PlanEventKind.MEMBER_DETACHED": "`actor` detached `subject`, who had joined with `invite`, if any.",
    "PlanEventKind.MEMBER_LEFT": "`subject`, also the `actor`, left; they had joined with `invite`, if any.",
    "PlanEventKind.OWNERSHIP_TRANSFERRED": "`actor` made `subject` the owner, and the former owner a member.",
}


def describe(schema: GraphQLSchema) -> None:
    """Put these descriptions into the schema.

    :raises LookupError: for a coordinate that the schema does not have.
    """
    for coordinate, description in DESCRIPTIONS.items():
        resolved = resolve_schema_coordinate(schema, coordinate)
        if resolved is None:
            raise LookupError(f"The schema has no {coordinate}.")
        *_, element, _kind = resolved
        element.description = description
