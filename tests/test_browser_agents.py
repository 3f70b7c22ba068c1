"""An agent with a phone: from the link in Zammad through the sign-in page to the person and the plan."""

from collections.abc import Iterator

import pytest
from django.contrib.auth.models import User
from pytest_django.live_server_helper import LiveServer
from selenium.webdriver.common.by import By

from plans.models import FamilyPlan
from tests.browser import Visitor, visit
from tests.factories import PASSWORD, InviteFactory, ZammadUserFactory

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def visitor() -> Iterator[Visitor]:
    with visit(width=360, height=740) as visitor:
        yield visitor


def test_the_link_from_zammad_leads_to_the_plan_and_everything_there_is_within_reach(
    visitor: Visitor, live_server: LiveServer, superuser: User, plan: FamilyPlan, bob: User
) -> None:
    # given a member of staff who is signed out
    zammad_user = ZammadUserFactory(zammad_id=57, user=bob)
    InviteFactory(family_plan=plan, email="somebody.with.a.very.long.name@subsidiary.example.com")
    visitor.open(f"{live_server.url}/admin/zammad-user/57/")

    # when they sign in, they see the Zammad user
    visitor.fill(login=superuser.email, password=PASSWORD)
    visitor.click("Sign In")
    assert visitor.driver.current_url.endswith(f"/admin/zammad/zammaduser/{zammad_user.pk}/change/")
    assert "Bob Baker (bob@example.com)" in visitor.reads
    assert not visitor.scrolls_sideways

    # then the plan is one click away, and its rows fit the screen
    visitor.click("The Archers")
    assert visitor.driver.current_url.endswith(f"/admin/plans/familyplan/{plan.pk}/change/")
    cells = visitor.driver.find_elements(By.CSS_SELECTOR, ".inline-group td, .inline-group td a")
    assert {cell.text for cell in cells} >= {"Detach", "Make owner", "Reissue", "Revoke", "57"}
    assert all(visitor.reaches(cell) for cell in cells)
    assert not visitor.scrolls_sideways


def test_an_unknown_id_says_so_on_a_phone(visitor: Visitor, live_server: LiveServer, superuser: User) -> None:
    visitor.sign_in(live_server.url, superuser)

    visitor.open(f"{live_server.url}/admin/zammad-user/58/")

    assert "No user with the Zammad ID 58 is known here." in visitor.reads
    assert visitor.status == 404
    assert not visitor.scrolls_sideways
