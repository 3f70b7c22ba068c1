"""Whoever waits for Zammad or the mail server leaves threads, and connections, to others."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from django.db import connection

from plans import outside
from plans.models import FamilyPlan
from plans.outside import TooManyWaiting, outside_world


@pytest.fixture
def _two_places_and_one_to_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outside, "_places", threading.BoundedSemaphore(2))
    monkeypatch.setattr(outside, "_queue", threading.BoundedSemaphore(1))


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


class Waiter:
    """A thread that is out in the world until it is let go."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self.is_out = threading.Event()
        self.may_return = threading.Event()
        self.done: Future[None] = pool.submit(self.wait)

    def wait(self) -> None:
        with outside_world():
            self.is_out.set()
            assert self.may_return.wait(10)


@pytest.mark.usefixtures("_two_places_and_one_to_queue")
def test_one_who_finds_no_place_queues_until_one_is_free(pool: ThreadPoolExecutor) -> None:
    first, second = Waiter(pool), Waiter(pool)
    assert first.is_out.wait(10)
    assert second.is_out.wait(10)
    third = Waiter(pool)
    assert not third.is_out.wait(0.1)

    first.may_return.set()

    assert third.is_out.wait(10)
    second.may_return.set()
    third.may_return.set()
    for waiter in (first, second, third):
        waiter.done.result(10)


@pytest.mark.usefixtures("_two_places_and_one_to_queue")
def test_a_queue_that_is_full_refuses_at_once(
    pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outside, "PATIENCE", 10.0)
    waiters = [Waiter(pool), Waiter(pool)]
    for waiter in waiters:
        assert waiter.is_out.wait(10)
    queueing = Waiter(pool)
    while outside._queue._value:  # until the third has its place in it
        assert not queueing.done.done()

    with pytest.raises(TooManyWaiting), outside_world():
        pytest.fail("a fourth went out")

    for waiter in [*waiters, queueing]:
        waiter.may_return.set()
        waiter.done.result(10)


@pytest.mark.usefixtures("_two_places_and_one_to_queue")
def test_whoever_queued_in_vain_is_refused_and_leaves_the_queue(
    pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outside, "PATIENCE", 0.05)
    waiters = [Waiter(pool), Waiter(pool)]
    for waiter in waiters:
        assert waiter.is_out.wait(10)

    for _ in range(2):
        with pytest.raises(TooManyWaiting), outside_world():
            pytest.fail("a third went out")

    for waiter in waiters:
        waiter.may_return.set()
        waiter.done.result(10)
    with outside_world():
        pass


@pytest.mark.usefixtures("_two_places_and_one_to_queue")
def test_a_failure_outside_frees_the_place() -> None:
    for _ in range(3):
        with pytest.raises(OSError, match="gone"), outside_world():
            raise OSError("gone")


@pytest.mark.django_db(transaction=True)
def test_nobody_holds_a_database_connection_out_there() -> None:
    assert FamilyPlan.objects.count() == 0
    assert connection.connection is not None

    with outside_world():
        assert connection.connection is None

    assert FamilyPlan.objects.count() == 0
