"""Whether a process can serve, as a load balancer asks."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from django.db import OperationalError, connection
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
def test_a_load_balancer_that_asks_without_tls_is_not_sent_away(client: Client, settings: Settings) -> None:
    settings.SECURE_SSL_REDIRECT = True

    assert client.get("/healthz").status_code == 200
    assert client.get("/").status_code == 301
