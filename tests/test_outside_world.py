"""A request that waits for Zammad or the mail server leaves threads and connections to others."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar

import pytest
from django.db import connection, connections

from plans import outside
from plans.models import FamilyPlan
from plans.outside import TooManyWaiting, outside_world, within


@pytest.fixture
def _two_places_and_one_to_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outside, "_places", threading.BoundedSemaphore(2))
    monkeypatch.setattr(outside, "_queue", threading.BoundedSemaphore(1))


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


class Waiter:
    """A thread that is out in the world until it is released."""

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


# --- Work without an end of its own ---------------------------------------------------------------


def test_work_that_ends_in_time_answers_or_fails_as_it_would_here() -> None:
    assert within(10, lambda: 7) == 7
    with pytest.raises(OSError, match="gone"):
        within(10, lambda: (_ for _ in ()).throw(OSError("gone")))


def test_work_knows_the_context_of_who_asked_for_it() -> None:
    request_id = ContextVar("request_id", default="")
    request_id.set("r-1")

    assert within(10, request_id.get) == "r-1"


def test_work_that_takes_too_long_is_left_behind_and_so_much_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outside, "_asides", threading.BoundedSemaphore(2))
    may_end = threading.Event()
    ended = threading.Semaphore(0)

    def dawdle() -> None:
        may_end.wait(10)
        ended.release()

    for _ in range(2):
        with pytest.raises(TimeoutError):
            within(0.01, dawdle)
    with pytest.raises(TooManyWaiting):
        within(10, lambda: pytest.fail("a third was begun"))

    may_end.set()
    for _ in range(2):
        assert ended.acquire(timeout=10)
    while outside._asides._value < 2:  # the threads have one line left to run
        pass
    assert within(10, lambda: 7) == 7


@pytest.mark.django_db(transaction=True)
def test_work_leaves_no_database_connection_behind() -> None:
    used = []

    def work() -> int:
        used.append(connections["default"])
        return FamilyPlan.objects.count()

    assert within(10, work) == 0

    assert used[0] is not connections["default"]
    assert used[0].connection is None
