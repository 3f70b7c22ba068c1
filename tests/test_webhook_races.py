"""Deliveries that arrive concurrently, as several workers of Zammad send them."""

import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TypeVar
from unittest import mock
from unittest.mock import DEFAULT

import psycopg
import pytest
from allauth.account.models import EmailAddress
from django.contrib.auth.models import Permission, User
from django.db import OperationalError, connection, transaction
from django.utils import timezone

from tests.deliveries import deliver_body
from tests.factories import UserFactory, ZammadUserFactory
from zammad.client import get_client
from zammad.linking import AlreadyLinked, decide, link_by_hand, settle_links
from zammad.models import WebhookDelivery, ZammadUser
from zammad.sandbox import Sandbox
from zammad.services import import_users

pytestmark = [pytest.mark.postgresql, pytest.mark.django_db(transaction=True)]

NOW = datetime(2026, 8, 3, 9, 0, tzinfo=UTC)
DELIVERY_ID = "0b1f3f9e-6a53-4a65-9a3e-0f1f2a9c7d11"
T = TypeVar("T")


def together(calls: Sequence[Callable[[], T]]) -> list[T]:
    """Make all calls concurrently, each in a thread with a connection of its own."""
    start = threading.Barrier(len(calls), timeout=10)

    def run(call: Callable[[], T]) -> T:
        try:
            start.wait()
            return call()
        finally:
            connection.close()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


def at(second: int, **changes: object) -> bytes:
    customer = {
        "id": 57,
        "email": "carol@example.com",
        "firstname": f"Carol {second}",
        "updated_at": f"2026-08-03T08:15:{second:02}.000Z",
        **changes,
    }
    return json.dumps({"ticket": {"customer": customer}}).encode()


def delivering(body: bytes, delivery_id: str | None = None) -> Callable[[], WebhookDelivery]:
    return lambda: deliver_body(body, delivery_id=delivery_id, now=NOW)


@pytest.mark.parametrize("_round", range(3))
def test_of_many_versions_at_once_the_newest_stays(_round: int, carol: User) -> None:
    receipts = together([delivering(at(second)) for second in range(10)])

    stored = ZammadUser.objects.get()
    assert (stored.firstname, stored.user) == ("Carol 9", carol)
    assert WebhookDelivery.objects.count() == 10
    assert {receipt.outcome for receipt in receipts} <= {"APPLIED", "STALE"}


@pytest.mark.parametrize("_round", range(3))
def test_one_body_ten_times_at_once_is_applied_once(_round: int) -> None:
    receipts = together([delivering(at(1)) for _ in range(10)])

    assert sorted(receipt.outcome for receipt in receipts) == ["APPLIED"] + ["STALE"] * 9


@pytest.mark.parametrize("_round", range(3))
def test_every_attempt_of_a_delivery_counts(_round: int) -> None:
    together([delivering(at(second), DELIVERY_ID) for second in range(10)])

    receipt = WebhookDelivery.objects.get()
    assert (receipt.attempts, receipt.outcome) == (10, "APPLIED")
    assert ZammadUser.objects.get().firstname == "Carol 9"


@pytest.mark.parametrize("_round", range(3))
def test_of_many_zammad_users_with_one_address_the_first_or_none_is_linked(_round: int, carol: User) -> None:
    together([delivering(at(1, id=zammad_id)) for zammad_id in range(50, 60)])

    assert ZammadUser.objects.count() == 10
    # One may be settled before another is stored; the result is what the rule says, either way.
    assert ZammadUser.objects.filter(user=carol).count() <= 1
    assert settle_links(zammad_users=ZammadUser.objects.all(), people=[carol.pk], now=NOW) == []


def test_a_person_who_accepts_while_their_link_is_made_loses_nothing(carol: User) -> None:
    zammad_user = ZammadUserFactory(email="carol@example.com")
    writing, written = threading.Event(), threading.Event()

    def rival() -> None:
        with transaction.atomic():
            settle_links(zammad_users=[zammad_user], now=NOW)
            writing.set()
            # Until the other one waits for the address.
            written.wait(0.3)

    def accept() -> None:
        writing.wait(10)
        with transaction.atomic():
            User.objects.filter(pk=carol.pk).update(first_name="Accepted")
            settle_links(people=[carol.pk], now=NOW)

    together([rival, accept])

    carol.refresh_from_db()
    assert carol.first_name == "Accepted"
    assert carol.zammad_user == zammad_user


def test_two_of_staff_at_once_link_a_person_once(carol: User) -> None:
    agent = UserFactory(is_staff=True)
    agent.user_permissions.add(Permission.objects.get(codename="change_zammaduser"))
    zammad_users = [ZammadUserFactory() for _ in range(6)]

    def link(zammad_user: ZammadUser) -> str:
        try:
            link_by_hand(actor=agent, zammad_user_id=zammad_user.pk, user_id=carol.pk, now=NOW)
        except AlreadyLinked:
            return "refused"
        return "linked"

    answers = together([lambda each=each: link(each) for each in zammad_users])  # type: ignore[misc]

    assert sorted(answers) == ["linked"] + ["refused"] * 5
    assert ZammadUser.objects.filter(user=carol).count() == 1


def test_imports_and_deliveries_at_once_do_not_block_each_other(sandbox: Sandbox, carol: User) -> None:
    for _ in range(30):
        sandbox.add_user("")
    sandbox.change_user(9, email="carol@example.com")

    def pull() -> None:
        import_users(client=get_client(), now=timezone.now(), per_page=10)

    together([pull, pull, *(delivering(at(1, id=zammad_id)) for zammad_id in (9, 5, 30, 20))])

    assert ZammadUser.objects.count() == 36
    assert settle_links(zammad_users=ZammadUser.objects.all(), people=[carol.pk], now=NOW) == []


def test_a_delivery_settles_again_after_a_deadlock(carol: User) -> None:
    settled = mock.Mock(side_effect=[deadlock(), deadlock(), deadlock(), DEFAULT], wraps=settle_links)
    with mock.patch("zammad.services.settle_links", settled):
        delivering(at(1))()

    assert ZammadUser.objects.get().user == carol
    assert WebhookDelivery.objects.get().detail == "linked"


def test_a_person_who_verifies_an_address_settles_again_after_a_deadlock(carol: User) -> None:
    delivering(at(1))()
    EmailAddress.objects.filter(user=carol).update(verified=False)
    address = EmailAddress.objects.get(user=carol)
    address.verified = True
    with mock.patch("zammad.linking.decide", mock.Mock(side_effect=[deadlock(), DEFAULT], wraps=decide)):
        address.save()

    assert ZammadUser.objects.get().user == carol
    with (
        mock.patch("zammad.linking.decide", side_effect=[deadlock() for _ in range(9)]),
        pytest.raises(OperationalError),
    ):
        address.delete()


def deadlock() -> OperationalError:
    error = OperationalError("deadlock detected")
    error.__cause__ = psycopg.errors.DeadlockDetected()
    return error
