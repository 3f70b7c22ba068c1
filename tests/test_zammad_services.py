"""What a delivery changes, whom it links, and what staff may do by hand."""

import hashlib
import json
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from allauth.account.models import EmailAddress
from allauth.account.signals import email_confirmed
from django.contrib.auth.models import AnonymousUser, Permission, User
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import DatabaseError, IntegrityError, connection
from django.test.utils import CaptureQueriesContext

from tests.factories import UserFactory, ZammadUserFactory
from zammad.addresses import spellings
from zammad.models import WebhookDelivery, ZammadUser, ZammadUserQuerySet
from zammad.services import (
    AlreadyLinked,
    LinkNotPermitted,
    PersonNotFound,
    ZammadUserNotFound,
    apply_delivery,
    link_by_hand,
    link_waiting_user,
    link_zammad_user,
    unlink,
)

pytestmark = pytest.mark.django_db

SAMPLE = Path(__file__).parent / "samples" / "ticket_create.json"
NOW = datetime(2026, 8, 3, 9, 0, tzinfo=UTC)
# One address, in letters and in IDNA's ASCII.
SPELLINGS = ["carol@bücher.example", "carol@xn--bcher-kva.example"]
DELIVERY_ID = "0b1f3f9e-6a53-4a65-9a3e-0f1f2a9c7d11"


def at(minute: int, **changes: object) -> bytes:
    """Render a delivery about a user whom Zammad changed at this minute."""
    customer = {
        "id": 57,
        "email": "carol@example.com",
        "firstname": f"Carol {minute}",
        "updated_at": f"2026-08-03T08:{minute:02}:00.000Z",
        **changes,
    }
    return json.dumps({"ticket": {"customer": customer}, "article": {}}).encode()


def deliver(body: bytes, *, delivery_id: str | None = None, trigger: str | None = None) -> WebhookDelivery:
    return apply_delivery(body=body, delivery_id=delivery_id, trigger=trigger, now=NOW)


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

    assert (receipt.outcome, receipt.detail) == ("STALE", "as new a version is stored")
    assert receipt.zammad_user == ZammadUser.objects.get()
    assert snapshot() == before


def test_milliseconds_decide_too() -> None:
    deliver(at(10, updated_at="2026-08-03T08:10:00.000Z"))

    assert deliver(at(10, updated_at="2026-08-03T08:10:00.001Z")).outcome == "APPLIED"
    assert deliver(at(10, updated_at="2026-08-03T08:10:00.000Z")).outcome == "STALE"
    assert deliver(at(10, updated_at="2026-08-03T10:10:00.001+02:00")).outcome == "STALE"


def test_the_first_year_is_a_time_too() -> None:
    assert deliver(at(0, updated_at="0001-01-01T00:00:00Z")).outcome == "APPLIED"
    assert deliver(at(0, updated_at="0001-01-01T00:00:01Z")).outcome == "APPLIED"


def test_a_replayed_delivery_changes_nothing() -> None:
    deliver(at(10), delivery_id=DELIVERY_ID)
    before = snapshot()

    # A replayer can change the delivery id: it is not signed.
    replayed = deliver(at(10), delivery_id=str(uuid.uuid4()))

    assert replayed.outcome == "STALE"
    assert snapshot() == before


def test_deliveries_in_any_order_end_with_the_newest() -> None:
    for minute in (11, 13, 10, 12):
        deliver(at(minute))

    assert ZammadUser.objects.get().firstname == "Carol 13"


def test_a_payload_touches_neither_the_link_nor_what_staff_decided(carol: User, bob: User) -> None:
    ZammadUserFactory(zammad_id=57, user=bob, auto_link=False, updated_at=NOW - timedelta(days=1))

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
    without_digest = mock.Mock(**{"hexdigest.return_value": None})
    with (
        mock.patch("zammad.services.hashlib.sha256", return_value=without_digest),
        pytest.raises(DatabaseError, match="body_digest"),
    ):
        deliver(at(10))

    assert snapshot() == []


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_a_delivery_is_one_statement_unless_a_person_is_to_be_linked(carol: User, bob: User) -> None:
    def statements(body: bytes) -> tuple[str, int]:
        with CaptureQueriesContext(connection) as captured:
            outcome = deliver(body, delivery_id=DELIVERY_ID).outcome
        return outcome, len(captured)

    ZammadUserFactory(zammad_id=9, email="bob@example.com", user=bob)
    strangers = {"email": "stranger@example.com"}
    assert statements(at(10, **strangers)) == ("APPLIED", 1)
    assert statements(at(11, **strangers)) == ("APPLIED", 1)
    assert statements(at(11, id=58, **strangers)) == ("APPLIED", 1)
    assert statements(b"not json") == ("APPLIED", 1)
    assert statements(at(10, id=9, email="bob@example.com", updated_at="2020-08-03T08:10:00Z"))[1] == 1

    carols = at(12)
    assert statements(carols)[1] > 1
    assert ZammadUser.objects.get(zammad_id=57).user == carol
    assert statements(carols)[1] == 1


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
    assert answered.outcome == "APPLIED"


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


# --- Linking by address -----------------------------------------------------------------------


def test_the_one_person_who_verified_the_address_is_linked(carol: User) -> None:
    receipt = deliver(at(10, email=" Carol@Example.com"))

    assert (receipt.outcome, receipt.detail) == ("APPLIED", "linked")
    assert ZammadUser.objects.get().user == carol


def test_a_stale_delivery_still_links_who_waits(carol: User) -> None:
    EmailAddress.objects.filter(user=carol).update(verified=False)
    deliver(at(10))
    EmailAddress.objects.filter(user=carol).update(verified=True)

    receipt = deliver(at(10))

    assert (receipt.outcome, receipt.detail) == ("STALE", "as new a version is stored, now linked")
    assert ZammadUser.objects.get().user == carol


def test_a_link_is_made_by_the_address_that_is_stored_not_by_the_one_delivered(
    carol: User, bob: User
) -> None:
    deliver(at(10, email="nobody@example.com"))

    deliver(at(9, email="carol@example.com"))

    assert ZammadUser.objects.get().user is None


def test_nobody_is_linked_by_an_address_they_did_not_verify() -> None:
    UserFactory(email="carol@example.com", verified=False)

    deliver(at(10))

    assert ZammadUser.objects.get().user is None


def test_nobody_inactive_is_linked(carol: User) -> None:
    User.objects.filter(pk=carol.pk).update(is_active=False)

    deliver(at(10))

    assert ZammadUser.objects.get().user is None


def test_a_user_without_an_address_waits(carol: User) -> None:
    EmailAddress.objects.filter(user=carol).update(email="")

    deliver(at(10, email=""))

    assert ZammadUser.objects.get().user is None


@pytest.mark.parametrize("verified", SPELLINGS)
@pytest.mark.parametrize("told", SPELLINGS)
def test_both_spellings_of_an_international_domain_link(carol: User, verified: str, told: str) -> None:
    EmailAddress.objects.filter(user=carol).update(email=verified)

    deliver(at(10, email=told))

    assert ZammadUser.objects.get().user == carol


@pytest.mark.parametrize("verified", SPELLINGS)
@pytest.mark.parametrize("waiting", SPELLINGS)
def test_verifying_either_spelling_links_who_waits_for_the_other(
    carol: User, verified: str, waiting: str
) -> None:
    zammad_user = ZammadUserFactory(email=waiting)
    EmailAddress.objects.filter(user=carol).update(email=verified)

    link_waiting_user(user=carol)

    zammad_user.refresh_from_db()
    assert zammad_user.user == carol


def test_a_person_who_verified_both_spellings_is_one_person(carol: User) -> None:
    for spelling in SPELLINGS:
        EmailAddress.objects.create(user=carol, email=spelling, verified=True)

    deliver(at(10, email=SPELLINGS[0]))

    assert ZammadUser.objects.get().user == carol


def test_two_people_with_one_address_are_nobody(carol: User, bob: User) -> None:
    # To allauth the spellings are two addresses.
    for person, spelling in zip((carol, bob), SPELLINGS, strict=True):
        EmailAddress.objects.filter(user=person).update(email=spelling)

    deliver(at(10, email=SPELLINGS[0]))

    assert ZammadUser.objects.get().user is None


@pytest.mark.parametrize("odd", ["ü", "carol@xn--", "carol@xn--a.example", "ü@@example.com", "carol@\u2024"])
def test_an_odd_address_is_spelt_as_it_is(odd: str) -> None:
    assert spellings(odd) == {odd}


def test_a_person_has_one_link(carol: User) -> None:
    ZammadUserFactory(zammad_id=9, user=carol)

    deliver(at(10))

    assert ZammadUser.objects.get(zammad_id=57).user is None


def test_a_link_is_never_moved_by_a_payload(carol: User, bob: User) -> None:
    deliver(at(10))

    deliver(at(11, email="bob@example.com"))

    stored = ZammadUser.objects.get()
    assert (stored.email, stored.user) == ("bob@example.com", carol)


def test_a_link_that_staff_removed_does_not_come_back(carol: User) -> None:
    ZammadUserFactory(
        zammad_id=57, email="carol@example.com", auto_link=False, updated_at=NOW - timedelta(days=1)
    )

    deliver(at(10))
    link_waiting_user(user=carol)

    assert ZammadUser.objects.get().user is None


def test_who_is_linked_elsewhere_at_this_moment_waits(carol: User) -> None:
    zammad_user = ZammadUserFactory(email="carol@example.com")

    with mock.patch.object(ZammadUserQuerySet, "update", side_effect=IntegrityError):
        assert link_zammad_user(zammad_user=zammad_user) is False

    # The transaction around it lives on.
    assert ZammadUser.objects.get().user is None


def test_a_link_that_was_read_before_somebody_changed_it_is_not_made(carol: User, bob: User) -> None:
    read_before = ZammadUserFactory(email="carol@example.com")
    ZammadUser.objects.update(user=bob)

    assert link_zammad_user(zammad_user=read_before) is False

    assert ZammadUser.objects.get().user == bob


def test_verifying_an_address_links_who_waits_for_it() -> None:
    carol = UserFactory(email="carol@example.com", verified=False)
    deliver(at(10))
    address = EmailAddress.objects.get(user=carol)
    address.verified = True
    address.save()

    email_confirmed.send(sender=EmailAddress, request=None, email_address=address)

    assert ZammadUser.objects.get().user == carol


def test_a_person_with_two_addresses_gets_one_link(carol: User) -> None:
    EmailAddress.objects.create(user=carol, email="carol@work.example", verified=True)
    EmailAddress.objects.create(user=carol, email="carol@old.example", verified=False)
    ZammadUserFactory(zammad_id=7, email="carol@old.example")
    first = ZammadUserFactory(zammad_id=8, email="carol@work.example")
    ZammadUserFactory(zammad_id=9, email="carol@example.com")

    link_waiting_user(user=carol)
    link_waiting_user(user=carol)

    assert ZammadUser.objects.exclude(user=None).get() == first
    assert ZammadUser.objects.get(pk=first.pk).user == carol


def test_deleting_a_person_leaves_what_zammad_told(carol: User) -> None:
    deliver(at(10))

    carol.delete()

    assert ZammadUser.objects.get().user is None


# --- Linking by hand ----------------------------------------------------------------------------


@pytest.fixture
def agent(db: None) -> User:
    agent = UserFactory(email="agent@example.com", is_staff=True)
    agent.user_permissions.add(Permission.objects.get(codename="change_zammaduser"))
    return agent


def test_staff_link_whom_no_address_links(agent: User, carol: User) -> None:
    zammad_user = ZammadUserFactory(email="other@example.com", auto_link=False)

    linked = link_by_hand(actor=agent, zammad_user_id=zammad_user.pk, user_id=carol.pk)

    assert linked == zammad_user
    assert ZammadUser.objects.get().user == carol


def test_staff_unlink_for_good(agent: User, carol: User) -> None:
    deliver(at(10))

    unlink(actor=agent, zammad_user_id=ZammadUser.objects.get().pk)

    stored = ZammadUser.objects.get()
    assert (stored.user, stored.auto_link) == (None, False)
    deliver(at(11))
    assert ZammadUser.objects.get().user is None


def test_unlinking_twice_is_no_mistake(agent: User) -> None:
    zammad_user = ZammadUserFactory()

    unlink(actor=agent, zammad_user_id=zammad_user.pk)

    assert unlink(actor=agent, zammad_user_id=zammad_user.pk).user is None


def test_nobody_links_without_the_right(carol: User) -> None:
    linked = ZammadUserFactory(user=carol)
    waiting = ZammadUserFactory()
    before = snapshot()

    for actor in (AnonymousUser(), carol, UserFactory(is_staff=True)):
        with pytest.raises(LinkNotPermitted) as refusal:
            link_by_hand(actor=actor, zammad_user_id=waiting.pk, user_id=carol.pk)
        assert isinstance(refusal.value, PermissionDenied)
        assert refusal.value.code == "PERMISSION_DENIED"
        with pytest.raises(LinkNotPermitted):
            unlink(actor=actor, zammad_user_id=linked.pk)

    assert snapshot() == before


def test_a_zammad_user_who_is_none_is_refused(agent: User, carol: User) -> None:
    with pytest.raises(ZammadUserNotFound) as refusal:
        link_by_hand(actor=agent, zammad_user_id=0, user_id=carol.pk)

    assert isinstance(refusal.value, ValidationError)
    assert refusal.value.code == "ZAMMAD_USER_NOT_FOUND"
    with pytest.raises(ZammadUserNotFound):
        unlink(actor=agent, zammad_user_id=0)


def test_a_person_who_is_none_or_inactive_is_refused(agent: User, carol: User) -> None:
    zammad_user = ZammadUserFactory()
    User.objects.filter(pk=carol.pk).update(is_active=False)

    for user_id in (0, carol.pk):
        with pytest.raises(PersonNotFound) as refusal:
            link_by_hand(actor=agent, zammad_user_id=zammad_user.pk, user_id=user_id)
        assert refusal.value.code == "USER_NOT_FOUND"

    assert ZammadUser.objects.get().user is None


def test_what_is_linked_on_either_side_is_refused(agent: User, carol: User, bob: User) -> None:
    linked = ZammadUserFactory(user=carol)
    waiting = ZammadUserFactory()
    before = snapshot()

    with pytest.raises(AlreadyLinked) as refusal:
        link_by_hand(actor=agent, zammad_user_id=linked.pk, user_id=bob.pk)
    assert refusal.value.code == "ALREADY_LINKED"
    with pytest.raises(AlreadyLinked):
        link_by_hand(actor=agent, zammad_user_id=waiting.pk, user_id=carol.pk)

    assert snapshot() == before
