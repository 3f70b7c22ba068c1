"""Whether a process can serve, and whether everything that requests need is there, for load balancers."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from django.db import OperationalError, connection
from django.db.migrations.recorder import MigrationRecorder
from django.test import Client
from pytest_django import Settings


@contextmanager
def dead_database() -> Iterator[None]:
    def refuse(*_arguments: object) -> None:
        raise OperationalError("server closed the connection unexpectedly")

    with connection.execute_wrapper(refuse):
        yield


@pytest.mark.django_db
def test_a_process_whose_database_answers_can_serve(client: Client) -> None:
    answer = client.get("/healthz")

    assert (answer.status_code, answer.content) == (200, b"ok\n")
    assert answer.headers["Content-Type"] == "text/plain"
    assert "no-store" in answer.headers["Cache-Control"]


@pytest.mark.django_db
def test_a_process_whose_database_is_gone_cannot_serve(client: Client) -> None:
    with dead_database():
        answer = client.get("/healthz")

    assert (answer.status_code, answer.content) == (503, b"database unavailable\n")


@pytest.mark.django_db
def test_where_everything_is_there_it_is_ready(client: Client) -> None:
    answer = client.get("/readyz")

    assert (answer.status_code, answer.content) == (200, b"ready\n")
    assert answer.headers["Content-Type"] == "text/plain"
    assert "no-store" in answer.headers["Cache-Control"]


@pytest.mark.django_db
def test_without_its_database_it_is_not_ready(client: Client) -> None:
    with dead_database():
        answer = client.get("/readyz")

    assert (answer.status_code, answer.content) == (503, b"database unavailable\n")


@pytest.mark.django_db
def test_before_a_migration_is_applied_it_is_not_ready(client: Client) -> None:
    recorder = MigrationRecorder(connection)
    recorder.record_unapplied("plans", "0002_support_group")

    answer = client.get("/readyz")
    assert (answer.status_code, answer.content) == (503, b"migrations missing\n")

    recorder.record_applied("plans", "0002_support_group")
    assert client.get("/readyz").status_code == 200


@pytest.mark.django_db
def test_a_migration_of_the_next_version_leaves_this_one_ready(client: Client) -> None:
    MigrationRecorder(connection).record_applied("plans", "9999_of_the_next_version")

    assert client.get("/readyz").status_code == 200


@pytest.mark.django_db
@pytest.mark.parametrize(
    "backend",
    [
        # Nobody listens there.
        {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": "redis://127.0.0.1:9/0"},
        {"BACKEND": "django.core.cache.backends.dummy.DummyCache"},
    ],
    ids=["gone", "forgetful"],
)
def test_without_a_cache_that_keeps_it_is_not_ready(
    backend: dict[str, str], client: Client, settings: Settings
) -> None:
    settings.CACHES = {"default": backend}

    answer = client.get("/readyz")

    assert (answer.status_code, answer.content) == (503, b"cache unavailable\n")


@pytest.mark.django_db
@pytest.mark.parametrize("page", ["/healthz", "/readyz"])
def test_a_load_balancer_that_asks_by_address_and_without_tls_is_answered(
    page: str, client: Client, settings: Settings
) -> None:
    settings.SECURE_SSL_REDIRECT = True

    assert client.get(page, headers={"Host": "10.0.0.7:8000"}).status_code == 200
    assert client.get("/").status_code == 301


@pytest.mark.django_db
@pytest.mark.parametrize("page", ["/healthz", "/readyz"])
def test_a_probe_is_read_and_nothing_else(page: str, client: Client) -> None:
    assert client.head(page).status_code == 200
    assert client.post(page).status_code == 405
