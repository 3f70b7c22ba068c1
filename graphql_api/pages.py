"""Node IDs, cursors and keyset pages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Generic, Protocol, TypeVar

import strawberry
from django.db.models import Model, QuerySet
from django.utils.translation import gettext as _
from graphql import GraphQLError
from strawberry.relay.utils import from_base64, to_base64

MAX_PAGE = 100

First = Annotated[
    int | None,
    strawberry.argument(description="At most this many, from the start: 0 to 100; 100 if omitted."),
]
After = Annotated[
    str | None, strawberry.argument(description="Only rows after this cursor of the same list.")
]


class Keyed(Protocol):
    """A row with a primary key: an instance of a model, or a named tuple."""

    @property
    def pk(self) -> int: ...


Row = TypeVar("Row", bound=Keyed)
Instance = TypeVar("Instance", bound=Model)
Item = TypeVar("Item")


@strawberry.type(description="The position of a page in its list.")
class PageInfo:
    has_next_page: bool = strawberry.field(
        description="Whether more rows follow the page: request them with `endCursor` as `after`."
    )
    has_previous_page: bool = strawberry.field(
        description="Whether rows precede the page: request them with `startCursor` as `before`."
    )
    start_cursor: str | None = strawberry.field(
        description="The cursor of the page's first edge; null if the page is empty."
    )
    end_cursor: str | None = strawberry.field(
        description="The cursor of the page's last edge; null if the page is empty."
    )


@strawberry.type(description="A row of a list, with its position.")
class Edge(Generic[Item]):
    cursor: str = strawberry.field(
        description="The position, for `after` and `before`: opaque, valid also when rows come and go."
    )
    node: Item = strawberry.field(description="The row itself.")


@strawberry.type(description="A page of a list: at most 100 rows.")
class Connection(Generic[Item]):
    page_info: PageInfo = strawberry.field(description="The position of the page in its list.")
    edges: list[Edge[Item]] = strawberry.field(description="The rows on the page, in order.")


def pk_of(global_id: str, type_name: str) -> int:
    """Return the primary key in a node ID, or 0 if the ID is malformed or of another type."""
    try:
        key = int(from_base64(global_id)[1])
    except ValueError:
        return 0
    # base64 and int() are lenient, but a row has one ID only.
    return key if 0 < key < 2**63 and to_base64(type_name, key) == global_id else 0


def invalid_input(message: str) -> GraphQLError:
    return GraphQLError(message, extensions={"code": "INVALID_INPUT"})


def key_of_cursor(argument: str, cursor: str | None) -> int | None:
    key = pk_of(cursor, "cursor") if cursor else None
    if key == 0:
        raise invalid_input(_("%(argument)s must be a cursor of this list.") % {"argument": argument})
    return key


class Page:
    """A keyset page: checks the arguments, selects the rows to fetch, and returns their connection.

    It fetches one more row than requested, to know whether there are more.

    :raises GraphQLError: for arguments out of range.
    """

    def __init__(
        self,
        *,
        first: int | None = None,
        after: str | None = None,
        last: int | None = None,
        before: str | None = None,
    ) -> None:
        if first is not None and last is not None:
            raise invalid_input(_("Use either first or last, not both."))
        self.backwards = last is not None
        argument, size = ("first", first) if last is None else ("last", last)
        self.size = MAX_PAGE if size is None else size
        if not 0 <= self.size <= MAX_PAGE:
            text = _("%(argument)s must be a number from 0 to %(limit)s.")
            raise invalid_input(text % {"argument": argument, "limit": MAX_PAGE})
        self.after = key_of_cursor("after", after)
        self.before = key_of_cursor("before", before)

    @property
    def fetched(self) -> int:
        return self.size + 1

    def slice_of(self, rows: QuerySet[Instance]) -> QuerySet[Instance]:
        """Narrow rows to this page, ordered by primary key."""
        if self.after is not None:
            rows = rows.filter(pk__gt=self.after)
        if self.before is not None:
            rows = rows.filter(pk__lt=self.before)
        return rows.order_by("-pk" if self.backwards else "pk")[: self.fetched]

    def connection_of(self, rows: Sequence[Row], item: Callable[[Row], Item]) -> Connection[Item]:
        more = len(rows) > self.size
        shown = rows[: self.size]
        if self.backwards:
            shown = shown[::-1]
        edges = [Edge(node=item(row), cursor=to_base64("cursor", row.pk)) for row in shown]
        return Connection(
            edges=edges,
            page_info=PageInfo(
                has_next_page=self.before is not None if self.backwards else more,
                has_previous_page=more if self.backwards else self.after is not None,
                start_cursor=edges[0].cursor if edges else None,
                end_cursor=edges[-1].cursor if edges else None,
            ),
        )
