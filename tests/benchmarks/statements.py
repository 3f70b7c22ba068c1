"""How PostgreSQL runs the statements of operations: with which indexes, or by reading whole tables."""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import django
from django.conf import settings
from django.db import connection, transaction
from django.test import Client
from django.utils import timezone

from tests.benchmarks.dataset import TABLES, DataSet
from tests.benchmarks.load import BadAnswers
from tests.benchmarks.operations import Operation, admin_pages, hot_operations
from zammad.sandbox import Sandbox

LARGE = frozenset({*TABLES, "config_session"})
SCANS = frozenset({"Seq Scan", "Index Scan", "Index Only Scan", "Bitmap Index Scan"})
# Nodes that read all of their input before they return a row: no limit above them ends that early.
TAKES_ALL = frozenset({"Sort", "Hash", "Aggregate", "WindowAgg", "SetOp"})
EXPLAINED = frozenset({"SELECT", "INSERT", "UPDATE", "DELETE", "WITH"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """One access to a table; `reads_all` of a large one: neither an index condition nor a limit ends it."""

    kind: str
    name: str  # of the index, else of the table
    reads_all: bool

    def __str__(self) -> str:
        return f"{self.kind} {self.name}{' **reads all**' if self.reads_all else ''}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """One statement that ran, with PostgreSQL's plan for it."""

    sql: str
    milliseconds: float
    plan: Mapping[str, Any]

    def __str__(self) -> str:
        """Say what is done to which of the large tables."""
        locks = " for update" if re.search(r"FOR (NO KEY )?UPDATE", self.sql) else ""
        return f"{self.sql.split()[0].lower()} {', '.join(self.tables)}{locks}"

    @property
    def tables(self) -> list[str]:
        named = re.findall(r'(?:FROM|JOIN|INTO|UPDATE) "?(\w+)"?', self.sql)
        return list(dict.fromkeys(table.partition("_")[2] for table in named if table in LARGE))

    @property
    def scans(self) -> list[Scan]:
        return list(scans_of(self.plan))


def scans_of(node: Mapping[str, Any], *, table: str = "", limited: bool = False) -> Iterator[Scan]:
    kind = node["Node Type"]
    table = node.get("Relation Name", table)
    limited = kind == "Limit" or (limited and kind not in TAKES_ALL and "Subplan Name" not in node)
    if kind in SCANS:
        stops_early = limited and kind != "Bitmap Index Scan" and "Filter" not in node
        yield Scan(
            kind=kind,
            name=node.get("Index Name", table),
            reads_all=table in LARGE and "Index Cond" not in node and not stops_early,
        )
    for below in node.get("Plans", []):
        yield from scans_of(below, table=table, limited=limited)


def statements_of(client: Client, operation: Operation) -> list[Statement]:
    """Run an operation in process, and explain each of its statements just before it runs.

    :raises BadAnswers: when it did not do what was asked.
    """
    found = []

    def explain(
        execute: Callable[..., Any], sql: str, params: Any, many: bool, context: dict[str, Any]
    ) -> Any:
        plan = None
        if sql.split()[0] in EXPLAINED and not many:
            with context["connection"].connection.cursor() as cursor:
                [[[explained]]] = cursor.execute(f"EXPLAIN (FORMAT JSON) {sql}", params).fetchall()
            plan = explained["Plan"]
        started = time.perf_counter()
        result = execute(sql, params, many, context)
        if plan is not None:
            milliseconds = (time.perf_counter() - started) * 1e3
            found.append(Statement(sql=sql, milliseconds=milliseconds, plan=plan))
        return result

    with connection.execute_wrapper(explain):
        ask(client, operation)
    return found


def ask(client: Client, operation: Operation) -> None:
    """:raises BadAnswers:"""
    request = operation.request
    response = client.generic(
        request.method,
        request.path,
        request.whole_body,
        content_type=request.headers.get("Content-Type", ""),
        headers=request.headers,
    )
    body = b"".join(response) if response.streaming else response.content
    if not operation.is_done_by(response.status_code, body):
        raise BadAnswers(f"{request.path} answers {response.status_code}: {body[:2000].decode()}")


@contextmanager
def undone() -> Iterator[None]:
    """Roll back at the end whatever services commit in the block."""
    whole = transaction.atomic()
    whole._from_testcase = True  # type: ignore[attr-defined]  # as Django's tests do, else services refuse it
    with whole:
        yield
        transaction.set_rollback(True)


def main() -> None:
    """Print the statements of frequent operations, and those of admin that read whole tables, as a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plans", type=int, required=True, help="in the data set of DATABASE_URL")
    data = DataSet(plans=parser.parse_args().plans)
    django.setup()
    client = Client(SERVER_NAME="127.0.0.1")
    hot = hot_operations(data, settings.ZAMMAD_WEBHOOK_SECRETS[0], now=timezone.now())
    print("| asked | statement | takes | through |\n|---|---|---|---|")
    with Sandbox() as sandbox, undone():
        settings.ZAMMAD_URL = sandbox.url
        for name, operation in hot.items():
            for statement in statements_of(client, operation):
                if statement.tables:
                    print(row(name, statement))
    print("\nOf the statements of admin's pages, these have no condition that an index serves:\n")
    print("| page | statement | takes | through |\n|---|---|---|---|")
    for name, operation in admin_pages(data).items():
        for statement in statements_of(client, operation):
            if any(scan.reads_all for scan in statement.scans):
                print(row(name, statement))


def row(name: str, statement: Statement) -> str:
    scans = ", ".join(dict.fromkeys(map(str, statement.scans)))
    return f"| {name} | {statement} | {statement.milliseconds:.1f} ms | {scans} |"


if __name__ == "__main__":
    main()
