"""The fields of Mutation: each with its payload, its input as arguments, and one call of the domain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Self, get_type_hints

import strawberry
import strawberry_django
from strawberry.extensions.field_extension import FieldExtension, SyncExtensionResolver
from strawberry.field_extensions import InputMutationExtension
from strawberry.tools import create_type
from strawberry.types.field import StrawberryField
from strawberry_django.fields.types import OperationInfo

from graphql_api.pages import pk_of
from graphql_api.refusals import codes_of
from graphql_api.types import (
    FamilyPlan,
    FamilyPlanInvite,
    Info,
    InviteID,
    Membership,
    MembershipID,
    PlanID,
    Token,
)
from plans import services
from plans.reading import Reading


class EachMutation(FieldExtension):
    """Start a mutation with a new reading, so that its payload shows the database as it is afterwards.

    It also notes the code of a refusal, for metrics.
    """

    def resolve(self, next_: SyncExtensionResolver, source: Any, info: Info, **kwargs: Any) -> Any:
        info.context.reading = Reading(info.context.user)
        result = next_(source, info, **kwargs)
        if isinstance(result, OperationInfo):
            info.context.refusal = result.messages[0].code or ""
        return result


def mutation(
    service: Callable[..., object], does: str, *, repeated: str
) -> Callable[[Callable[..., object]], StrawberryField]:
    """Declare a mutation that returns its payload, or as OperationInfo why the service refused.

    The resolver's arguments become the fields of the input.
    """

    def declare(resolver: Callable[..., object]) -> StrawberryField:
        success = get_type_hints(resolver)["return"]
        payload = strawberry.union(
            f"{resolver.__name__.title().replace('_', '')}Payload",
            description=f"`{success.__name__}`, or `OperationInfo` if the mutation was refused.",
        )
        codes = ", ".join(f"`{code}`" for code in codes_of(service))
        return strawberry_django.mutation(
            resolver,
            graphql_type=Annotated[success | OperationInfo, payload],
            description=f"{does}\n\n**Repeated:** {repeated}\n\n**Refused with:** {codes}.",
            extensions=[InputMutationExtension(), EachMutation()],
        )

    return declare


@strawberry.type(description="The plan that was created.")
class CreatedPlan:
    plan: FamilyPlan = strawberry.field(description="The new plan, with its owner.")


@mutation(
    services.create_plan,
    (
        "Create a plan with its owner: you, if staff let everyone create plans, or anyone if you are staff "
        "who may create plans."
    ),
    repeated="safe. A second call is refused with `ALREADY_IN_PLAN`; `viewer` has the plan.",
)
def create_plan(
    info: Info,
    name: Annotated[
        str,
        strawberry.argument(
            description="1 to 80 characters on one line, with something readable in them and no link."
        ),
    ],
    owner_email: Annotated[
        str | None,
        strawberry.argument(
            description=(
                "An address that the future owner has verified, if you are staff who may create plans. You "
                "are the owner if omitted."
            )
        ),
    ] = None,
) -> CreatedPlan:
    plan = services.create_plan(actor=info.context.user, name=name, owner_email=owner_email)
    return CreatedPlan(plan=FamilyPlan(row=plan, reading=info.context.reading))


@strawberry.type(description="An invite with its token, which is returned only this once.")
class CreatedInvite:
    invite: FamilyPlanInvite = strawberry.field(description="The open invite.")
    token: str = strawberry.field(
        description="The argument of `acceptInvite`: 43 characters. It is secret, and never returned again."
    )
    url: str = strawberry.field(
        description="The link to pass on: a page where the invite can be accepted. It contains the token."
    )

    @classmethod
    def of(cls, issued: services.IssuedInvite, reading: Reading) -> Self:
        invite = FamilyPlanInvite(row=issued.invite, reading=reading)
        return cls(invite=invite, token=issued.token, url=issued.url)


@mutation(
    services.create_invite,
    (
        "Hold a seat, and return the link to pass on. For the plan's owner, and staff who may act for "
        "others. The token comes from Zammad, which may take some seconds."
    ),
    repeated=(
        "not safe. Each call holds another seat and counts towards the plan's invites in 24 hours; with an "
        "address, the second is refused with `ALREADY_INVITED`. If you lost the response, find the invite in "
        "the plan's `invites`, and reissue or revoke it."
    ),
)
def create_invite(
    info: Info,
    plan_id: PlanID,
    email: Annotated[
        str | None,
        strawberry.argument(
            description=(
                "The only address that can accept; the link is mailed to it. If omitted, anyone with the "
                "link can accept, and nothing is mailed. An empty string is refused."
            )
        ),
    ] = None,
) -> CreatedInvite:
    issued = services.create_invite(
        actor=info.context.user, plan_id=pk_of(plan_id, "FamilyPlan"), email=email
    )
    return CreatedInvite.of(issued, info.context.reading)


@strawberry.type(description="The seat that you took.")
class AcceptedInvite:
    membership: Membership = strawberry.field(description="Your seat.")
    plan: FamilyPlan = strawberry.field(description="The plan that you joined.")
    redirect_url: str = strawberry.field(
        description="The page that staff chose for people who have joined: send the person there."
    )


@mutation(
    services.accept_invite,
    "Take the seat of an invite. You must be signed in and have the token.",
    repeated="safe. You get the same result for as long as you have the seat.",
)
def accept_invite(info: Info, token: Token) -> AcceptedInvite:
    accepted = services.accept_invite(actor=info.context.user, token=token)
    return AcceptedInvite(
        membership=Membership(row=accepted.membership, reading=info.context.reading),
        plan=FamilyPlan(row=accepted.plan, reading=info.context.reading),
        redirect_url=services.public_url(accepted.page),
    )


@mutation(
    services.reissue_invite,
    (
        "Give an unused invite, open or expired, a new token, link and expiry; the old link stops working. "
        "The link is mailed again if the invite has an address. For the plan's owner, and staff who may act "
        "for others. The token comes from Zammad, which may take some seconds."
    ),
    repeated=(
        "not safe. Each call ends the previous link, mails again, and counts towards the plan's invites in "
        "24 hours; it holds no further seat. If you lost the response, repeat the call and pass on only the "
        "last link."
    ),
)
def reissue_invite(info: Info, invite_id: InviteID) -> CreatedInvite:
    issued = services.reissue_invite(actor=info.context.user, invite_id=pk_of(invite_id, "FamilyPlanInvite"))
    return CreatedInvite.of(issued, info.context.reading)


@strawberry.type(description="The invite that was revoked.")
class RevokedInvite:
    invite: FamilyPlanInvite = strawberry.field(description="The expired invite.")


@mutation(
    services.revoke_invite,
    (
        "Expire an open invite now; an expired one stays as it is. For the plan's owner, and staff who may "
        "act for others."
    ),
    repeated="safe. It succeeds again.",
)
def revoke_invite(info: Info, invite_id: InviteID) -> RevokedInvite:
    invite = services.revoke_invite(actor=info.context.user, invite_id=pk_of(invite_id, "FamilyPlanInvite"))
    return RevokedInvite(invite=FamilyPlanInvite(row=invite, reading=info.context.reading))


@strawberry.type(
    description="The result of a detachment. Both fields are null if you left: the plan is no longer yours."
)
class DetachedMember:
    plan: FamilyPlan | None = strawberry.field(description="The plan, with one more free seat.")
    invite: FamilyPlanInvite | None = strawberry.field(
        description="The invite that the member joined with, unused again and expired; null if there is none."
    )


@mutation(
    services.detach_member,
    (
        "End a membership: your own, unless you are the owner, or that of any member but the owner if you "
        "are the owner or staff who may act for others. The invite that the member joined with becomes "
        "unused again, and expires."
    ),
    repeated="safe. A second call is refused with `MEMBERSHIP_NOT_FOUND`.",
)
def detach_member(info: Info, membership_id: MembershipID) -> DetachedMember:
    detachment = services.detach_member(
        actor=info.context.user, membership_id=pk_of(membership_id, "Membership")
    )
    return DetachedMember(
        plan=FamilyPlan.of(detachment.plan, info.context.reading),
        invite=FamilyPlanInvite.of(detachment.invite, info.context.reading),
    )


@strawberry.type(description="The plan with its new owner.")
class TransferredOwnership:
    plan: FamilyPlan = strawberry.field(description="The plan, as you see it after the transfer.")


@mutation(
    services.transfer_ownership,
    (
        "Make a member the owner of their plan; the current owner becomes a member. For the plan's owner, "
        "and staff who may act for others."
    ),
    repeated=(
        "safe. A former owner is refused with `PERMISSION_DENIED`; for staff it succeeds again and changes "
        "nothing."
    ),
)
def transfer_ownership(info: Info, membership_id: MembershipID) -> TransferredOwnership:
    plan = services.transfer_ownership(
        actor=info.context.user, membership_id=pk_of(membership_id, "Membership")
    )
    return TransferredOwnership(plan=FamilyPlan(row=plan, reading=info.context.reading))


@strawberry.type(description="The plan that was closed.")
class ClosedPlan:
    plan: FamilyPlan = strawberry.field(description="The closed plan, with nobody in it.")


@mutation(
    services.close_plan,
    (
        "Close a plan that has no members but its owner, who is then in no plan; open invites expire. It "
        "cannot be reopened. For the plan's owner, and staff who may act for others."
    ),
    repeated="safe. A second call is refused with `PLAN_NOT_FOUND`, or for staff with `PLAN_CLOSED`.",
)
def close_plan(info: Info, plan_id: PlanID) -> ClosedPlan:
    plan = services.close_plan(actor=info.context.user, plan_id=pk_of(plan_id, "FamilyPlan"))
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
        "Everything you can do. A refusal is returned as `OperationInfo` with a stable code, and changes "
        "nothing. Several mutations in one operation run one after another, each on its own: if one is "
        "refused, the others keep their effects."
    ),
)
