"""A person's way through a real browser: the link, the sign-in page, the button, the page after it."""

import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import constance
import pytest
from django.contrib.auth.models import User
from django.core import mail
from pytest_django import Settings
from pytest_django.live_server_helper import LiveServer

from plans import services
from plans.models import FamilyPlan, Membership
from tests.browser import Visitor, visit
from tests.factories import PASSWORD
from zammad.sandbox import Sandbox

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def visitor() -> Iterator[Visitor]:
    with visit(width=360, height=740) as visitor:
        yield visitor


@pytest.fixture
def invite_url(
    live_server: LiveServer, settings: Settings, sandbox: Sandbox, alice: User, plan: FamilyPlan
) -> str:
    settings.PUBLIC_URL = live_server.url
    return services.create_invite(actor=alice, plan_id=plan.pk).url


class Welcome(BaseHTTPRequestHandler):
    """A company's own page, on another site."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><main>Welcome to the company</main>")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def elsewhere() -> Iterator[str]:
    """Serve a page on another origin, whose URL staff chose for people who have accepted."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Welcome) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        page = f"http://127.0.0.1:{server.server_port}/welcome?from=plans"
        constance.config.INVITE_ACCEPTED_URL = page
        yield page
        server.shutdown()
        thread.join()


def test_a_person_with_an_account_follows_the_link_signs_in_and_accepts(
    visitor: Visitor, live_server: LiveServer, invite_url: str, plan: FamilyPlan, carol: User
) -> None:
    # given the link, which leads to the sign-in page
    visitor.open(invite_url)
    assert visitor.driver.current_url == f"{live_server.url}/accounts/login/"
    assert not visitor.scrolls_sideways

    # when she signs in, she is back at the invite, and nothing has happened yet
    visitor.fill(login=carol.email, password=PASSWORD)
    visitor.click("Sign In")
    assert visitor.driver.current_url == invite_url
    assert "The Archers" in visitor.reads
    assert "carol@example.com" in visitor.reads
    assert not visitor.scrolls_sideways
    assert not Membership.objects.filter(user=carol).exists()

    # then the button takes the seat, and she is sent on
    visitor.click("Accept the invitation")
    assert visitor.driver.current_url == f"{live_server.url}/invites/accepted/"
    assert "The Archers" in visitor.reads
    assert Membership.objects.get(user=carol).family_plan == plan


def test_a_newcomer_signs_up_on_the_way_and_comes_back_to_the_invite(
    visitor: Visitor, live_server: LiveServer, invite_url: str, plan: FamilyPlan
) -> None:
    # given a person without an account
    visitor.open(invite_url)
    visitor.click("sign up")
    visitor.fill(email="newcomer@example.com", password1=PASSWORD, password2=PASSWORD)
    visitor.click("Sign Up")

    # when they enter the code from the mail
    code = re.search(r"^[A-Z0-9]{3,}-?[A-Z0-9]+$", str(mail.outbox[-1].body), re.MULTILINE)
    assert code
    visitor.fill(code=code[0])
    visitor.click("Confirm")

    # then they see the invite, and its button works
    assert visitor.driver.current_url == invite_url
    visitor.click("Accept the invitation")
    assert visitor.driver.current_url == f"{live_server.url}/invites/accepted/"
    assert Membership.objects.get(user__email="newcomer@example.com").family_plan == plan


def test_somebody_signed_in_as_another_changes_the_account_and_comes_back(
    visitor: Visitor, live_server: LiveServer, invite_url: str, bob: User, carol: User
) -> None:
    # given bob at the browser, already in the plan
    visitor.open(f"{live_server.url}/accounts/login/")
    visitor.fill(login=bob.email, password=PASSWORD)
    visitor.click("Sign In")
    visitor.open(invite_url)
    assert "bob@example.com" in visitor.reads

    # when carol takes over
    visitor.click("Use another account")
    visitor.fill(login=carol.email, password=PASSWORD)
    visitor.click("Sign In")

    # then she is at the invite
    assert visitor.driver.current_url == invite_url
    assert "carol@example.com" in visitor.reads


def test_the_button_leads_to_a_page_on_another_origin(
    visitor: Visitor, live_server: LiveServer, invite_url: str, elsewhere: str, carol: User
) -> None:
    # given carol at the invite
    visitor.open(invite_url)
    visitor.fill(login=carol.email, password=PASSWORD)
    visitor.click("Sign In")

    # when she accepts, then Chromium follows the redirect after the button
    visitor.click("Accept the invitation")
    assert visitor.driver.current_url == elsewhere
    assert visitor.reads == "Welcome to the company"

    # and when she opens the link again later, the one after her sign-in, too
    visitor.open(f"{live_server.url}/accounts/logout/")
    visitor.click("Sign Out")
    visitor.open(invite_url)
    visitor.fill(login=carol.email, password=PASSWORD)
    visitor.click("Sign In")
    assert visitor.driver.current_url == elsewhere
    assert visitor.complaints() == []


def test_a_form_may_lead_to_no_origin_that_staff_did_not_choose(
    visitor: Visitor, live_server: LiveServer, invite_url: str, elsewhere: str, carol: User
) -> None:
    visitor.sign_in(live_server.url, carol)
    visitor.open(f"{live_server.url}/accounts/password/change/")

    visitor.driver.execute_script(f"document.forms[0].action = {elsewhere!r}; document.forms[0].submit()")

    assert any("form-action 'self'" in refused for refused in visitor.complaints())
    assert visitor.driver.current_url.startswith(live_server.url)
