"""A connection is kept as long as the server keeps it, and runs no query that a request does not need."""

import time

import pytest
from django.db import close_old_connections, connection

from plans.models import FamilyPlan

pytestmark = [pytest.mark.postgresql, pytest.mark.django_db(transaction=True)]


def backend_pid() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        [(pid,)] = cursor.fetchall()
    return int(pid)


@pytest.fixture
def _kept_and_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Treat connections as production does."""
    monkeypatch.setitem(connection.settings_dict, "CONN_MAX_AGE", None)
    connection.close()
    assert connection.settings_dict["CONN_HEALTH_CHECKS"]


@pytest.mark.usefixtures("_kept_and_checked")
def test_a_request_finds_the_connection_of_the_one_before() -> None:
    pid = backend_pid()

    close_old_connections()  # as at the start of each request

    assert backend_pid() == pid


@pytest.mark.usefixtures("_kept_and_checked")
def test_a_connection_that_the_server_ended_is_replaced_before_a_request_meets_it() -> None:
    pid = backend_pid()
    other = connection.copy()
    with other.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s)", [pid])
    other.close()
    ends_at = time.monotonic() + 10
    while connection.is_usable():
        assert time.monotonic() < ends_at

    close_old_connections()

    assert FamilyPlan.objects.count() == 0
    assert backend_pid() != pid


@pytest.mark.usefixtures("_kept_and_checked")
def test_what_is_asked_again_is_planned_once() -> None:
    for _ in range(10):
        assert not FamilyPlan.objects.filter(name="nothing").exists()

    with connection.cursor() as cursor:
        cursor.execute("SELECT statement FROM pg_prepared_statements")
        prepared = [statement for (statement,) in cursor.fetchall()]
    assert [statement for statement in prepared if "plans_familyplan" in statement] != []


@pytest.mark.usefixtures("_kept_and_checked")
def test_a_closed_connection_is_not_usable() -> None:
    backend_pid()
    assert connection.connection is not None
    connection.connection.close()
    assert not connection.is_usable()
    connection.close()
    assert not connection.is_usable()
