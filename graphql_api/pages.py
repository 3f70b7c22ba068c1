"""Node ids and keyset pages: what clients name rows and places in a list by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Generic, Protocol, TypeVar

import strawberry
from django.db.models import Model, QuerySet
from django.utils.translation import gettext as _
from graphql import GraphQLError
from strawberry import relay
from strawberry.relay.utils import from_base64, to_base64

MAX_PAGE = 100

First = Annotated[
    int | None,
    strawberry.argument(description="At most this many, from the start: 0 to 100; 100 if not given."),
]
After = Annotated[
    str | None, strawberry.argument(description="Only what follows this cursor of the same list.")
]


class Keyed(Protocol):
    """A row with a primary key: an instance of a model, or a named tuple."""

    @property
    def pk(self) -> int: ...


Row = TypeVar("Row", bound=Keyed)
Instance = TypeVar("Instance", bound=Model)
Item = TypeVar("Item")


@strawberry.type
class Edge(Generic[Item]):
    cursor: str
    node: Item


@strawberry.type
class Connection(Generic[Item]):
    page_info: relay.PageInfo
    edges: list[Edge[Item]]


def pk_of(global_id: str, type_name: str) -> int:
    """Read the key out of a node id; a malformed id, or one of another type, is nobody's: 0."""
    try:
        key = int(from_base64(global_id)[1])
    except ValueError:
        return 0
    # A row has one id only: not also what base64 and int() would forgive.
    return key if 0 < key < 2**63 and to_base64(type_name, key) == global_id else 0


def invalid_input(message: str) -> GraphQLError:
    return GraphQLError(message, extensions={"code": "INVALID_INPUT"})


def page_size(argument: str, value: int) -> int:
    if not 0 <= value <= MAX_PAGE:
        told = _("%(argument)s takes a number from 0 to %(limit)s.")
        raise invalid_input(told % {"argument": argument, "limit": MAX_PAGE})
    return value


def key_of_cursor(argument: str, cursor: str) -> int:
    key = pk_of(cursor, "cursor")
    if not key:
        raise invalid_input(_("%(argument)s takes a cursor of this connection.") % {"argument": argument})
    return key


class Page:
    """A keyset page by id: arguments in, which rows to fetch, and their connection out.

    One row more than asked for is fetched, to know whether there are more.

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
            raise invalid_input(_("Give first or last, not both."))
        self.backwards = last is not None
        self.size = (
            page_size("last", last)
            if last is not None
            else page_size("first", MAX_PAGE if first is None else first)
        )
        self.after = key_of_cursor("after", after) if after else None
        self.before = key_of_cursor("before", before) if before else None

    @property
    def fetched(self) -> int:
        """How many rows to fetch."""
        return self.size + 1

    def slice_of(self, rows: QuerySet[Instance]) -> QuerySet[Instance]:
        """Narrow rows to the page's, in the order of their ids."""
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
            page_info=relay.PageInfo(
                has_next_page=self.before is not None if self.backwards else more,
                has_previous_page=more if self.backwards else self.after is not None,
                start_cursor=edges[0].cursor if edges else None,
                end_cursor=edges[-1].cursor if edges else None,
            ),
        )
