"""Prepared statements: execute the SQL of a QuerySet again and again with other values.

For a small statement, Django's compiler takes several times as long as the database.
"""

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, Generic, ParamSpec, TypeVar, get_args, get_type_hints

from django.db import connection
from django.db.models import QuerySet, Value

Row = TypeVar("Row", bound=tuple[Any, ...])
Values = ParamSpec("Values")


# How Django writes IN with a placeholder for a list, and what PostgreSQL takes for a list of any length.
IN_LIST = "IN (SELECT %s)"
ANY_OF_LIST = "= ANY(%s)"


class Placeholder(Value):
    """A value in a QuerySet that each execution replaces."""

    def __init__(self, name: str, value: object) -> None:
        super().__init__(value)
        self.name = name

    def as_sql(self, compiler: Any, connection: Any) -> Any:
        return "(SELECT %s)" if isinstance(self.value, list) else "%s", [self]


class Statement(Generic[Values, Row]):
    """A function that executes a QuerySet and returns named tuples.

    On PostgreSQL the SQL is compiled once; elsewhere the QuerySet runs as it is. Values are keyword
    arguments. None, bools and members of enums become part of the SQL: NULL needs another operator,
    and the others select the QuerySet.
    """

    def __init__(self, row: type[Row], rows: Callable[Values, QuerySet[Any]]) -> None:
        self.rows = rows
        self.columns, self.make = shape_of(row)
        self.texts: dict[frozenset[tuple[str, object]], tuple[str, Sequence[Any]]] = {}

    def __call__(self, *args: Values.args, **values: Values.kwargs) -> list[Row]:
        if connection.vendor != "postgresql":
            return [self.make(row) for row in self.rows(*args, **values).values_list(*self.columns)]
        fixed = {name: value for name, value in values.items() if isinstance(value, bool | Enum | None)}
        key = frozenset(fixed.items())
        if key not in self.texts:
            named = {name: Placeholder(name, value) for name, value in values.items() if name not in fixed}
            rows: Callable[..., QuerySet[Any]] = self.rows
            query = rows(**fixed, **named).values_list(*self.columns).query
            text, mixed = query.sql_with_params()
            self.texts[key] = text.replace(IN_LIST, ANY_OF_LIST), mixed
        sql, parameters = self.texts[key]
        given: list[Any] = [
            values[each.name] if isinstance(each, Placeholder) else each for each in parameters
        ]
        with connection.cursor() as cursor:
            cursor.execute(sql, given)
            return [self.make(row) for row in cursor.fetchall()]

    def first(self, *args: Values.args, **values: Values.kwargs) -> Row | None:
        """Return the first row, or None if there is none."""
        return next(iter(self(*args, **values)), None)


def statement(row: type[Row]) -> Callable[[Callable[Values, QuerySet[Any]]], Statement[Values, Row]]:
    """Turn a function that returns a QuerySet into one that executes it and returns rows.

    The columns are the fields of `row`, a NamedTuple. A field that is a NamedTuple itself is read
    through the relation, or FilteredRelation, of its name, and is None where there is no related
    row; such fields come last.
    """
    return lambda rows: Statement(row, rows)


def shape_of(row: type[Row], path: str = "") -> tuple[list[str], Callable[[Sequence[Any]], Row]]:
    """Return the columns of a row and its related rows, and a function that builds it from their values."""
    columns: list[str] = []
    related: list[tuple[slice, Callable[[Sequence[Any]], Any]]] = []
    for name, kind in get_type_hints(row).items():
        inner = next((each for each in (kind, *get_args(kind)) if hasattr(each, "_make")), None)
        if inner is None:
            columns.append(path + name)
        else:
            start = len(columns)
            inner_columns, make_inner = shape_of(inner, f"{path}{name}__")
            columns += inner_columns
            related.append((slice(start, len(columns)), make_inner))
    make: Callable[[Sequence[Any]], Row] = row._make  # type: ignore[attr-defined]
    if not related:
        return columns, make
    own = related[0][0].start

    def make_with_related(values: Sequence[Any]) -> Row:
        parts = [
            make_part(values[place]) if values[place.start] is not None else None
            for place, make_part in related
        ]
        return make((*values[:own], *parts))

    return columns, make_with_related
