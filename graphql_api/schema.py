"""The schema: every query and mutation, one domain call each, and how errors are told."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Self

import strawberry
import strawberry_django
from django.conf import settings
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import QuerySet
from graphql import (
    FieldNode,
    GraphQLError,
    NoSchemaIntrospectionCustomRule,
    OperationDefinitionNode,
    ValidationRule,
    get_operation_ast,
)
from prometheus_client import Counter
from strawberry.extensions import (
    SchemaExtension,
)
from strawberry.extensions.field_extension import FieldExtension, SyncExtensionResolver
from strawberry.relay.utils import from_base64
from strawberry.types import ExecutionContext, ExecutionResult
from strawberry_django.fields.types import OperationInfo
from structlog.contextvars import get_contextvars

from graphql_api.descriptions import describe
from graphql_api.limits import Limits
from graphql_api.pages import After, Connection, First, Page, pk_of
from graphql_api.refusals import codes_of
from graphql_api.types import (
    Context,
    FamilyPlan,
    FamilyPlanInvite,
    Info,
    InvitePreview,
    Membership,
    Node,
    PlanEvent,
    User,
    Viewer,
)
from plans import models, rules, services

logger = logging.getLogger(__name__)

OPERATIONS = Counter(
    "family_plans_graphql_operations",
    "GraphQL operations by the field of Query or Mutation that they ask for, and how they ended.",
    ["operation", "outcome"],
)


@strawberry.input(description="Which plans to list.")
class PlanFilters:
    name: str | None = strawberry.field(
        default=None, description="Only plans whose name contains this, in upper or lower case."
    )
    owner_email: str | None = strawberry.field(
        default=None,
        description=(
            "Only plans whose owner has verified this address. A plan of others is found only by staff who "
            "may read every plan."
        ),
    )


def find_node(type_name: str, key: int, context: Context) -> Node | None:
    """Find a row by its key, among those of its type that the viewer may look up."""
    viewer = context.viewer
    kind: type[Node]
    rows: QuerySet[Any]
    match type_name:
        case "FamilyPlan":
            return FamilyPlan.of(context.access.plan(key), context)
        case "Membership":
            kind = Membership
            rows = models.Membership.objects.visible_to(viewer).select_related("user__zammad_user")
        case "FamilyPlanInvite":
            kind = FamilyPlanInvite
            rows = models.FamilyPlanInvite.objects.visible_to(viewer)
        case "PlanEvent":
            kind = PlanEvent
            rows = models.PlanEvent.objects.visible_to(viewer).select_related("invite")
        case "User":
            kind, rows = User, context.access.people()
        case _:
            return None
    row = rows.filter(pk=key).first()
    context.people.note(row)
    return kind.of(row, context)


@strawberry.type(
    description=(
        "What can be asked. What one may not see is null or left out, never an error: one sees the plan one "
        "is in, staff who may read every plan see all. Nothing here changes anything."
    )
)
class Query:
    @strawberry.field(description="The person who asks, with their plan; null when signed out.")
    def viewer(self, info: Info) -> Viewer | None:
        person = info.context.viewer
        return Viewer(person=person, context=info.context) if person.is_authenticated else None

    @strawberry.field(description="A plan; null unless one is in it, or staff who may read every plan.")
    def plan(
        self,
        info: Info,
        id: Annotated[strawberry.ID, strawberry.argument(description="The node id of the plan.")],  # noqa: A002
    ) -> FamilyPlan | None:
        return FamilyPlan.of(info.context.access.plan(pk_of(id, "FamilyPlan")), info.context)

    @strawberry.field(
        description=(
            "The plans one may see, oldest first: the one that one is in, or all of them for staff who may "
            "read every plan. Empty when signed out."
        )
    )
    def plans(
        self,
        info: Info,
        first: First = None,
        after: After = None,
        last: Annotated[
            int | None,
            strawberry.argument(
                description="At most this many, from the end: 0 to 100. Not together with `first`."
            ),
        ] = None,
        before: Annotated[
            str | None, strawberry.argument(description="Only what precedes this cursor of the same list.")
        ] = None,
        filters: Annotated[
            PlanFilters | None,
            strawberry.argument(description="Which of them to list; all that one may see if not given."),
        ] = None,
    ) -> Connection[FamilyPlan]:
        page = Page(first=first, after=after, last=last, before=before)
        chosen = filters or PlanFilters()
        plans = info.context.access.plans(name=chosen.name or "", owner_email=chosen.owner_email or "")
        rows = list(page.slice_of(plans))
        info.context.read_together(rows)
        return page.connection_of(rows, lambda row: FamilyPlan(row=row, context=info.context))

    @strawberry.field(
        description=(
            "What an invite leads to, for whoever holds its token: to be shown before `acceptInvite`. Null "
            "when signed out, and when the token is unknown or was replaced."
        ),
        graphql_type=InvitePreview | None,
    )
    def invite(
        self,
        info: Info,
        token: Annotated[
            str, strawberry.argument(description="The token from the invite's link, 43 characters.")
        ],
    ) -> Any:
        try:
            return services.preview_invite(actor=info.context.viewer, token=token)
        except (rules.NotAuthenticated, rules.InviteNotFound):
            return None

    @strawberry.field(
        description=(
            "The plan of whoever is associated with a user of Zammad. For staff who may read every plan and "
            "see Zammad's data; null for everybody else, and when there is none."
        )
    )
    def plan_by_zammad_user(
        self,
        info: Info,
        zammad_user_id: Annotated[
            int,
            strawberry.argument(
                description="The user's id in Zammad, as in the address of their page there."
            ),
        ],
    ) -> FamilyPlan | None:
        if not info.context.access.reads_zammad:
            return None
        plan = models.FamilyPlan.objects.of_zammad_user(zammad_user_id).first()
        return FamilyPlan.of(plan, info.context)

    @strawberry.field(description="Whatever has this node id, if one may see it; else null.")
    def node(
        self,
        info: Info,
        id: Annotated[strawberry.ID, strawberry.argument(description="Any node id.")],  # noqa: A002
    ) -> Node | None:
        try:
            type_name, _ = from_base64(id)
        except ValueError:
            return None
        return find_node(type_name, pk_of(id, type_name), info.context)


# --- Mutations -------------------------------------------------------------------------


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


@strawberry.input(description="An invite to accept.")
class AcceptInviteInput:
    token: str = strawberry.field(description="The token from the invite's link, 43 characters.")


@strawberry.input(description="An invite to reissue.")
class ReissueInviteInput:
    invite_id: strawberry.ID = strawberry.field(description="The node id of the invite.")


@strawberry.input(description="An invite to revoke.")
class RevokeInviteInput:
    invite_id: strawberry.ID = strawberry.field(description="The node id of the invite.")


@strawberry.input(description="A member to detach.")
class DetachMemberInput:
    membership_id: strawberry.ID = strawberry.field(description="The node id of the membership.")


@strawberry.input(description="A member to make the owner.")
class TransferOwnershipInput:
    membership_id: strawberry.ID = strawberry.field(description="The node id of the membership.")


@strawberry.input(description="A plan to close.")
class ClosePlanInput:
    plan_id: strawberry.ID = strawberry.field(description="The node id of the plan.")


@strawberry.type(description="The plan that was created.")
class CreatedPlan:
    plan: FamilyPlan = strawberry.field(description="The new plan, with its owner.")


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
    def of(cls, issued: services.IssuedInvite, context: Context) -> Self:
        invite = FamilyPlanInvite(row=issued.invite, context=context)
        return cls(invite=invite, token=issued.token, url=issued.url)


@strawberry.type(description="The seat that was taken.")
class AcceptedInvite:
    membership: Membership = strawberry.field(description="One's seat.")
    plan: FamilyPlan = strawberry.field(description="The plan that one has joined.")
    redirect_url: str = strawberry.field(
        description="The page that staff chose for people who have joined: send the person there."
    )


@strawberry.type(description="The invite that was revoked.")
class RevokedInvite:
    invite: FamilyPlanInvite = strawberry.field(description="The invite, expired.")


@strawberry.type(
    description="What a detachment leaves. Both are null for a member who left: the plan is no longer theirs."
)
class DetachedMember:
    plan: FamilyPlan | None = strawberry.field(description="The plan, with a seat more to give.")
    invite: FamilyPlanInvite | None = strawberry.field(
        description="The invite the member came by, unused again and expired; null if they came without."
    )


@strawberry.type(description="The plan with its new owner.")
class TransferredOwnership:
    plan: FamilyPlan = strawberry.field(description="The plan, as who asked sees it now.")


@strawberry.type(description="The plan that was closed.")
class ClosedPlan:
    plan: FamilyPlan = strawberry.field(description="The plan, closed and without anybody in it.")


class ForgetWhatWas(FieldExtension):
    """Resolve a payload by what holds after its mutation, not by what an earlier one saw."""

    def resolve(self, next_: SyncExtensionResolver, source: Any, info: Info, **kwargs: Any) -> Any:
        answer = next_(source, info, **kwargs)
        info.context.forget()
        return answer


class NoteRefusal(FieldExtension):
    """Note for the count of operations with which code a mutation was refused."""

    def resolve(self, next_: SyncExtensionResolver, source: Any, info: Info, **kwargs: Any) -> Any:
        answer = next_(source, info, **kwargs)
        if isinstance(answer, OperationInfo):
            info.context.refusal = answer.messages[0].code or ""
        return answer


def mutation(name: str, success: type, service: Callable[..., Any], does: str, *, repeated: str) -> Any:
    """Declare a mutation that answers its success, or as OperationInfo why the service refused."""
    answer = strawberry.union(
        f"{name}Payload", description=f"`{success.__name__}`, or `OperationInfo` when it was refused."
    )
    codes = ", ".join(f"`{code}`" for code in codes_of(service))
    return strawberry_django.mutation(
        graphql_type=Annotated[success | OperationInfo, answer],
        description=f"{does}\n\n**Repeated:** {repeated}\n\n**Refused with:** {codes}.",
        extensions=[ForgetWhatWas(), NoteRefusal()],
    )


def input_of(description: str) -> Any:
    return strawberry.argument(name="input", description=description)


@strawberry.type(
    description=(
        "What can be done. A refusal is answered as `OperationInfo`, with a stable code; it changes nothing. "
        "Several in one operation are done one after the other, each for itself: one that is refused undoes "
        "no other."
    )
)
class Mutation:
    @mutation(
        "CreatePlan",
        CreatedPlan,
        services.create_plan,
        (
            "Create a plan with its owner: one's own, where staff let everybody create one, or for "
            "staff who may create plans anybody's."
        ),
        repeated="safe. The second time is refused with `ALREADY_IN_PLAN`; `viewer` has the plan.",
    )
    def create_plan(
        self, info: Info, data: Annotated[CreatePlanInput, input_of("The plan to create.")]
    ) -> Any:
        plan = services.create_plan(actor=info.context.viewer, name=data.name, owner_email=data.owner_email)
        return CreatedPlan(plan=FamilyPlan(row=plan, context=info.context))

    @mutation(
        "CreateInvite",
        CreatedInvite,
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
        self, info: Info, data: Annotated[CreateInviteInput, input_of("The invite to create.")]
    ) -> Any:
        issued = services.create_invite(
            actor=info.context.viewer, plan_id=pk_of(data.plan_id, "FamilyPlan"), email=data.email
        )
        return CreatedInvite.of(issued, info.context)

    @mutation(
        "AcceptInvite",
        AcceptedInvite,
        services.accept_invite,
        "Take the seat of an invite. For whoever is signed in and holds the token.",
        repeated="safe. As long as the person has the seat, they get the same answer again.",
    )
    def accept_invite(
        self, info: Info, data: Annotated[AcceptInviteInput, input_of("The invite to accept.")]
    ) -> Any:
        accepted = services.accept_invite(actor=info.context.viewer, token=data.token)
        return AcceptedInvite(
            membership=Membership(row=accepted.membership, context=info.context),
            plan=FamilyPlan(row=accepted.membership.family_plan, context=info.context),
            redirect_url=services.public_url(accepted.page),
        )

    @mutation(
        "ReissueInvite",
        CreatedInvite,
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
        self, info: Info, data: Annotated[ReissueInviteInput, input_of("The invite to reissue.")]
    ) -> Any:
        issued = services.reissue_invite(
            actor=info.context.viewer, invite_id=pk_of(data.invite_id, "FamilyPlanInvite")
        )
        return CreatedInvite.of(issued, info.context)

    @mutation(
        "RevokeInvite",
        RevokedInvite,
        services.revoke_invite,
        (
            "Expire an open invite now; one that has expired stays as it is. For the plan's owner, "
            "and staff who may act for others."
        ),
        repeated="safe. It succeeds again.",
    )
    def revoke_invite(
        self, info: Info, data: Annotated[RevokeInviteInput, input_of("The invite to revoke.")]
    ) -> Any:
        invite = services.revoke_invite(
            actor=info.context.viewer, invite_id=pk_of(data.invite_id, "FamilyPlanInvite")
        )
        return RevokedInvite(invite=FamilyPlanInvite(row=invite, context=info.context))

    @mutation(
        "DetachMember",
        DetachedMember,
        services.detach_member,
        (
            "End a membership: the owner, or staff who may act for others, anybody's but the owner's; "
            "a member their own. The invite they came by is unused again, and expired."
        ),
        repeated="safe. The second time is refused with `MEMBERSHIP_NOT_FOUND`.",
    )
    def detach_member(
        self, info: Info, data: Annotated[DetachMemberInput, input_of("The member to detach.")]
    ) -> Any:
        detachment = services.detach_member(
            actor=info.context.viewer, membership_id=pk_of(data.membership_id, "Membership")
        )
        return DetachedMember(
            plan=FamilyPlan.of(detachment.plan, info.context),
            invite=FamilyPlanInvite.of(detachment.invite, info.context),
        )

    @mutation(
        "TransferOwnership",
        TransferredOwnership,
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
        self, info: Info, data: Annotated[TransferOwnershipInput, input_of("The member to make the owner.")]
    ) -> Any:
        plan = services.transfer_ownership(
            actor=info.context.viewer, membership_id=pk_of(data.membership_id, "Membership")
        )
        return TransferredOwnership(plan=FamilyPlan(row=plan, context=info.context))

    @mutation(
        "ClosePlan",
        ClosedPlan,
        services.close_plan,
        (
            "End a plan that has no members but its owner, who is in no plan afterwards; open invites "
            "expire. It cannot be opened again. For the plan's owner, and staff who may act for "
            "others."
        ),
        repeated="safe. The second time is refused with `PLAN_NOT_FOUND`, or for staff with `PLAN_CLOSED`.",
    )
    def close_plan(self, info: Info, data: Annotated[ClosePlanInput, input_of("The plan to close.")]) -> Any:
        plan = services.close_plan(actor=info.context.viewer, plan_id=pk_of(data.plan_id, "FamilyPlan"))
        return ClosedPlan(plan=FamilyPlan(row=plan, context=info.context))


# --- Rules and errors -----------------------------------------------------------------


class OneOperation(ValidationRule):
    """Refuse a document that leaves open which of its operations is meant."""

    count = 0

    def enter_operation_definition(self, node: OperationDefinitionNode, *_: object) -> None:
        self.count += 1
        if self.count == 2:
            self.report_error(GraphQLError("Name the operation to run: there are several.", [node]))


class NameOneOfSeveral(SchemaExtension):
    """Hold what GraphQL demands: Strawberry would run the first operation of several."""

    def on_operation(self) -> Iterator[None]:
        if self.execution_context._provided_operation_name is None:
            self.execution_context.validation_rules += (OneOperation,)
        yield


def may_explore(viewer: models.Viewer) -> bool:
    """Tell whether the viewer gets GraphiQL and introspection."""
    return settings.DEBUG or (viewer.is_active and viewer.is_staff)


class IntrospectionForStaff(SchemaExtension):
    """Let those introspect who may open GraphiQL. The rule is part of the cache's key."""

    def on_operation(self) -> Iterator[None]:
        if not may_explore(self.execution_context.context.viewer):
            self.execution_context.validation_rules += (NoSchemaIntrospectionCustomRule,)
        yield


class NameOperation(SchemaExtension):
    """Name what is executed by a word of the schema: what clients call it is without end."""

    def on_execute(self) -> Iterator[None]:
        document = self.execution_context.graphql_document
        operation = get_operation_ast(document, self.execution_context.operation_name) if document else None
        match operation.selection_set.selections if operation else ():
            case [FieldNode(name=name)]:
                self.execution_context.context.operation = name.value
            case _:
                self.execution_context.context.operation = "several"
        yield


def is_unexpected(error: GraphQLError) -> bool:
    """Tell a bug or a failing database from a mistake of the client's."""
    return error.original_error is not None and not isinstance(
        error.original_error, (GraphQLError, ValidationError, PermissionDenied)
    )


def current_request_id() -> str:
    """Return the id under which the log knows the request."""
    return str(get_contextvars().get("request_id", ""))


class Schema(strawberry.Schema):
    def execute_sync(self, *args: Any, **asked: Any) -> ExecutionResult:
        """Execute, and count the operation once: OK, the code of its refusal, INVALID, or INTERNAL_ERROR."""
        context: Context = asked["context_value"]
        operation, outcome = "none", "INVALID"
        try:
            result = super().execute_sync(*args, **asked)
            operation, outcome = context.operation, context.refusal or "OK"
            # Without a path, an error is about the document or its variables.
            if any(error.path is None for error in result.errors or ()):
                operation, outcome = "none", "INVALID"
            if any(is_unexpected(error) for error in result.errors or ()):
                outcome = "INTERNAL_ERROR"
            return result
        finally:
            OPERATIONS.labels(operation, outcome).inc()

    def process_errors(
        self, errors: list[GraphQLError], execution_context: ExecutionContext | None = None
    ) -> None:
        """Answer what was not anticipated with a request id only; the log has the rest under it.

        Clients' mistakes are no news, and teach a stranger no names of the schema. Every error
        passes here, also one that stops an operation before MaskErrors would see it.
        """
        for error in errors:
            if is_unexpected(error):
                request_id = current_request_id()
                logger.error("GraphQL request %s failed", request_id, exc_info=error.original_error)
                error.message = "Unexpected error."
                error.extensions = {"code": "INTERNAL_ERROR", "requestId": request_id}
            elif not settings.DEBUG:
                error.message = error.message.partition(" Did you mean")[0]


schema = Schema(
    query=Query,
    mutation=Mutation,
    types=[FamilyPlan, FamilyPlanInvite, Membership, PlanEvent, User],
    extensions=[
        NameOperation,
        IntrospectionForStaff,
        NameOneOfSeveral,
        Limits,
    ],
)
describe(schema._schema)
