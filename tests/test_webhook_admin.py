"""Staff read webhook deliveries in the admin, and change none."""

import uuid

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse
from pytest_django import DjangoAssertNumQueries

from tests.admin_pages import row_of, text_of
from tests.factories import UserFactory, ZammadUserFactory
from zammad.models import WebhookDelivery

LIST = "admin:zammad_webhookdelivery_changelist"


@pytest.fixture
def staff(db: None) -> Client:
    person: User = UserFactory(is_staff=True)
    person.user_permissions.set(Permission.objects.filter(content_type__model="webhookdelivery"))
    client = Client()
    client.force_login(person)
    return client


def receipts(count: int) -> list[WebhookDelivery]:
    return [
        WebhookDelivery.objects.create(
            delivery_id=uuid.UUID(int=number),
            outcome="APPLIED",
            trigger=f"Trigger {number}",
            zammad_user=ZammadUserFactory(zammad_id=1000 + number),
        )
        for number in range(count)
    ]


def shown(client: Client, term: str) -> list[str]:
    response = client.get(reverse(LIST), {"q": term})
    return [delivery.trigger for delivery in response.context["cl"].result_list]


@pytest.mark.parametrize("count", [1, 30])
def test_the_list_asks_as_often_for_many_deliveries_as_for_one(
    staff: Client, count: int, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    receipts(count)

    with django_assert_num_queries(5):
        response = staff.get(reverse(LIST))

    assert len(response.context["cl"].result_list) == count


@pytest.mark.parametrize(
    ("term", "found"),
    [
        ("00000000-0000-0000-0000-000000000002", ["Trigger 2"]),
        (" 1001 ", ["Trigger 1"]),
        ("", ["Trigger 2", "Trigger 1", "Trigger 0"]),
        ("Trigger", []),
        ("9" * 30, []),
        ("+1001", []),
        ("1_001", []),
        ("9" * 5000, []),
    ],
)
def test_a_delivery_is_found_by_its_id_or_its_zammad_id(staff: Client, term: str, found: list[str]) -> None:
    receipts(3)

    assert shown(staff, term) == found


def test_a_delivery_is_read_only(staff: Client) -> None:
    [delivery] = receipts(1)
    url = reverse("admin:zammad_webhookdelivery_change", args=[delivery.pk])

    page = staff.get(url)

    assert page.status_code == 200
    assert b'<input type="submit"' not in page.content
    for refused in (url, reverse("admin:zammad_webhookdelivery_add"), url.replace("change", "delete")):
        assert staff.post(refused, {"outcome": "STALE", "post": "yes"}).status_code == 403
    assert WebhookDelivery.objects.get().outcome == "APPLIED"


def test_who_has_no_right_sees_nothing(db: None) -> None:
    client = Client()
    client.force_login(UserFactory(is_staff=True))

    assert client.get(reverse(LIST)).status_code == 403


def test_things_have_names_that_staff_can_read(db: None) -> None:
    [delivery] = receipts(1)

    assert str(delivery) == "APPLIED 00000000-0000-0000-0000-000000000000"
    assert str(WebhookDelivery(outcome="IGNORED")) == "IGNORED without delivery ID"
    assert str(ZammadUserFactory.build(zammad_id=7, firstname="Al", lastname="Bo")) == "Al Bo (Zammad 7)"
    unnamed = ZammadUserFactory.build(zammad_id=7, firstname="", lastname="", email="", login="-al")
    assert str(unnamed) == "-al (Zammad 7)"


def test_deliveries_are_filtered_by_outcome_and_tell_why_they_were_ignored(staff: Client) -> None:
    receipts(2)
    WebhookDelivery.objects.create(
        outcome="IGNORED", detail="the body has no ticket with a customer", trigger="Odd trigger"
    )

    page = staff.get(reverse(LIST), {"outcome__exact": "IGNORED"})

    [ignored] = page.context["cl"].result_list
    assert row_of(page, "Odd trigger").partition(" | ")[2] == (
        "Ignored | the body has no ticket with a customer | - | Odd trigger"
    )
    details = text_of(staff.get(reverse("admin:zammad_webhookdelivery_change", args=[ignored.pk])))
    assert "Outcome: Ignored Why: the body has no ticket with a customer" in details


def test_the_pages_say_why_nothing_is_processed_again(staff: Client) -> None:
    [delivery] = receipts(1)

    for page in (reverse(LIST), reverse("admin:zammad_webhookdelivery_change", args=[delivery.pk])):
        text = text_of(staff.get(page))
        assert "Nothing here needs or can be processed again: bodies are not stored" in text
        assert "import_zammad_users" in text


def test_a_delivery_names_its_zammad_user_only_to_who_may_see_zammad_users(staff: Client) -> None:
    [delivery] = receipts(1)
    pages = [reverse(LIST), reverse("admin:zammad_webhookdelivery_change", args=[delivery.pk])]
    name = str(delivery.zammad_user)
    assert name.endswith("(Zammad 1000)")
    for page in pages:
        assert name not in staff.get(page).content.decode()
        assert "1000" in text_of(staff.get(page))

    User.objects.get().user_permissions.add(Permission.objects.get(codename="view_zammaduser"))

    for page in pages:
        assert name in text_of(staff.get(page))


def test_the_list_neither_sorts_nor_sums_up_the_whole_table(staff: Client) -> None:
    receipts(3)

    page = staff.get(reverse(LIST), {"o": "2", "_facets": "True"})

    assert [row.trigger for row in page.context["cl"].result_list] == ["Trigger 2", "Trigger 1", "Trigger 0"]
    assert "Show counts" not in page.content.decode()
    assert "Applied (3)" not in text_of(page)
