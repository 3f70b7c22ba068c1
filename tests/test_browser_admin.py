"""Admin in a real browser, on a desktop and on a phone: what staff see, and the journeys they start there."""

from collections.abc import Iterator

import pytest
from django.contrib.auth.models import User
from django.core import mail
from pytest_django import Settings
from pytest_django.live_server_helper import LiveServer
from selenium.webdriver.common.by import By

from plans.models import FamilyPlan, FamilyPlanInvite, digest_of
from plans.settings import PlanSettings
from tests.browser import Visitor, visit
from tests.factories import PASSWORD, UserFactory, ZammadUserFactory
from zammad.models import WebhookDelivery, ZammadUser
from zammad.sandbox import Sandbox

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def superuser(db: None) -> User:
    return UserFactory(
        email="admin@example.com", first_name="Ada", last_name="Admin", is_staff=True, is_superuser=True
    )


@pytest.fixture
def lena(db: None) -> ZammadUser:
    return ZammadUserFactory(zammad_id=57, email="lena@acme.example", firstname="Lena", lastname="Vogt")


@pytest.fixture(scope="module", params=[(1280, 900), (390, 844)], ids=["desk", "phone"])
def stranger(request: pytest.FixtureRequest) -> Iterator[Visitor]:
    width, height = request.param
    with visit(width=width, height=height) as visitor:
        yield visitor


@pytest.fixture
def visitor(
    stranger: Visitor, live_server: LiveServer, settings: Settings, superuser: User
) -> Iterator[Visitor]:
    """The superuser, who signed in on the usual page and is at the index of admin."""
    settings.PUBLIC_URL = live_server.url
    stranger.driver.delete_all_cookies()
    stranger.open(f"{live_server.url}/admin/")
    stranger.fill(login=superuser.email, password=PASSWORD)
    stranger.click("Sign In")
    assert stranger.driver.current_url == f"{live_server.url}/admin/"
    yield stranger
    # The policy allowed everything that a page of admin loaded or ran.
    assert [text for text in stranger.complaints() if "Policy" in text] == []


def rows_of(visitor: Visitor, table: str) -> list[str]:
    """Return the text of a table's rows, one line each, without the headers."""
    rows = visitor.driver.find_elements(By.CSS_SELECTOR, f"{table} tbody tr")
    return [" ".join(row.text.split()) for row in rows]


def told(visitor: Visitor) -> list[str]:
    """Return the messages at the top of the page."""
    return [message.text for message in visitor.driver.find_elements(By.CSS_SELECTOR, ".messagelist li")]


def value_of(visitor: Visitor, label: str) -> str:
    """Return the text next to a label."""
    beside = f"//main//label[normalize-space()='{label}']/following-sibling::*[1]"
    return visitor.driver.find_element(By.XPATH, beside).text


def buttons(visitor: Visitor) -> list[str]:
    """Return the labels of the buttons at the end of the page."""
    found = visitor.driver.find_elements(By.CSS_SELECTOR, "main .submit-row :is(input, a)")
    return [button.get_attribute("value") or button.text for button in found]


def test_the_index_leads_to_a_plan_with_its_members_invites_and_history(
    visitor: Visitor, plan: FamilyPlan
) -> None:
    # given the index of admin, which greets by name and has a line for each kind of row
    assert told(visitor) == ["Successfully signed in as Ada Admin."]
    for line in (
        "Family plans",
        "Family plan invites",
        "Family plan settings",
        "Zammad users",
        "Webhook deliveries",
    ):
        assert visitor.driver.find_element(By.LINK_TEXT, line).is_displayed()
    assert not visitor.scrolls_sideways

    # when staff follow the lines
    visitor.click("Family plans")
    [row] = rows_of(visitor, "#result_list")
    assert row.startswith("The Archers Alice Archer (alice@example.com) 2 of 5 ")
    assert not visitor.scrolls_sideways
    visitor.click("The Archers")

    # then the plan's page shows who is in it, through which invite, and what staff can do
    assert value_of(visitor, "Owner:") == "Alice Archer (alice@example.com)"
    assert value_of(visitor, "Seats taken:") == "2 of 5"
    owner, member = rows_of(visitor, "#memberships-group")
    assert owner.startswith("Alice Archer (alice@example.com) Owner ")
    assert member.startswith("Bob Baker (bob@example.com) Member ")
    assert member.endswith("Detach | Make owner")
    assert visitor.reaches(visitor.driver.find_element(By.LINK_TEXT, "Make owner"))
    [invite] = rows_of(visitor, "#invites-group")
    assert "Used" in invite
    assert "Bob Baker (bob@example.com)" in invite
    assert rows_of(visitor, "#events-group") == ["None."]
    assert not visitor.scrolls_sideways


def test_an_invite_shows_its_link_this_once(visitor: Visitor, sandbox: Sandbox, plan: FamilyPlan) -> None:
    # when staff invite an address
    visitor.click("Family plans")
    visitor.click("The Archers")
    visitor.click("Invite")
    assert "The invite holds a seat until it expires." in visitor.reads
    visitor.fill(email="Dora@example.com")
    visitor.click("Invite")

    # then the link is before them, and it opens the invite just made
    assert "Copy the link now: it is shown only once" in visitor.reads
    assert value_of(visitor, "Mail") == "Sent (dora@example.com)"
    link = visitor.find("#invite-link").get_attribute("value") or ""
    token = link.rstrip("/").rpartition("/")[2]
    invite = FamilyPlanInvite.objects.get(token_digest=digest_of(token))
    assert (invite.email, invite.user) == ("dora@example.com", None)
    assert link in str(mail.outbox[-1].body)
    assert not visitor.scrolls_sideways

    # and neither the plan's page nor the invite's shows it again
    visitor.click("Close")
    assert value_of(visitor, "Seats taken:") == "3 of 5"
    newest = rows_of(visitor, "#invites-group")[0]
    assert newest.startswith(f"Invite {invite.pk} dora@example.com Open ")
    assert newest.endswith("Reissue | Revoke")
    assert token not in visitor.driver.page_source
    visitor.click(f"Invite {invite.pk}")
    assert value_of(visitor, "Status:") == "Open"
    assert token not in visitor.driver.page_source
    assert not visitor.scrolls_sideways


def test_a_limit_out_of_range_is_refused_and_a_good_one_stands_in_the_history(visitor: Visitor) -> None:
    # given the settings
    visitor.click("Family plan settings")
    assert visitor.driver.find_element(By.TAG_NAME, "h1").text == "Family plan settings"
    assert not visitor.scrolls_sideways

    # when the limit is out of range, the reason appears next to it and nothing changes
    visitor.fill(USER_LIMIT="101")
    visitor.click("Save")
    assert (
        visitor.find(".form-row.errors .errorlist").text == "Ensure this value is less than or equal to 100."
    )
    assert visitor.driver.find_element(By.NAME, "USER_LIMIT").get_attribute("value") == "101"
    assert PlanSettings.current().user_limit == 5

    # when it is in range, it takes effect
    visitor.fill(USER_LIMIT="6")
    visitor.click("Save")
    assert told(visitor) == ["Live settings updated successfully."]
    assert PlanSettings.current().user_limit == 6

    # then the history has only the good change, with its author
    visitor.click("History")
    [change] = rows_of(visitor, "#change-history")
    assert change.endswith("admin@example.com USER_LIMIT: 5 -> 6")
    assert not visitor.scrolls_sideways


def test_deliveries_are_chosen_by_their_outcome_and_read(visitor: Visitor, lena: ZammadUser) -> None:
    delivery_id = "0c6e6b0e-4f4b-4c8e-9d0c-2d5f7a1b3c4d"
    WebhookDelivery.objects.create(
        delivery_id=delivery_id, trigger="ticket created", outcome="APPLIED", zammad_user=lena
    )
    WebhookDelivery.objects.create(
        trigger="ticket updated", outcome="IGNORED", detail="The body is not JSON."
    )

    # when staff look for ignored deliveries
    visitor.click("Webhook deliveries")
    assert len(rows_of(visitor, "#result_list")) == 2
    assert not visitor.scrolls_sideways
    visitor.click("Ignored")

    # then the list shows the reason
    [row] = rows_of(visitor, "#result_list")
    assert row.endswith("Ignored The body is not JSON. - ticket updated")

    # and staff can read what was applied in full, but not change it
    visitor.click("Applied")
    visitor.click(visitor.driver.find_element(By.CSS_SELECTOR, "#result_list tbody a").text)
    assert value_of(visitor, "Delivery ID:") == delivery_id
    assert value_of(visitor, "Zammad user:") == "Lena Vogt (Zammad 57)"
    assert buttons(visitor) == ["Close"]
    assert not visitor.scrolls_sideways


def test_a_zammad_user_is_linked_to_a_person_and_unlinked(
    visitor: Visitor, lena: ZammadUser, plan: FamilyPlan, bob: User
) -> None:
    # given a Zammad user whose address matches nobody here
    visitor.click("Zammad users")
    assert rows_of(visitor, "#result_list") == ["57 Lena Vogt lena@acme.example - -"]
    assert not visitor.scrolls_sideways
    visitor.click("57")

    # when staff find the person by one letter of the address
    visitor.click("Link")
    visitor.find(".select2-selection").click()
    visitor.find(".select2-search__field").send_keys("b")  # one key, one search
    visitor.find(".select2-results__option:only-child", words="bob@example.com").click()
    assert not visitor.scrolls_sideways
    visitor.click("Link")

    # then the page shows whose plan it is
    assert told(visitor) == [f"Linked to user {bob.pk}."]
    assert value_of(visitor, "Person:") == "Bob Baker (bob@example.com)"
    assert value_of(visitor, "Plan:") == "The Archers (Member)"
    assert ZammadUser.objects.get().user == bob

    # when they undo it, it stays undone
    visitor.click("Unlink")
    assert "An equal address will not link this Zammad user again" in visitor.reads
    visitor.click("Unlink")
    assert told(visitor) == [f"Unlinked from user {bob.pk}."]
    unlinked = ZammadUser.objects.get()
    assert unlinked.user is None
    assert not unlinked.auto_link
    assert not visitor.scrolls_sideways
