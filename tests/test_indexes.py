"""Frequent queries find their rows by indexes, however many there are."""

from collections.abc import Mapping

import pytest
from django.db import connection
from django.test import Client
from django.utils import timezone

from tests.benchmarks.dataset import DataSet, fill
from tests.benchmarks.operations import Operation, hot_operations, plans_found
from tests.benchmarks.statements import statements_of
from zammad.sandbox import Sandbox

pytestmark = [pytest.mark.django_db, pytest.mark.postgresql]

DATA = DataSet(plans=300, sessions=20)


@pytest.fixture(autouse=True)
def _data(sandbox: Sandbox) -> None:
    fill(DATA)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
        # Tables as small as these are read faster as a whole: so only where no index serves.
        for way in ("seqscan", "hashjoin", "mergejoin"):
            cursor.execute(f"SET LOCAL enable_{way} = off")


def read_whole(operations: Mapping[str, Operation]) -> list[str]:
    """Run operations, and list the statements that read all of a large table."""
    client = Client(SERVER_NAME="127.0.0.1")
    return [
        f"{name}: {scan} in {statement.sql}"
        for name, operation in operations.items()
        for statement in statements_of(client, operation)
        for scan in statement.scans
        if scan.reads_all
    ]


def test_nothing_that_is_asked_often_reads_a_whole_table() -> None:
    assert read_whole(hot_operations(DATA, "secret-of-the-tests", now=timezone.now())) == []


def test_a_search_in_the_middle_of_names_reads_them_all_and_is_seen_to() -> None:
    found = read_whole({"by name": plans_found(DATA, '"name":"Plan 77"', name="AN 77")})
    assert [line.partition(" **")[0] for line in found] == ["by name: Index Scan plans_familyplan_pkey"]
