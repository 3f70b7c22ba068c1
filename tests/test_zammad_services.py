"""What a delivery changes, who it links, and what staff may do by hand."""

import hashlib
import json
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, Permission, User
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import DatabaseError

from tests.deliveries import deliver_body, read
from tests.factories import UserFactory, ZammadUserFactory
from zammad.linking import (
    AlreadyLinked,
    LinkNotPermitted,
    PersonNotFound,
    ZammadUserNotFound,
    link_by_hand,
    unlink,
)
from zammad.models import LinkChange, WebhookDelivery, ZammadUser
from zammad.services import apply_delivery

pytestmark = pytest.mark.django_db

SAMPLE = Path(__file__).parent / "samples" / "ticket_create.json"
NOW = datetime(2026, 8, 3, 9, 0, tzinfo=UTC)
DELIVERY_ID = "0b1f3f9e-6a53-4a65-9a3e-0f1f2a9c7d11"


def at(minute: int, **changes: object) -> bytes:
    """Render a delivery about a user that Zammad changed in this minute."""
    customer = {
        "id": 57,
        "email": "carol@example.com",
        "firstname": f"Carol {minute}",
        "updated_at": f"2026-08-03T08:{minute:02}:00.000Z",
        **changes,
    }
    return json.dumps({"ticket": {"customer": customer}, "article": {}}).encode()


def deliver(body: bytes, *, delivery_id: str | None = None, trigger: str | None = None) -> WebhookDelivery:
    return deliver_body(body, delivery_id=delivery_id, trigger=trigger, now=NOW)


def snapshot() -> list[Any]:
    return list(ZammadUser.objects.order_by("pk").values())


# --- Applying ---------------------------------------------------------------------------------


def test_a_first_delivery_brings_the_user_and_leaves_a_receipt() -> None:
    body = SAMPLE.read_bytes()

    receipt = deliver(body, delivery_id=DELIVERY_ID, trigger="Family Plans: create")

    zammad_user = ZammadUser.objects.get()
    assert snapshot() == [
        {
            "id": zammad_user.pk,
            "zammad_id": 57,
            "email": "lena.vogt@acme.example",
            "login": "lena.vogt@acme.example",
            "firstname": "Lena",
            "lastname": "Vogt",
            "phone": "+49 30 5550142",
            "mobile": "",
            "organization": "Acme Example GmbH",
            "active": True,
            "vip": False,
            "updated_at": datetime(2026, 8, 3, 8, 15, 2, 230_000, tzinfo=UTC),
            "synced_at": NOW,
            "user_id": None,
            "link_kind": "",
            "auto_link": True,
        }
    ]
    assert receipt == WebhookDelivery.objects.get()
    assert list(WebhookDelivery.objects.values()) == [
        {
            "id": receipt.pk,
            "delivery_id": uuid.UUID(DELIVERY_ID),
            "trigger": "Family Plans: create",
            "body_digest": hashlib.sha256(body).hexdigest(),
            "received_at": NOW,
            "last_received_at": NOW,
            "attempts": 1,
            "outcome": "APPLIED",
            "detail": "",
            "zammad_user_id": zammad_user.pk,
        }
    ]


def test_a_newer_version_replaces_what_is_stored() -> None:
    deliver(at(10))

    receipt = deliver(at(11, active=False, vip=True, email="CAROL@new.example"))

    stored = ZammadUser.objects.get()
    assert receipt.outcome == "APPLIED"
    assert (stored.firstname, stored.email, stored.active, stored.vip) == (
        "Carol 11",
        "carol@new.example",
        False,
        True,
    )


@pytest.mark.parametrize("minute", [9, 10])
def test_a_version_that_is_not_newer_changes_nothing(minute: int) -> None:
    deliver(at(10))
    before = snapshot()

    receipt = deliver(at(minute, firstname="Mallory"))

    assert (receipt.outcome, receipt.detail) == ("STALE", "an equally new version is stored")
    assert receipt.zammad_user == ZammadUser.objects.get()
    assert snapshot() == before


def test_milliseconds_decide_too() -> None:
    deliver(at(10, updated_at="2026-08-03T08:10:00.000Z"))

    assert deliver(at(10, vip=True, updated_at="2026-08-03T08:10:00.001Z")).outcome == "APPLIED"
    assert deliver(at(10, updated_at="2026-08-03T08:10:00.000Z")).outcome == "STALE"
    assert deliver(at(10, updated_at="2026-08-03T10:10:00.001+02:00")).outcome == "STALE"


def test_the_first_year_is_a_time_too() -> None:
    assert deliver(at(0, updated_at="0001-01-01T00:00:00Z")).outcome == "APPLIED"
    assert deliver(at(0, vip=True, updated_at="0001-01-01T00:00:01Z")).outcome == "APPLIED"


def test_a_replayed_delivery_changes_nothing() -> None:
    deliver(at(10), delivery_id=DELIVERY_ID)
    before = snapshot()

    # A replay can change the delivery ID: it is not signed.
    replayed = deliver(at(10), delivery_id=str(uuid.uuid4()))

    assert replayed.outcome == "STALE"
    assert snapshot() == before


def test_deliveries_in_any_order_end_with_the_newest() -> None:
    for minute in (11, 13, 10, 12):
        deliver(at(minute))

    assert ZammadUser.objects.get().firstname == "Carol 13"


@pytest.mark.parametrize("minute", [11, 12])
def test_a_newer_version_without_a_change_is_told_apart(minute: int) -> None:
    deliver(at(10, firstname="Carol"))

    receipt = deliver(at(minute, firstname="Carol"))

    assert (receipt.outcome, receipt.detail) == ("UNCHANGED", "nothing stored here has changed")
    assert WebhookDelivery.objects.get(pk=receipt.pk).outcome == "UNCHANGED"
    # The guard continues from the newer version.
    assert deliver(at(11, phone="+49 30 1", firstname="Carol")).outcome == (
        "STALE" if minute > 10 else "APPLIED"
    )
    assert ZammadUser.objects.get().updated_at == datetime(2026, 8, 3, 8, minute, tzinfo=UTC)


@pytest.mark.parametrize(
    "change",
    [
        {"email": "carol@work.example"},
        {"login": "carol"},
        {"firstname": "Caroline"},
        {"lastname": "Carter"},
        {"phone": "1"},
        {"mobile": "1"},
        {"organization": "Acme"},
        {"active": False},
        {"vip": True},
    ],
    ids=lambda change: next(iter(change)),
)
def test_whatever_is_kept_makes_a_change(change: dict[str, object]) -> None:
    deliver(at(10, firstname="Carol"))

    assert deliver(at(11, **{"firstname": "Carol", **change})).outcome == "APPLIED"
    assert deliver(at(12, **{"firstname": "Carol", **change})).outcome == "UNCHANGED"


def test_what_is_not_kept_makes_no_change() -> None:
    deliver(at(10, firstname="Carol"))

    assert deliver(at(11, firstname="Carol", note="rang twice", web="x")).outcome == "UNCHANGED"


def test_a_payload_touches_neither_a_link_by_hand_nor_what_staff_decided(carol: User, bob: User) -> None:
    ZammadUserFactory(
        zammad_id=57, user=bob, link_kind="HAND", auto_link=False, updated_at=NOW - timedelta(days=1)
    )

    deliver(at(10))

    stored = ZammadUser.objects.get()
    assert (stored.firstname, stored.user, stored.auto_link) == ("Carol 10", bob, False)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "the body is not readable JSON"),
        (b'{"error": "unexpected token"}', "the body has no ticket with a customer"),
        (at(10, id=1), "user 1 is Zammad's own"),
        (at(10, id=2**31), "the user has no usable id"),
        (at(10, updated_at=""), "the user has no usable updated_at"),
        (at(10, updated_at="2026-08-05T08:00:00Z"), "updated_at is ahead of our clock"),
    ],
)
def test_what_is_authentic_but_unusable_is_recorded_and_ignored(body: bytes, reason: str) -> None:
    receipt = deliver(body, delivery_id=DELIVERY_ID)

    stored = WebhookDelivery.objects.get()
    assert receipt == stored
    assert (stored.outcome, stored.detail, stored.zammad_user) == ("IGNORED", reason, None)
    assert stored.body_digest == hashlib.sha256(body).hexdigest()
    assert snapshot() == []


@pytest.mark.django_db(transaction=True)
def test_a_failed_receipt_takes_its_effect_along() -> None:
    without_digest = replace(read(at(10), now=NOW), body_digest=None)  # type: ignore[arg-type]
    with pytest.raises(DatabaseError, match="body_digest"):
        apply_delivery(delivery=without_digest, now=NOW)

    assert snapshot() == []


# --- Receipts ----------------------------------------------------------------------------------


def test_a_retry_counts_and_is_applied_like_a_first_one() -> None:
    deliver(at(10), delivery_id=DELIVERY_ID, trigger="Old name")

    # Zammad renders each retry anew.
    deliver(at(11), delivery_id=DELIVERY_ID, trigger="New name")

    receipt = WebhookDelivery.objects.get()
    assert (receipt.attempts, receipt.outcome, receipt.trigger) == (2, "APPLIED", "New name")
    assert receipt.body_digest == hashlib.sha256(at(11)).hexdigest()
    assert ZammadUser.objects.get().firstname == "Carol 11"


@pytest.mark.parametrize("later", [at(10), at(9), b"not json"])
def test_what_was_applied_once_stays_applied(later: bytes) -> None:
    first = deliver(at(10), delivery_id=DELIVERY_ID)

    answered = deliver(later, delivery_id=DELIVERY_ID)

    receipt = WebhookDelivery.objects.get()
    assert (receipt.outcome, receipt.attempts, receipt.detail) == ("APPLIED", 2, "")
    assert (receipt.body_digest, receipt.zammad_user) == (first.body_digest, first.zammad_user)
    # The response is about this body.
    assert answered.outcome == ("IGNORED" if later == b"not json" else "STALE")


def test_what_was_not_applied_tells_of_its_newest_attempt() -> None:
    deliver(b"not json", delivery_id=DELIVERY_ID)
    assert WebhookDelivery.objects.get().outcome == "IGNORED"

    deliver(at(10))
    deliver(at(9), delivery_id=DELIVERY_ID)
    receipt = WebhookDelivery.objects.get(delivery_id=DELIVERY_ID)
    assert (receipt.outcome, receipt.attempts) == ("STALE", 2)

    deliver(at(11), delivery_id=DELIVERY_ID)
    receipt.refresh_from_db()
    assert (receipt.outcome, receipt.attempts, receipt.received_at) == ("APPLIED", 3, NOW)


@pytest.mark.parametrize(
    "odd",
    [
        None,
        "",
        "1",
        DELIVERY_ID.upper(),
        DELIVERY_ID.replace("-", ""),
        f"{{{DELIVERY_ID}}}",
        f"urn:uuid:{DELIVERY_ID}",
        f" {DELIVERY_ID}",
        "\u0660" * 32,
        "x" * 10_000,
    ],
)
def test_without_a_proper_delivery_id_each_delivery_has_its_own_receipt(odd: str | None) -> None:
    deliver(at(10), delivery_id=odd)
    deliver(at(11), delivery_id=odd)

    assert list(WebhookDelivery.objects.values_list("delivery_id", "attempts", "outcome")) == [
        (None, 1, "APPLIED"),
        (None, 1, "APPLIED"),
    ]


@pytest.mark.parametrize(
    ("header", "trigger"),
    [
        (None, ""),
        ("Family Plans", "Family Plans"),
        ("Kündigung 端末".encode().decode("latin-1"), "Kündigung 端末"),
        ("K\xfcndigung", "K\ufffdndigung"),
        ("a\0b\x1b[31m\u0085c", "ab[31m?c".replace("?", "\ufffd")),
        ("t" * 300, "t" * 250),
        ("snow \u2603", "snow ?"),
    ],
)
def test_the_name_of_a_trigger_is_read_as_the_utf_8_it_is(header: str | None, trigger: str) -> None:
    assert deliver(at(10), trigger=header).trigger == trigger


def test_a_receipt_keeps_when_its_first_and_its_newest_attempt_came() -> None:
    first = deliver(at(10), delivery_id=DELIVERY_ID)
    later = NOW + timedelta(seconds=30)

    deliver_body(b"not json", delivery_id=DELIVERY_ID, now=later)

    receipt = WebhookDelivery.objects.get(pk=first.pk)
    assert (receipt.received_at, receipt.last_received_at, receipt.attempts) == (NOW, later, 2)
    assert WebhookDelivery.objects.last_received_at() == later


def test_before_the_first_delivery_there_is_no_last_one() -> None:
    assert WebhookDelivery.objects.last_received_at() is None


# --- Linking by hand ----------------------------------------------------------------------------


@pytest.fixture
def agent(db: None) -> User:
    agent = UserFactory(email="agent@example.com", is_staff=True)
    agent.user_permissions.add(Permission.objects.get(codename="change_zammaduser"))
    return agent


def test_staff_link_whom_no_address_links(agent: User, carol: User) -> None:
    zammad_user = ZammadUserFactory(email="other@example.com", auto_link=False)

    linked = link_by_hand(actor=agent, zammad_user_id=zammad_user.pk, user_id=carol.pk, now=NOW)

    assert linked == zammad_user
    stored = ZammadUser.objects.get()
    assert (stored.user, stored.link_kind) == (carol, "HAND")
    change = LinkChange.objects.get()
    assert (change.from_user, change.to_user, change.actor, change.why) == (None, carol, agent, "BY_HAND")


def test_staff_unlink_for_good(agent: User, carol: User) -> None:
    deliver(at(10))

    unlink(actor=agent, zammad_user_id=ZammadUser.objects.get().pk, now=NOW)

    stored = ZammadUser.objects.get()
    assert (stored.user, stored.auto_link) == (None, False)
    deliver(at(11))
    assert ZammadUser.objects.get().user is None


def test_unlinking_twice_is_no_mistake(agent: User) -> None:
    zammad_user = ZammadUserFactory()

    unlink(actor=agent, zammad_user_id=zammad_user.pk, now=NOW)

    assert unlink(actor=agent, zammad_user_id=zammad_user.pk, now=NOW).user is None


def test_nobody_links_without_the_right(carol: User) -> None:
    linked = ZammadUserFactory(user=carol)
    waiting = ZammadUserFactory()
    before = snapshot()

    for actor in (AnonymousUser(), carol, UserFactory(is_staff=True)):
        with pytest.raises(LinkNotPermitted) as refusal:
            link_by_hand(actor=actor, zammad_user_id=waiting.pk, user_id=carol.pk, now=NOW)
        assert isinstance(refusal.value, PermissionDenied)
        assert refusal.value.code == "PERMISSION_DENIED"
        with pytest.raises(LinkNotPermitted):
            unlink(actor=actor, zammad_user_id=linked.pk, now=NOW)

    assert snapshot() == before


def test_a_zammad_user_who_is_none_is_refused(agent: User, carol: User) -> None:
    with pytest.raises(ZammadUserNotFound) as refusal:
        link_by_hand(actor=agent, zammad_user_id=0, user_id=carol.pk, now=NOW)

    assert isinstance(refusal.value, ValidationError)
    assert refusal.value.code == "ZAMMAD_USER_NOT_FOUND"
    with pytest.raises(ZammadUserNotFound):
        unlink(actor=agent, zammad_user_id=0, now=NOW)


def test_a_person_who_is_none_or_inactive_is_refused(agent: User, carol: User) -> None:
    zammad_user = ZammadUserFactory()
    User.objects.filter(pk=carol.pk).update(is_active=False)

    for user_id in (0, carol.pk):
        with pytest.raises(PersonNotFound) as refusal:
            link_by_hand(actor=agent, zammad_user_id=zammad_user.pk, user_id=user_id, now=NOW)
        assert refusal.value.code == "USER_NOT_FOUND"

    assert ZammadUser.objects.get().user is None


def test_what_is_linked_on_either_side_is_refused(agent: User, carol: User, bob: User) -> None:
    linked = ZammadUserFactory(user=carol)
    waiting = ZammadUserFactory()
    before = snapshot()

    with pytest.raises(AlreadyLinked) as refusal:
        link_by_hand(actor=agent, zammad_user_id=linked.pk, user_id=bob.pk, now=NOW)
    assert refusal.value.code == "ALREADY_LINKED"
    with pytest.raises(AlreadyLinked):
        link_by_hand(actor=agent, zammad_user_id=waiting.pk, user_id=carol.pk, now=NOW)

    assert snapshot() == before
