"""Statements that are compiled once: Django's compiler takes several times as long as the database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Generic, NamedTuple, TypeVar

from django.db import connection
from django.db.models import Expression, Field, Model, QuerySet
from django.db.models.query import get_related_populators

Row = TypeVar("Row", bound=Model)

MAX_KEY = 2**63 - 1  # SQLite takes no larger number


class Parameter(Expression):
    """A value in a QuerySet that each execution gives."""

    def __init__(self, name: str, output_field: Field[Any, Any]) -> None:
        super().__init__(output_field)
        self.name = name

    def as_sql(self, compiler: Any, connection: Any) -> Any:
        return "%s", [self]

    def given(self, values: dict[str, Any]) -> Any:
        return self.output_field.get_db_prep_value(values[self.name], connection)


class Compiled(NamedTuple):
    """What Django's compiler makes of a QuerySet, and what makes instances of its rows."""

    sql: str
    parameters: tuple[Any, ...]
    converters: list[tuple[int, list[Callable[..., Any]], Any]]
    model: type[Any]
    columns: slice
    names: list[str]
    related: list[Any]
    annotations: dict[str, int]


class Prepared(Generic[Row]):
    """A QuerySet with parameters, executed again and again without compiling it again.

    It answers the instances that the QuerySet would, with what that selects of related rows.
    """

    def __init__(self, rows: Callable[[], QuerySet[Row]]) -> None:
        self._rows = rows
        self._compiled: dict[str, Compiled] = {}

    def fetch(self, **values: Any) -> list[Row]:
        """Execute the statement with a value for each of its parameters."""
        compiled = self._compiled.get(connection.vendor) or self._compile()
        parameters = [
            part.given(values) if isinstance(part, Parameter) else part for part in compiled.parameters
        ]
        with connection.cursor() as cursor:
            cursor.execute(compiled.sql, parameters)
            found = cursor.fetchall()
        return list(self._instances(found, compiled))

    def first(self, **values: Any) -> Row | None:
        """Execute the statement, and answer the one row that it finds, or the first of them."""
        return next(iter(self.fetch(**values)), None)

    def _compile(self) -> Compiled:
        compiler = self._rows().query.get_compiler(connection=connection)
        sql, parameters = compiler.as_sql()
        converters = compiler.get_converters([column[0] for column in compiler.select])
        own = compiler.klass_info["select_fields"]
        columns = slice(own[0], own[-1] + 1)
        compiled = self._compiled[connection.vendor] = Compiled(
            sql,
            tuple(parameters),
            [(index, convert, expression) for index, (convert, expression) in converters.items()],
            compiler.klass_info["model"],
            columns,
            [column[0].target.attname for column in compiler.select[columns]],
            get_related_populators(compiler.klass_info, compiler.select, connection.alias),  # type: ignore[call-arg]  # of 5.2
            compiler.annotation_col_map,
        )
        return compiled

    def _instances(self, rows: list[tuple[Any, ...]], compiled: Compiled) -> Iterator[Row]:
        """Make instances of rows, as Django's ModelIterable does."""
        for values in rows:
            row = list(values)
            for index, converters, expression in compiled.converters:
                for convert in converters:
                    row[index] = convert(row[index], expression, connection)
            instance = compiled.model.from_db(connection.alias, compiled.names, row[compiled.columns])
            for populator in compiled.related:
                populator.populate(row, instance)
            for name, index in compiled.annotations.items():
                setattr(instance, name, row[index])
            yield instance
