"""Admin answers the questions of staff: who is in a plan, who a Zammad user is, how much there is."""

import datetime
import html
import re
from pathlib import Path
from typing import Any

import pytest
import time_machine
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from pytest_django import Settings

from plans.models import FamilyPlan, FamilyPlanInvite, Membership, PlanEvent
from tests.admin_pages import as_person, queries_of, row_of, text_of, url
from tests.api import answer
from tests.factories import (
    PASSWORD,
    FamilyPlanFactory,
    InviteFactory,
    OwnerFactory,
    UserFactory,
    ZammadUserFactory,
)
from zammad.models import WebhookDelivery, ZammadUser

AGENTS = (Path(__file__).resolve().parent.parent / "docs/agents.md").read_text()
INDEX = "/admin/"
MORNING = datetime.datetime(2026, 8, 3, 8, 15, tzinfo=datetime.UTC)


@pytest.fixture(autouse=True)
def _zammad(settings: Settings) -> None:
    settings.ZAMMAD_URL = "https://zammad.example.com"


@pytest.fixture
def zammad_bob(bob: User) -> ZammadUser:
    return ZammadUserFactory(
        zammad_id=57, email="bob@example.com", firstname="Bobby", lastname="Tables", user=bob
    )


def allow(person: User, *rights: str) -> None:
    person.user_permissions.add(*Permission.objects.filter(codename__in=rights))


def links_of(response: Any) -> dict[str, str]:
    """Return the links of a page: the first URL for each text."""
    main = response.content.decode().partition('<main id="content-start"')[2]
    links = re.findall(r'<a href="([^"]*)"[^>]*>([^<]*)</a>', main)
    return {text: html.unescape(address) for address, text in reversed(links)}


# --- A plan -------------------------------------------------------------------------------------


def test_a_plan_tells_since_when_and_through_which_invite_each_member_is_on_it_and_their_zammad_id(
    support: User, plan: FamilyPlan, zammad_bob: ZammadUser
) -> None:
    Membership.objects.filter(role="MEMBER").update(joined_at=MORNING)
    invite = plan.invites.get()

    page = as_person(support).get(url(FamilyPlan, "change", plan.pk))

    assert row_of(page, "Make owner") == (
        f"Bob Baker (bob@example.com) | Member | Aug. 3, 2026, 8:15 a.m. | Invite {invite.pk} | "
        "57 (in Zammad) | Detach | Make owner"
    )
    assert re.fullmatch(
        r"Alice Archer \(alice@example.com\) \| Owner \| [^|]+ \| - \| - \| ", row_of(page, "<p>Owner</p>")
    )
    links = links_of(page)
    assert links[f"Invite {invite.pk}"] == url(FamilyPlanInvite, "change", invite.pk)
    assert links["57"] == url(ZammadUser, "change", zammad_bob.pk)
    assert links["in Zammad"] == "https://zammad.example.com/#user/profile/57"


def test_who_may_not_see_zammad_users_reads_plans_without_their_ids(
    clerk: User, plan: FamilyPlan, zammad_bob: ZammadUser
) -> None:
    allow(clerk, "view_familyplan")

    page = as_person(clerk).get(url(FamilyPlan, "change", plan.pk))

    assert "Bob Baker (bob@example.com)" in text_of(page)
    assert "Zammad" not in text_of(page)
    assert "#user/profile" not in page.content.decode()


def test_the_history_of_a_plan_names_people_and_leads_to_the_invite(
    support: User, plan: FamilyPlan, alice: User, bob: User
) -> None:
    invite = plan.invites.get()
    PlanEvent.objects.create(family_plan=plan, kind="INVITE_CREATED", actor=alice, invite=invite, at=MORNING)
    PlanEvent.objects.create(family_plan=plan, kind="MEMBER_DETACHED", actor=None, subject=bob, at=MORNING)

    page = as_person(support).get(url(FamilyPlan, "change", plan.pk))

    assert row_of(page, "Invite Created") == (
        "Aug. 3, 2026, 8:15 a.m. | Invite Created | Alice Archer (alice@example.com) | - | "
        f"Invite {invite.pk}"
    )
    assert row_of(page, "Member Detached") == (
        "Aug. 3, 2026, 8:15 a.m. | Member Detached | - | Bob Baker (bob@example.com) | -"
    )
    history = page.content.decode().partition('id="events-group"')[2]
    assert url(FamilyPlanInvite, "change", invite.pk) in history


# --- A Zammad user ------------------------------------------------------------------------------


def test_a_zammad_user_tells_the_person_the_plan_and_where_it_is_in_zammad(
    support: User, plan: FamilyPlan, zammad_bob: ZammadUser
) -> None:
    page = as_person(support).get(url(ZammadUser, "change", zammad_bob.pk))

    text = text_of(page)
    assert "Person: Bob Baker (bob@example.com) Plan: The Archers (Member)" in text
    assert "Zammad ID: 57 ( in Zammad )" in text
    assert "two addresses are equal, not that this person wrote a ticket" in text
    links = links_of(page)
    assert links["The Archers"] == url(FamilyPlan, "change", plan.pk)
    assert links["in Zammad"] == "https://zammad.example.com/#user/profile/57"
    assert "Bob Baker (bob@example.com)" not in links, "support may not view accounts"


def test_who_may_view_accounts_is_led_from_a_zammad_user_to_the_account(
    superuser: User, bob: User, zammad_bob: ZammadUser
) -> None:
    page = as_person(superuser).get(url(ZammadUser, "change", zammad_bob.pk))

    assert links_of(page)["Bob Baker (bob@example.com)"] == url(User, "change", bob.pk)
    assert "Plan: -" in text_of(page)


@pytest.mark.parametrize("who", ["support", "superuser"])
def test_a_zammad_user_who_waits_has_neither_person_nor_plan(
    request: pytest.FixtureRequest, who: str, db: None
) -> None:
    waiting = ZammadUserFactory()

    page = as_person(request.getfixturevalue(who)).get(url(ZammadUser, "change", waiting.pk))

    text = text_of(page)
    assert "Person: - Plan: -" in text
    assert "Why: No active person has verified the address." in text


# --- The link from Zammad -----------------------------------------------------------------------


@pytest.mark.parametrize("address", ["/admin/zammad-user/57/", "/admin/zammad-user/57"])
def test_an_id_of_zammad_opens_the_page_of_its_user(
    support: User, plan: FamilyPlan, zammad_bob: ZammadUser, address: str
) -> None:
    page = as_person(support).get(address, follow=True)

    assert page.redirect_chain[-1] == (url(ZammadUser, "change", zammad_bob.pk), 302)
    assert "Person: Bob Baker (bob@example.com) Plan: The Archers (Member)" in text_of(page)


@pytest.mark.parametrize("zammad_id", [1, 58, 2**31, 10**17])
def test_an_id_that_is_not_known_here_says_so_and_leads_to_zammad(
    support: User, zammad_bob: ZammadUser, zammad_id: int
) -> None:
    page = as_person(support).get(f"/admin/zammad-user/{zammad_id}/")

    assert page.status_code == 404
    assert f"No user with the Zammad ID {zammad_id} is known here." in text_of(page)
    assert links_of(page)["Look in Zammad"] == f"https://zammad.example.com/#user/profile/{zammad_id}"
    assert links_of(page)["All Zammad users"] == url(ZammadUser, "changelist")


@pytest.mark.parametrize("odd", ["-", "%23%7Bticket.customer.id%7D", "9" * 30, "%00", "%3Cb%3E"])
def test_what_is_no_id_at_all_says_so(support: User, odd: str) -> None:
    page = as_person(support).get(f"/admin/zammad-user/{odd}/")

    assert page.status_code == 404
    assert "This address does not end with a Zammad ID." in text_of(page)


@pytest.mark.parametrize("zammad_id", [57, 58])
def test_staff_without_the_right_learn_nothing_of_an_id(
    clerk: User, zammad_bob: ZammadUser, zammad_id: int
) -> None:
    allow(clerk, "view_familyplan")

    assert as_person(clerk).get(f"/admin/zammad-user/{zammad_id}/").status_code == 403


def test_who_is_not_staff_learns_nothing_of_an_id(alice: User, zammad_bob: ZammadUser) -> None:
    response = as_person(alice).get("/admin/zammad-user/57/", follow=True)

    assert response.status_code == 403
    assert "Bob" not in response.content.decode()


def test_who_is_signed_out_signs_in_and_comes_back_to_the_zammad_user(
    support: User, zammad_bob: ZammadUser
) -> None:
    client = Client()
    door = client.get("/admin/zammad-user/57/", follow=True)
    assert door.redirect_chain[-1][0] == "/accounts/login/?next=%2Fadmin%2Fzammad-user%2F57%2F"

    page = client.post(
        door.redirect_chain[-1][0], {"login": support.email, "password": PASSWORD}, follow=True
    )

    assert page.redirect_chain == [
        ("/admin/zammad-user/57/", 302),
        (url(ZammadUser, "change", zammad_bob.pk), 302),
    ]


def test_the_page_for_agents_names_the_address_that_is_served() -> None:
    assert reverse("zammad_user_page", args=[57]) == "/admin/zammad-user/57/"
    assert "https://plans.example.com/admin/zammad-user/#{ticket.customer.id}/" in AGENTS


def test_the_operation_on_the_page_for_agents_answers_as_it_says(
    support: User, plan: FamilyPlan, zammad_bob: ZammadUser
) -> None:
    (operation,) = re.findall(r"```graphql\n(.*?)```", AGENTS, re.DOTALL)

    for asked, found in ((operation, "The Archers"), (operation.replace("57", "58"), None)):
        plan_found = answer(support, asked)["data"]["planByZammadUser"]
        assert (plan_found and plan_found["name"]) == found


# --- The figures above the index ----------------------------------------------------------------


LAST = "Last delivery"


def receive(count: int, outcome: str, *, at: datetime.datetime) -> None:
    WebhookDelivery.objects.bulk_create(
        WebhookDelivery(body_digest="0" * 64, outcome=outcome, received_at=at) for _ in range(count)
    )


def figures_of(client: Client) -> list[str]:
    """Return the lines of figures, as people read them."""
    lines = re.findall(r'<p class="figures">(.*?)</p>', client.get(INDEX).content.decode(), re.DOTALL)
    return [" ".join(re.sub(r"<[^>]*>", " ", line).split()) for line in lines]


def test_the_index_tells_how_much_there_is_and_what_came_today(superuser: User, plan: FamilyPlan) -> None:
    with time_machine.travel(MORNING, tick=False):
        # given a plan of two, a closed one, an open invite, and one that has just expired
        FamilyPlanFactory(closed_at=MORNING)
        InviteFactory(family_plan=plan, expires_at=MORNING + datetime.timedelta(seconds=1))
        InviteFactory(family_plan=plan, expires_at=MORNING)
        # and deliveries of today, from midnight on, and of yesterday
        midnight = MORNING.replace(hour=0, minute=0)
        receive(3, "APPLIED", at=midnight)
        receive(1, "IGNORED", at=MORNING)
        receive(4, "STALE", at=midnight - datetime.timedelta(microseconds=1))

        assert figures_of(as_person(superuser)) == [
            "Now: Plans 1 Members 2 Open invites 1",
            f"Deliveries today: Applied 3 Unchanged 0 Stale 0 Ignored 1 {LAST} Aug. 3, 2026, 8:15 a.m.",
        ]


def test_the_index_says_when_no_delivery_came_yet(superuser: User) -> None:
    assert figures_of(as_person(superuser))[-1].endswith(f"Ignored 0 {LAST} never")


@time_machine.travel(MORNING, tick=False)
def test_each_figure_leads_to_the_list_of_what_it_counts(superuser: User, plan: FamilyPlan) -> None:
    OwnerFactory()
    FamilyPlanFactory(closed_at=MORNING)
    for expires_in in (0, 1, 2, 3):
        InviteFactory(family_plan=plan, expires_at=MORNING + datetime.timedelta(seconds=expires_in))
    receive(4, "APPLIED", at=MORNING)
    receive(5, "IGNORED", at=MORNING)
    receive(6, "STALE", at=MORNING)
    receive(7, "IGNORED", at=MORNING - datetime.timedelta(days=1))
    client = as_person(superuser)

    links = links_of(client.get(INDEX))

    for title, count in {"Plans": 2, "Open invites": 3, "Applied": 4, "Ignored": 5, "Stale": 6}.items():
        page = client.get(links[title])
        assert len(page.context["cl"].result_list) == count, title


def test_a_figure_is_counted_no_further_than_anybody_turns_pages(superuser: User) -> None:
    receive(10_001, "APPLIED", at=timezone.now())
    receive(9_999, "IGNORED", at=timezone.now())
    client = as_person(superuser)

    with CaptureQueriesContext(connection) as queries:
        lines = figures_of(client)

    assert lines[1].startswith("Deliveries today: Applied 10000 or more Unchanged 0 Stale 0 Ignored 9999")
    counts = [query["sql"] for query in queries if "COUNT(*)" in query["sql"]]
    assert len(counts) == 7
    assert all("LIMIT 10000" in sql for sql in counts)


@pytest.mark.parametrize(
    ("right", "headings"),
    [
        ("view_familyplan", ["Now"]),
        ("change_familyplan", ["Now"]),
        ("view_webhookdelivery", ["Deliveries today"]),
        ("view_zammaduser", []),
    ],
)
def test_figures_are_for_who_may_see_what_they_count(
    clerk: User, plan: FamilyPlan, right: str, headings: list[str]
) -> None:
    allow(clerk, right)

    assert [line.partition(":")[0] for line in figures_of(as_person(clerk))] == headings


def test_staff_without_any_right_have_no_figures_and_nothing_is_counted(
    clerk: User, plan: FamilyPlan
) -> None:
    client = as_person(clerk)

    with CaptureQueriesContext(connection) as queries:
        assert figures_of(client) == []

    assert not [query for query in queries if "COUNT" in query["sql"]]


# --- As many queries for many rows as for one ---------------------------------------------------


def test_the_index_and_a_zammad_user_take_as_many_queries_for_fifty_rows_as_for_one(
    superuser: User, plan: FamilyPlan, zammad_bob: ZammadUser
) -> None:
    client = as_person(superuser)
    pages = [INDEX, url(ZammadUser, "change", zammad_bob.pk)]
    for page in pages:
        client.get(page)  # the first visit fetches content types
    for_few = [queries_of(client, page) for page in pages]

    for _ in range(49):
        person = UserFactory()
        Membership.objects.create(user=person, family_plan=plan)
        InviteFactory(family_plan=plan)
        ZammadUserFactory(user=person)
        WebhookDelivery.objects.create(body_digest="0" * 64, outcome="STALE", zammad_user=zammad_bob)

    assert [queries_of(client, page) for page in pages] == for_few
