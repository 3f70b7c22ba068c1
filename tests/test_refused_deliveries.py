"""What the webhook refused is counted per hour and reason, for any sender and in any number."""

from __future__ import annotations

import io
import logging
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest import mock

import pytest
import time_machine
from django.contrib.auth.models import Permission, User
from django.core.management import call_command
from django.db import IntegrityError, OperationalError, connection, connections, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries, Settings
from structlog.contextvars import get_contextvars

from tests.admin_pages import row_of, text_of
from tests.deliveries import SECRET, signed
from tests.factories import UserFactory
from tests.test_constraints import overwrite
from tests.test_healthz import dead_database
from tests.test_webhook_endpoint import (
    ENDPOINT,
    SAMPLE,
    Broken,
    nothing_stored,
    post,
    post_raw,
)
from zammad.models import RefusedDelivery, WebhookDelivery
from zammad.refusals import LONGEST_PAUSE, PAUSE, Counted, Refusals

pytestmark = pytest.mark.django_db

Reason = RefusedDelivery.Reason

DELIVERY_ID = "0b1f3f9e-6a53-4a65-9a3e-0f1f2a9c7d11"
NOW = datetime(2026, 8, 3, 14, 5, 30, tzinfo=UTC)
HOUR = datetime(2026, 8, 3, 14, tzinfo=UTC)
LIST = "admin:zammad_refuseddelivery_changelist"
DELIVERIES = "admin:zammad_webhookdelivery_changelist"
Lines = list[tuple[int, object]]

WRONG = "sha1=" + "0" * 40

start_writer = Refusals._start_writer  # before conftest's fixture puts nothing in its place


@pytest.fixture(autouse=True)
def _secret(settings: Settings) -> None:
    settings.ZAMMAD_WEBHOOK_SECRETS = [SECRET]


def counted() -> list[tuple[str, int]]:
    return list(RefusedDelivery.objects.order_by("hour", "reason").values_list("reason", "count"))


def refuse(refusals: Refusals, number: int = 1, *, at: datetime = NOW, known_as: str | None = None) -> None:
    delivery_id = uuid.UUID(known_as) if known_as else None
    for _ in range(number):
        refusals.count(reason=Reason.SIGNATURE_WRONG, delivery_id=delivery_id, now=at)


# --- What is counted -----------------------------------------------------------------------------

REFUSED: dict[str, tuple[int, Callable[[Client], Any]]] = {
    "METHOD_WRONG": (405, lambda client: client.get(ENDPOINT)),
    "LENGTH_INVALID": (400, lambda client: post_raw(client, "5, 5", io.BytesIO())),
    "BODY_TOO_LARGE": (413, lambda client: post_raw(client, "9" * 15, io.BytesIO())),
    "BODY_INCOMPLETE": (400, lambda client: post_raw(client, str(len(SAMPLE)), Broken())),
    "SIGNATURE_MISSING": (403, lambda client: client.post(ENDPOINT, SAMPLE, content_type="text/plain")),
    "SIGNATURE_MALFORMED": (403, lambda client: post(client, HTTP_X_HUB_SIGNATURE="sha1=\xe9")),
    "SIGNATURE_WRONG": (403, lambda client: post(client, HTTP_X_HUB_SIGNATURE=signed(SAMPLE, "another"))),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_each_refusal_is_counted_by_its_reason(reason: str, refusals: Refusals) -> None:
    status, send = REFUSED[reason]

    with time_machine.travel(NOW, tick=False):
        response = send(Client(headers={"X-Zammad-Delivery": DELIVERY_ID}))
    refusals.write()

    assert response.status_code == status
    assert list(RefusedDelivery.objects.values()) == [
        {
            "id": mock.ANY,
            "hour": HOUR,
            "reason": reason,
            "count": 1,
            "last_at": NOW,
            "last_delivery_id": uuid.UUID(DELIVERY_ID),
        }
    ]
    assert nothing_stored()


def test_without_a_secret_what_comes_is_counted(
    client: Client, settings: Settings, refusals: Refusals
) -> None:
    settings.ZAMMAD_WEBHOOK_SECRETS = []

    assert post(client).status_code == 503
    refusals.write()

    assert counted() == [("NO_SECRET", 1)]


@pytest.mark.parametrize("failure", [OperationalError("gone"), RuntimeError("a bug")])
def test_what_fails_here_is_counted_too(failure: Exception, refusals: Refusals) -> None:
    with mock.patch("zammad.views.apply_delivery", side_effect=failure):
        response = post(Client(raise_request_exception=False))
    refusals.write()

    assert response.status_code == 500
    assert counted() == [("FAILED", 1)]


def test_what_is_taken_is_no_refusal(client: Client, refusals: Refusals) -> None:
    assert post(client).status_code == post(client, b"[]").status_code == 200
    refusals.write()

    assert not RefusedDelivery.objects.exists()


@pytest.mark.parametrize("odd", ["", "x", DELIVERY_ID.upper(), DELIVERY_ID.replace("-", ""), "\xe9" * 36])
def test_an_id_that_zammad_would_not_write_is_not_kept(client: Client, odd: str, refusals: Refusals) -> None:
    post(client, HTTP_X_HUB_SIGNATURE=WRONG, HTTP_X_ZAMMAD_DELIVERY=odd)
    refusals.write()

    assert RefusedDelivery.objects.get().last_delivery_id is None


# --- Adding up -----------------------------------------------------------------------------------


def test_what_is_refused_again_is_added_to_its_hour(refusals: Refusals) -> None:
    refuse(refusals, 3)
    refusals.write()
    refuse(refusals, 4, at=NOW + timedelta(minutes=1), known_as=DELIVERY_ID)
    refusals.write()
    refuse(refusals, 5, at=NOW + timedelta(hours=1))
    refusals.write()

    rows = RefusedDelivery.objects.order_by("hour").values_list(
        "hour", "count", "last_at", "last_delivery_id"
    )
    assert list(rows) == [
        (HOUR, 7, NOW + timedelta(minutes=1), uuid.UUID(DELIVERY_ID)),
        (HOUR + timedelta(hours=1), 5, NOW + timedelta(hours=1), None),
    ]


@pytest.mark.parametrize("written", [[1, 2], [2, 1]], ids=["in order", "the later one first"])
def test_the_last_is_the_last_whichever_process_writes_first(written: list[int]) -> None:
    for minute in written:
        process = Refusals()
        refuse(process, at=HOUR + timedelta(minutes=minute), known_as=str(uuid.UUID(int=minute)))
        process.write()

    row = RefusedDelivery.objects.get()
    assert (row.count, row.last_at, row.last_delivery_id) == (
        2,
        HOUR + timedelta(minutes=2),
        uuid.UUID(int=2),
    )


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("with_id", [1, 2])
def test_whoever_sends_no_id_hides_none(with_id: int, in_memory: bool, refusals: Refusals) -> None:
    for minute in (1, 2):
        refuse(
            refusals,
            at=HOUR + timedelta(minutes=minute),
            known_as=DELIVERY_ID if minute == with_id else None,
        )
        if not in_memory:
            refusals.write()
    refusals.write()

    row = RefusedDelivery.objects.get()
    assert (row.count, row.last_at, str(row.last_delivery_id)) == (
        2,
        HOUR + timedelta(minutes=2),
        DELIVERY_ID,
    )


def test_an_hour_is_one_of_utc_wherever_one_is(refusals: Refusals) -> None:
    refuse(refusals, at=NOW.astimezone(timezone.get_fixed_timezone(330)))
    refusals.write()

    assert RefusedDelivery.objects.get().hour == HOUR


def test_the_reasons_of_one_write_are_one_statement(
    refusals: Refusals, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    for reason in Reason:
        refusals.count(reason=reason, delivery_id=None, now=NOW)

    with django_assert_num_queries(1):
        assert refusals.write()
    with django_assert_num_queries(0):
        assert refusals.write()

    assert sorted(counted()) == sorted((reason.value, 1) for reason in Reason)


# --- Any number of them --------------------------------------------------------------------------


class FakeTime(Refusals):
    """Refusals whose writer does not really wait; others are refused while it would."""

    def __init__(self, *, while_waiting: list[int], ends_after: int | None = None) -> None:
        super().__init__()
        self.while_waiting = iter(while_waiting)
        self.ends_after = ends_after
        self.pauses: list[float] = []

    def _wait(self, seconds: float) -> bool:  # type: ignore[override]
        self.pauses.append(seconds)
        assert len(self.pauses) < 100, "the writer never ends"
        refuse(self, next(self.while_waiting, 0))
        return len(self.pauses) == self.ends_after

    def run(self) -> None:
        with mock.patch("zammad.refusals.connections"):  # the test's own connection is used, and stays open
            self._write_until_done()


def test_a_storm_is_written_once_a_second() -> None:
    # given writes during which more deliveries are refused
    refusals = FakeTime(while_waiting=[1000, 1000, 1000])
    add, added = RefusedDelivery.objects.add, []

    def add_while_others_come(rows: list[dict[str, object]]) -> None:
        added.append(rows)
        if len(added) < 3:
            refuse(refusals)
        add(rows)

    with (
        mock.patch.object(RefusedDelivery.objects, "add", add_while_others_come),
        CaptureQueriesContext(connection) as queries,
    ):
        refusals.run()

    # then there was a second before each write, and the writer ends once nothing is left
    assert refusals.pauses == [PAUSE] * 3 == [1.0] * 3
    assert len(added) == len(queries) == 3
    assert counted() == [("SIGNATURE_WRONG", 3002)]
    assert refusals._writer is None


def test_a_database_that_fails_is_asked_ever_more_seldom_and_loses_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    refusals = FakeTime(while_waiting=[5] * 9)
    add, failures = RefusedDelivery.objects.add, iter(range(8))

    def fail_eight_times(rows: list[dict[str, object]]) -> None:
        if next(failures, None) is not None:
            raise OperationalError("the server is gone")
        add(rows)

    with (
        caplog.at_level(logging.ERROR, "zammad"),
        mock.patch.object(RefusedDelivery.objects, "add", fail_eight_times),
    ):
        refusals.run()

    assert refusals.pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert max(refusals.pauses) == LONGEST_PAUSE
    assert {record.getMessage() for record in caplog.records} == {
        "The counts of refused deliveries could not be written yet"
    }
    assert counted() == [("SIGNATURE_WRONG", 45)]


def test_a_process_that_ends_tries_once_more_and_not_for_ever() -> None:
    refusals = FakeTime(while_waiting=[5, 5], ends_after=2)

    with mock.patch.object(RefusedDelivery.objects, "add", side_effect=OperationalError):
        refusals.run()

    assert refusals.pauses == [1, 2]


def test_a_database_that_fails_changes_no_answer(client: Client, refusals: Refusals) -> None:
    with dead_database():
        responses = [post(client, HTTP_X_HUB_SIGNATURE=WRONG) for _ in range(3)]
        assert not refusals.write()

    assert {(response.status_code, response.content) for response in responses} == {
        (403, b"signature wrong\n")
    }
    assert refusals.write()
    assert counted() == [("SIGNATURE_WRONG", 3)]


@pytest.fixture
def writing(refusals: Refusals, monkeypatch: pytest.MonkeyPatch) -> Refusals:
    """Let production's writer thread run, without a pause."""
    monkeypatch.setattr(Refusals, "_start_writer", start_writer)
    monkeypatch.setattr("zammad.refusals.PAUSE", 0.0)
    return refusals


def test_a_database_that_hangs_holds_up_nobody(client: Client, writing: Refusals) -> None:
    began, goes_on = threading.Event(), threading.Event()
    written: list[Any] = []

    def hang(rows: list[dict[str, object]]) -> None:
        began.set()
        assert goes_on.wait(30)
        written.append(rows)

    with mock.patch.object(RefusedDelivery.objects, "add", hang):
        assert post(client, HTTP_X_HUB_SIGNATURE=WRONG).status_code == 403
        assert began.wait(30)
        writer = writing._writer
        assert writer is not None

        # when the database is silent, then all others get responses, and no second write begins
        answers = [post(client, HTTP_X_HUB_SIGNATURE=WRONG).status_code for _ in range(50)]
        assert answers == [403] * 50
        assert writing._writer is writer
        assert written == []

        goes_on.set()
        writer.join(30)

    assert [rows[0]["count"] for rows in written] == [1, 50]
    assert writing._writer is None


def test_where_no_thread_can_be_had_the_next_refusal_tries_again(client: Client, writing: Refusals) -> None:
    with mock.patch("threading.Thread.start", side_effect=RuntimeError("can't start new thread")):
        assert post(client, HTTP_X_HUB_SIGNATURE=WRONG).status_code == 403
    written: list[Any] = []

    with mock.patch.object(RefusedDelivery.objects, "add", written.append):
        refuse(writing, at=timezone.now())
        writer = writing._writer
        if writer is not None:
            writer.join(30)

    assert sum(row["count"] for rows in written for row in rows) == 2


def test_of_many_threads_no_refusal_is_lost_while_another_writes(refusals: Refusals) -> None:
    with ThreadPoolExecutor(8) as pool:
        running = [pool.submit(refuse, refusals, 500) for _ in range(8)]
        while not all(each.done() for each in running):
            refusals.write()
    refusals.write()

    assert counted() == [("SIGNATURE_WRONG", 4000)]


@pytest.mark.django_db(transaction=True)
def test_of_many_processes_no_write_is_lost() -> None:
    def process(_number: int) -> None:
        mine = Refusals()
        try:
            for _ in range(10):
                for reason in Reason:
                    mine.count(reason=reason, delivery_id=uuid.uuid4(), now=NOW)
                assert mine.write()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(5) as pool:
        list(pool.map(process, range(5)))

    assert sorted(counted()) == sorted((reason.value, 50) for reason in Reason)


def test_counts_add_up_in_any_order() -> None:
    one, other = (
        Counted(hour=HOUR, reason=Reason.FAILED, count=1, last_at=at, last_delivery_id=delivery_id)
        for at, delivery_id in ((HOUR, uuid.UUID(int=1)), (NOW, None))
    )

    assert one + other == other + one
    assert (one + other).last_delivery_id == uuid.UUID(int=1)


# --- What the database itself refuses -------------------------------------------------------------


@pytest.fixture
def row(db: None) -> RefusedDelivery:
    return RefusedDelivery.objects.create(hour=HOUR, reason="FAILED", count=1, last_at=NOW)


@pytest.mark.parametrize(("column", "value"), [("count", 0), ("reason", "OTHER"), ("hour", None)])
def test_a_row_that_counts_nothing_is_refused(
    row: RefusedDelivery, column: str, value: str | int | None
) -> None:
    with pytest.raises(IntegrityError):
        overwrite(row, column, value)

    assert list(RefusedDelivery.objects.all()) == [row]


def test_an_hour_has_one_row_for_each_reason(row: RefusedDelivery) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        RefusedDelivery.objects.create(hour=HOUR, reason="FAILED", count=1, last_at=NOW)

    RefusedDelivery.objects.create(hour=HOUR, reason="NO_SECRET", count=1, last_at=NOW)


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_of_ours_is_stored(reason: str) -> None:
    RefusedDelivery.objects.create(hour=HOUR, reason=reason, count=1, last_at=NOW)


# --- Admin ---------------------------------------------------------------------------------------


def staff_with(*rights: str) -> Client:
    person: User = UserFactory(is_staff=True)
    person.user_permissions.set(Permission.objects.filter(codename__in=rights))
    client = Client()
    client.force_login(person)
    return client


@pytest.fixture
def staff(db: None) -> Client:
    return staff_with("view_refuseddelivery", "view_webhookdelivery")


@pytest.fixture
def two_rows(db: None) -> list[RefusedDelivery]:
    return [
        RefusedDelivery.objects.create(
            hour=HOUR + timedelta(hours=n),
            reason=reason,
            count=7 + n,
            last_at=NOW + timedelta(hours=n),
            last_delivery_id=uuid.UUID(int=n),
        )
        for n, reason in enumerate(["SIGNATURE_WRONG", "BODY_TOO_LARGE"])
    ]


@pytest.mark.usefixtures("two_rows")
def test_the_list_shows_what_was_refused_when_and_how_often(
    staff: Client, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    with django_assert_num_queries(5):
        page = staff.get(reverse(LIST))

    assert [row.count for row in page.context["cl"].result_list] == [8, 7]
    assert row_of(page, "Signature wrong") == (
        "Aug. 3, 2026, 2 p.m. | Signature wrong | 7 | Aug. 3, 2026, 2:05 p.m. | "
        "00000000-0000-0000-0000-000000000000"
    )
    assert "counted by hour and reason; nothing else of them is stored" in text_of(page)


@pytest.mark.usefixtures("two_rows")
@pytest.mark.parametrize(
    ("term", "found"),
    [
        ("00000000-0000-0000-0000-000000000001", [8]),
        (" 00000000-0000-0000-0000-000000000000 ", [7]),
        ("00000000-0000-0000-0000-000000000009", []),
        ("0000", []),
        ("", [8, 7]),
        ("  ", [8, 7]),
    ],
)
def test_a_refusal_is_found_by_its_delivery_id(staff: Client, term: str, found: list[int]) -> None:
    page = staff.get(reverse(LIST), {"q": term})

    assert [row.count for row in page.context["cl"].result_list] == found


def test_refusals_are_read_only(staff: Client, two_rows: list[RefusedDelivery]) -> None:
    address = reverse("admin:zammad_refuseddelivery_change", args=[two_rows[0].pk])

    page = staff.get(address)

    assert page.status_code == 200
    assert "Reason: Signature wrong Count: 7" in text_of(page)
    assert b'<input type="submit"' not in page.content
    addition = reverse("admin:zammad_refuseddelivery_add")
    for closed in (address, addition, address.replace("change", "delete")):
        assert staff.post(closed, {"count": "1", "post": "yes"}).status_code == 403
    staff.post(
        reverse(LIST), {"action": "delete_selected", "_selected_action": two_rows[0].pk, "post": "yes"}
    )
    assert RefusedDelivery.objects.order_by("hour")[0].count == 7


def test_the_deliveries_lead_to_what_was_refused_and_back(staff: Client) -> None:
    taken = staff.get(reverse(DELIVERIES), {"q": DELIVERY_ID})
    refused = staff.get(reverse(LIST))

    assert f'<a href="{reverse(LIST)}?q={DELIVERY_ID}">Refused deliveries</a>' in taken.text
    assert f'<a href="{reverse(DELIVERIES)}">Accepted deliveries</a>' in refused.text


def test_each_page_needs_its_own_right() -> None:
    sees_taken, sees_refused = staff_with("view_webhookdelivery"), staff_with("view_refuseddelivery")

    assert sees_taken.get(reverse(LIST)).status_code == 403
    assert sees_refused.get(reverse(DELIVERIES)).status_code == 403
    assert "Refused deliveries" not in sees_taken.get(reverse(DELIVERIES)).text
    assert "Accepted deliveries" not in sees_refused.get(reverse(LIST)).text


def test_a_row_has_a_name_that_staff_can_read(row: RefusedDelivery) -> None:
    assert str(row) == "FAILED 2026-08-03 14:00"


# --- Prune ---------------------------------------------------------------------------------------


def test_old_counts_are_deleted_in_batches() -> None:
    for days in (29, 31, 32, 33):
        at = timezone.now() - timedelta(days=days)
        RefusedDelivery.objects.create(hour=at - timedelta(minutes=5), reason="FAILED", count=9, last_at=at)
    told = io.StringIO()

    call_command("prune", "--older-than", "30", "--dry-run", stdout=told)
    assert RefusedDelivery.objects.count() == 4
    with mock.patch("zammad.services.DELETED_AT_ONCE", 2), CaptureQueriesContext(connection) as queries:
        call_command("prune", "--older-than", "30", stdout=told)

    assert told.getvalue().splitlines() == [
        (
            "Would delete 0 deliveries and 3 counts of refusals, and would blank the addresses of 0 invites. "
            "Would delete 0 accounts that were never verified."
        ),
        (
            "Deleted 0 deliveries and 3 counts of refusals, and blanked the addresses of 0 invites. "
            "Deleted 0 accounts that were never verified."
        ),
    ]
    assert RefusedDelivery.objects.count() == 1
    assert sum(query["sql"].startswith('DELETE FROM "zammad_refused') for query in queries) == 2


# --- The log -------------------------------------------------------------------------------------


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[Lines]:
    """Collect the status of each request, with the delivery ID of its log line."""
    found: Lines = []

    def keep(record: logging.LogRecord) -> bool:
        found.append((record.__dict__["status"], get_contextvars().get("delivery_id")))
        return True

    logger = logging.getLogger("config.middleware")
    logger.addFilter(keep)
    caplog.set_level(logging.DEBUG, "config.middleware")
    yield found
    logger.removeFilter(keep)


@pytest.mark.parametrize("reason", REFUSED)
def test_the_line_of_every_refusal_carries_the_delivery_id(reason: str, lines: Lines) -> None:
    status, send = REFUSED[reason]

    send(Client(headers={"X-Zammad-Delivery": DELIVERY_ID}))
    send(Client(headers={"X-Zammad-Delivery": "lena@acme.example"}))

    assert lines == [(status, DELIVERY_ID), (status, None)]


@pytest.mark.parametrize(
    ("status", "path", "host"), [(404, ENDPOINT[:-1], "testserver"), (400, ENDPOINT, "unknown.example")]
)
def test_so_does_the_line_of_what_never_reaches_the_view(
    status: int, path: str, host: str, lines: Lines
) -> None:
    Client().post(
        path, b"{}", content_type="text/plain", headers={"X-Zammad-Delivery": DELIVERY_ID, "Host": host}
    )

    assert lines == [(status, DELIVERY_ID)]


def test_so_do_the_lines_of_what_is_taken_and_of_what_fails(lines: Lines) -> None:
    client = Client(headers={"X-Zammad-Delivery": DELIVERY_ID}, raise_request_exception=False)

    post(client)
    for failure in (OperationalError, RuntimeError):
        with mock.patch("zammad.views.apply_delivery", side_effect=failure):
            post(client)

    assert lines == [(200, DELIVERY_ID), (500, DELIVERY_ID), (500, DELIVERY_ID)]
    assert WebhookDelivery.objects.count() == 1
