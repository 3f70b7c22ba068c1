"""Query: what can be asked."""

from __future__ import annotations

from typing import Annotated, Any

import strawberry
from django.db.models import QuerySet
from strawberry.relay.utils import from_base64

from graphql_api.pages import After, Connection, First, Page, pk_of
from graphql_api.types import (
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
from plans.reading import Reading


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


def find_node(type_name: str, key: int, reading: Reading) -> Node | None:
    """Find a row by its key, among those of its type that the viewer may look up."""
    viewer = reading.viewer
    kind: type[Node]
    rows: QuerySet[Any]
    match type_name:
        case "FamilyPlan":
            return FamilyPlan.of(viewer.plan(key), reading)
        case "User":
            person = reading.person(key)
            return User.of(person if person and viewer.sees_person(person) else None, reading)
        case "Membership":
            kind, rows = Membership, viewer.memberships().select_related("user__zammad_user")
        case "FamilyPlanInvite":
            kind, rows = FamilyPlanInvite, viewer.invites()
        case "PlanEvent":
            kind, rows = PlanEvent, viewer.events().select_related("invite")
        case _:
            return None
    row = rows.filter(pk=key).first()
    reading.note(row)
    return kind.of(row, reading)


@strawberry.type(
    description=(
        "What can be asked. What one may not see is null or left out, never an error: one sees the plan one "
        "is in, staff who may read every plan see all. Nothing here changes anything."
    )
)
class Query:
    @strawberry.field(description="The person who asks, with their plan; null when signed out.")
    def viewer(self, info: Info) -> Viewer | None:
        return Viewer(reading=info.context.reading) if info.context.user.is_authenticated else None

    @strawberry.field(description="A plan; null unless one is in it, or staff who may read every plan.")
    def plan(
        self,
        info: Info,
        id: Annotated[strawberry.ID, strawberry.argument(description="The node id of the plan.")],  # noqa: A002
    ) -> FamilyPlan | None:
        reading = info.context.reading
        return FamilyPlan.of(reading.viewer.plan(pk_of(id, "FamilyPlan")), reading)

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
        reading = info.context.reading
        plans = reading.viewer.plans(name=chosen.name or "", owner_email=chosen.owner_email or "")
        rows = list(page.slice_of(plans))
        reading.read_together(row.pk for row in rows)
        return page.connection_of(rows, lambda row: FamilyPlan(row=row, reading=reading))

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
    ) -> services.InvitePreview | None:
        try:
            return services.preview_invite(actor=info.context.user, token=token)
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
        reading = info.context.reading
        if not reading.viewer.reads_zammad:
            return None
        plan = models.FamilyPlan.objects.of_zammad_user(zammad_user_id).first()
        return FamilyPlan.of(plan, reading)

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
        return find_node(type_name, pk_of(id, type_name), info.context.reading)
