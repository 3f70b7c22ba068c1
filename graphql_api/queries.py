"""The fields of Query."""

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
    PlanID,
    Token,
    User,
    Viewer,
)
from plans import models, rules, services
from plans.reading import Reading


@strawberry.input(description="Which plans to list.")
class PlanFilters:
    name: str | None = strawberry.field(
        default=None, description="Only plans whose name contains this, ignoring case."
    )
    owner_email: str | None = strawberry.field(
        default=None,
        description=(
            "Only plans whose owner has verified this address. Only staff who may read every plan find other "
            "people's plans by it."
        ),
    )


def find_node(type_name: str, key: int, reading: Reading) -> Node | None:
    """Find a row by its key, if the viewer may see it."""
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
        "Everything you can read. What you may not see is null or left out, never an error: you see the "
        "plan you are in, and staff who may read every plan see them all. Queries change nothing."
    )
)
class Query:
    @strawberry.field(description="You, with your plan; null if you are signed out.")
    def viewer(self, info: Info) -> Viewer | None:
        return Viewer(reading=info.context.reading) if info.context.user.is_authenticated else None

    @strawberry.field(description="A plan; null unless you are in it, or are staff who may read every plan.")
    def plan(self, info: Info, id: PlanID) -> FamilyPlan | None:  # noqa: A002
        reading = info.context.reading
        return FamilyPlan.of(reading.viewer.plan(pk_of(id, "FamilyPlan")), reading)

    @strawberry.field(
        description=(
            "The plans that you may see, oldest first: your own, or all of them for staff who may read every "
            "plan. Empty if you are signed out."
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
            str | None, strawberry.argument(description="Only rows before this cursor of the same list.")
        ] = None,
        filters: Annotated[
            PlanFilters | None,
            strawberry.argument(description="Which plans to list; all that you may see if omitted."),
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
            "What an invite leads to, if you have its token: show this before `acceptInvite`. Null if you "
            "are signed out, or if the token is unknown or has been replaced."
        ),
        graphql_type=InvitePreview | None,
    )
    def invite(self, info: Info, token: Token) -> services.InvitePreview | None:
        try:
            return services.preview_invite(actor=info.context.user, token=token)
        except (rules.NotAuthenticated, rules.InviteNotFound):
            return None

    @strawberry.field(
        description=(
            "The plan of the person associated with a Zammad user, for staff who may read every plan and see "
            "Zammad's data. Null for everyone else, and if there is no such plan."
        )
    )
    def plan_by_zammad_user(
        self,
        info: Info,
        zammad_user_id: Annotated[
            int,
            strawberry.argument(
                description="The user's ID in Zammad, as in the address of their page there."
            ),
        ],
    ) -> FamilyPlan | None:
        reading = info.context.reading
        if not reading.viewer.reads_zammad:
            return None
        plan = models.FamilyPlan.objects.of_zammad_user(zammad_user_id).first()
        return FamilyPlan.of(plan, reading)

    @strawberry.field(description="Any object by its node ID, if you may see it; otherwise null.")
    def node(
        self,
        info: Info,
        id: Annotated[strawberry.ID, strawberry.argument(description="Any node ID.")],  # noqa: A002
    ) -> Node | None:
        try:
            type_name, _ = from_base64(id)
        except ValueError:
            return None
        return find_node(type_name, pk_of(id, type_name), info.context.reading)
