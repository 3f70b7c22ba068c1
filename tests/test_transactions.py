"""Functions that need a transaction refuse to run without one, in tests too."""

from datetime import UTC, datetime

import pytest
from django.contrib.auth.models import User
from django.db import transaction

from tests.deliveries import deliver_body
from zammad.linking import release_person
from zammad.models import LinkChange
from zammad.services import store_users
from zammad.transactions import TransactionMissing, transaction_required

NOW = datetime(2026, 8, 3, 9, 0, tzinfo=UTC)


@transaction_required
def named(name: str) -> str:
    return name


@pytest.mark.django_db
def test_the_transaction_of_a_test_does_not_count() -> None:
    with pytest.raises(TransactionMissing, match="named"):
        named("alice")

    with transaction.atomic():
        assert named("alice") == "alice"


@pytest.mark.django_db(transaction=True)
def test_without_any_transaction_nothing_is_called() -> None:
    with pytest.raises(TransactionMissing):
        named("alice")

    with transaction.atomic():
        assert named("alice") == "alice"


@pytest.mark.django_db
def test_versions_are_stored_and_people_released_in_a_transaction_of_the_caller_alone(carol: User) -> None:
    with pytest.raises(TransactionMissing):
        store_users([], now=NOW)
    with pytest.raises(TransactionMissing):
        release_person(user_id=carol.pk, now=NOW)

    assert not LinkChange.objects.exists()


@pytest.mark.django_db
def test_a_delivery_is_applied_in_transactions_of_its_own() -> None:
    body = b'{"ticket": {"customer": {"id": 57, "updated_at": "2026-08-03T08:00:00Z"}}}'

    with transaction.atomic(), pytest.raises(RuntimeError, match="durable"):
        deliver_body(body, now=NOW)
