"""Mutation: what can be done, each with its input, what it answers, and the one call of the domain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Self, get_type_hints

import strawberry
import strawberry_django
from strawberry.extensions.field_extension import FieldExtension, SyncExtensionResolver
from strawberry.tools import create_type
from strawberry_django.fields.types import OperationInfo

from graphql_api.pages import pk_of
from graphql_api.refusals import codes_of
from graphql_api.types import FamilyPlan, FamilyPlanInvite, Info, Membership
from plans import services
from plans.reading import Reading


class EachMutation(FieldExtension):
    """Let a mutation start with a new reading, and note the code of a refusal for the count of operations.

    Its payload is resolved from the database as it is afterwards, not as an earlier mutation saw it.
    """

    def resolve(self, next_: SyncExtensionResolver, source: Any, info: Info, **kwargs: Any) -> Any:
        info.context.reading = Reading(info.context.user)
        answer = next_(source, info, **kwargs)
        if isinstance(answer, OperationInfo):
            info.context.refusal = answer.messages[0].code or ""
        return answer


def mutation(service: Callable[..., Any], does: str, *, repeated: str) -> Callable[[Callable[..., Any]], Any]:
    """Declare a mutation that answers its success, or as OperationInfo why the service refused."""

    def declare(resolver: Callable[..., Any]) -> Any:
        success = get_type_hints(resolver)["return"]
        answer = strawberry.union(
            f"{resolver.__name__.title().replace('_', '')}Payload",
            description=f"`{success.__name__}`, or `OperationInfo` when it was refused.",
        )
        codes = ", ".join(f"`{code}`" for code in codes_of(service))
        return strawberry_django.mutation(
            resolver,
            graphql_type=Annotated[success | OperationInfo, answer],
            description=f"{does}\n\n**Repeated:** {repeated}\n\n**Refused with:** {codes}.",
            extensions=[EachMutation()],
        )

    return declare


def input_of(description: str) -> Any:
    return strawberry.argument(name="input", description=description)


@strawberry.input(description="A plan to create.")
class CreatePlanInput:
    name: str = strawberry.field(
        description="1 to 80 characters on one line, with something to read in it and without a link."
    )
    owner_email: str | None = strawberry.field(
        default=None,
        description=(
            "An address that the future owner has verified, for staff who may create plans. Not given: "
            "oneself."
        ),
    )


@strawberry.type(description="The plan that was created.")
class CreatedPlan:
    plan: FamilyPlan = strawberry.field(description="The new plan, with its owner.")


@mutation(
    services.create_plan,
    (
        "Create a plan with its owner: one's own, where staff let everybody create one, or for "
        "staff who may create plans anybody's."
    ),
    repeated="safe. The second time is refused with `ALREADY_IN_PLAN`; `viewer` has the plan.",
)
def create_plan(info: Info, data: Annotated[CreatePlanInput, input_of("The plan to create.")]) -> CreatedPlan:
    plan = services.create_plan(actor=info.context.user, name=data.name, owner_email=data.owner_email)
    return CreatedPlan(plan=FamilyPlan(row=plan, reading=info.context.reading))


@strawberry.input(description="An invite to create.")
class CreateInviteInput:
    plan_id: strawberry.ID = strawberry.field(description="The node id of the plan.")
    email: str | None = strawberry.field(
        default=None,
        description=(
            "The only address that may accept; the link is mailed to it. Not given: whoever has the link "
            "may, and nothing is mailed. An empty text is refused."
        ),
    )


@strawberry.type(description="An invite with its token, which is answered this once.")
class CreatedInvite:
    invite: FamilyPlanInvite = strawberry.field(description="The invite, open.")
    token: str = strawberry.field(
        description="What `acceptInvite` takes: 43 characters. A secret, and never answered again."
    )
    url: str = strawberry.field(
        description="The link to hand out, with the token in it: a page to accept on."
    )

    @classmethod
    def of(cls, issued: services.IssuedInvite, reading: Reading) -> Self:
        invite = FamilyPlanInvite(row=issued.invite, reading=reading)
        return cls(invite=invite, token=issued.token, url=issued.url)


@mutation(
    services.create_invite,
    (
        "Hold a seat, and get the link to hand out for it. For the plan's owner, and staff who "
        "may act for others. Zammad is asked for the token, which may take some seconds."
    ),
    repeated=(
        "not safe. Each call holds a seat of its own and counts to the plan's invites of 24 "
        "hours; with an address, the second is refused with `ALREADY_INVITED`. After a lost "
        "answer find the invite in the plan's `invites`, and reissue or revoke it."
    ),
)
def create_invite(
    info: Info, data: Annotated[CreateInviteInput, input_of("The invite to create.")]
) -> CreatedInvite:
    issued = services.create_invite(
        actor=info.context.user, plan_id=pk_of(data.plan_id, "FamilyPlan"), email=data.email
    )
    return CreatedInvite.of(issued, info.context.reading)


@strawberry.input(description="An invite to accept.")
class AcceptInviteInput:
    token: str = strawberry.field(description="The token from the invite's link, 43 characters.")


@strawberry.type(description="The seat that was taken.")
class AcceptedInvite:
    membership: Membership = strawberry.field(description="One's seat.")
    plan: FamilyPlan = strawberry.field(description="The plan that one has joined.")
    redirect_url: str = strawberry.field(
        description="The page that staff chose for people who have joined: send the person there."
    )


@mutation(
    services.accept_invite,
    "Take the seat of an invite. For whoever is signed in and holds the token.",
    repeated="safe. As long as the person has the seat, they get the same answer again.",
)
def accept_invite(
    info: Info, data: Annotated[AcceptInviteInput, input_of("The invite to accept.")]
) -> AcceptedInvite:
    accepted = services.accept_invite(actor=info.context.user, token=data.token)
    return AcceptedInvite(
        membership=Membership(row=accepted.membership, reading=info.context.reading),
        plan=FamilyPlan(row=accepted.plan, reading=info.context.reading),
        redirect_url=services.public_url(accepted.page),
    )


@strawberry.input(description="An invite to reissue.")
class ReissueInviteInput:
    invite_id: strawberry.ID = strawberry.field(description="The node id of the invite.")


@mutation(
    services.reissue_invite,
    (
        "Give an unused invite, open or expired, a fresh token, link and expiry; the old link is "
        "dead. It is mailed again if it has an address. For the plan's owner, and staff who may "
        "act for others. Zammad is asked for the token, which may take some seconds."
    ),
    repeated=(
        "not safe. Each call ends the link of the one before, mails again, and counts to the "
        "plan's invites of 24 hours; it holds no further seat. After a lost answer repeat it, and "
        "hand out only the last link."
    ),
)
def reissue_invite(
    info: Info, data: Annotated[ReissueInviteInput, input_of("The invite to reissue.")]
) -> CreatedInvite:
    issued = services.reissue_invite(
        actor=info.context.user, invite_id=pk_of(data.invite_id, "FamilyPlanInvite")
    )
    return CreatedInvite.of(issued, info.context.reading)


@strawberry.input(description="An invite to revoke.")
class RevokeInviteInput:
    invite_id: strawberry.ID = strawberry.field(description="The node id of the invite.")


@strawberry.type(description="The invite that was revoked.")
class RevokedInvite:
    invite: FamilyPlanInvite = strawberry.field(description="The invite, expired.")


@mutation(
    services.revoke_invite,
    (
        "Expire an open invite now; one that has expired stays as it is. For the plan's owner, "
        "and staff who may act for others."
    ),
    repeated="safe. It succeeds again.",
)
def revoke_invite(
    info: Info, data: Annotated[RevokeInviteInput, input_of("The invite to revoke.")]
) -> RevokedInvite:
    invite = services.revoke_invite(
        actor=info.context.user, invite_id=pk_of(data.invite_id, "FamilyPlanInvite")
    )
    return RevokedInvite(invite=FamilyPlanInvite(row=invite, reading=info.context.reading))


@strawberry.input(description="A member to detach.")
class DetachMemberInput:
    membership_id: strawberry.ID = strawberry.field(description="The node id of the membership.")


@strawberry.type(
    description="What a detachment leaves. Both are null for a member who left: the plan is no longer theirs."
)
class DetachedMember:
    plan: FamilyPlan | None = strawberry.field(description="The plan, with a seat more to give.")
    invite: FamilyPlanInvite | None = strawberry.field(
        description="The invite the member came by, unused again and expired; null if they came without."
    )


@mutation(
    services.detach_member,
    (
        "End a membership: the owner, or staff who may act for others, anybody's but the owner's; "
        "a member their own. The invite they came by is unused again, and expired."
    ),
    repeated="safe. The second time is refused with `MEMBERSHIP_NOT_FOUND`.",
)
def detach_member(
    info: Info, data: Annotated[DetachMemberInput, input_of("The member to detach.")]
) -> DetachedMember:
    detachment = services.detach_member(
        actor=info.context.user, membership_id=pk_of(data.membership_id, "Membership")
    )
    return DetachedMember(
        plan=FamilyPlan.of(detachment.plan, info.context.reading),
        invite=FamilyPlanInvite.of(detachment.invite, info.context.reading),
    )


@strawberry.input(description="A member to make the owner.")
class TransferOwnershipInput:
    membership_id: strawberry.ID = strawberry.field(description="The node id of the membership.")


@strawberry.type(description="The plan with its new owner.")
class TransferredOwnership:
    plan: FamilyPlan = strawberry.field(description="The plan, as who asked sees it now.")


@mutation(
    services.transfer_ownership,
    (
        "Make a member the owner of their plan, and the owner a member. For the plan's owner, and "
        "staff who may act for others."
    ),
    repeated=(
        "safe. Who was the owner is refused with `PERMISSION_DENIED`; for staff it succeeds again "
        "and changes nothing."
    ),
)
def transfer_ownership(
    info: Info, data: Annotated[TransferOwnershipInput, input_of("The member to make the owner.")]
) -> TransferredOwnership:
    plan = services.transfer_ownership(
        actor=info.context.user, membership_id=pk_of(data.membership_id, "Membership")
    )
    return TransferredOwnership(plan=FamilyPlan(row=plan, reading=info.context.reading))


@strawberry.input(description="A plan to close.")
class ClosePlanInput:
    plan_id: strawberry.ID = strawberry.field(description="The node id of the plan.")


@strawberry.type(description="The plan that was closed.")
class ClosedPlan:
    plan: FamilyPlan = strawberry.field(description="The plan, closed and without anybody in it.")


@mutation(
    services.close_plan,
    (
        "End a plan that has no members but its owner, who is in no plan afterwards; open invites "
        "expire. It cannot be opened again. For the plan's owner, and staff who may act for "
        "others."
    ),
    repeated="safe. The second time is refused with `PLAN_NOT_FOUND`, or for staff with `PLAN_CLOSED`.",
)
def close_plan(info: Info, data: Annotated[ClosePlanInput, input_of("The plan to close.")]) -> ClosedPlan:
    plan = services.close_plan(actor=info.context.user, plan_id=pk_of(data.plan_id, "FamilyPlan"))
    return ClosedPlan(plan=FamilyPlan(row=plan, reading=info.context.reading))


Mutation = create_type(
    "Mutation",
    [
        create_plan,
        create_invite,
        accept_invite,
        reissue_invite,
        revoke_invite,
        detach_member,
        transfer_ownership,
        close_plan,
    ],
    description=(
        "What can be done. A refusal is answered as `OperationInfo`, with a stable code; it changes nothing. "
        "Several in one operation are done one after the other, each for itself: one that is refused undoes "
        "no other."
    ),
)
