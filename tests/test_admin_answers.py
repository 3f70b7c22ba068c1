"""Admin answers what staff ask: who is on a plan, who a Zammad user is, how much there is of everything."""

import datetime
import html
import re
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from pytest_django import Settings

from plans.models import FamilyPlan, FamilyPlanInvite, Membership, PlanEvent
from tests.admin_pages import as_person, row_of, text_of, url
from tests.factories import (
    ZammadUserFactory,
)
from zammad.models import ZammadUser

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
    """Return the links of a page: the first address of each text."""
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
    assert "Person: Bob Baker (bob@example.com) Plan: The Archers (member)" in text
    assert "Zammad ID: 57 ( in Zammad )" in text
    assert "two addresses are equal, not that whoever writes a ticket is this person" in text
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

    assert "Person: - Plan: - Auto link:" in text_of(page)
