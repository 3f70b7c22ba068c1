"""The way back to an invite: through every way to sign in, with its token in no other place."""

import re
from collections.abc import Callable
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import pytest
import time_machine
from allauth.account.models import EmailAddress
from django.conf import settings
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.core import mail
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings

from config import way_back
from plans.models import FamilyPlan, FamilyPlanInvite, Membership
from tests.factories import PASSWORD, InviteFactory, UserFactory
from tests.refusals import unchanged

pytestmark = pytest.mark.django_db

TOKEN = "Token-of_43-characters" + "t" * 21
PAGE = f"/invites/{TOKEN}/"
COOKIE = settings.WAY_BACK_COOKIE_NAME
LOGIN = "/accounts/login/"


@pytest.fixture
def invite(plan: FamilyPlan, alice: User) -> FamilyPlanInvite:
    invite: FamilyPlanInvite = InviteFactory(family_plan=plan, created_by=alice, token=TOKEN)
    return invite


class Browser(Client):
    """A browser that checks every response: only the invite's own URL repeats the token."""

    def request(self, **request: Any) -> Any:
        sent = self.sealed
        response = super().request(**request)
        seen = [response.content.decode(), *(f"{name}: {value}" for name, value in response.items())]
        seen += [cookie.OutputString() for cookie in self.cookies.values()]
        seen = [text.replace(f"Location: {PAGE}", "").replace(f"Location: {PAGE[:-1]}", "") for text in seen]
        assert not [text for text in seen if TOKEN[:40] in text]
        for session in Session.objects.all():
            assert TOKEN[:40] not in str(session.get_decoded())
            for sealed in filter(None, (sent, self.sealed)):
                assert sealed not in str(session.get_decoded())
        return response

    @property
    def sealed(self) -> str:
        return self.cookies[COOKIE].value if COOKIE in self.cookies else ""


@pytest.fixture
def browser() -> Browser:
    return Browser()


def code_in_the_last_mail() -> str:
    found = re.search(r"^([A-Z0-9]{3,}-?[A-Z0-9]+)$", str(mail.outbox[-1].body), re.MULTILINE)
    assert found, "The mail holds no code."
    return found[1]


def sign_in(browser: Browser, email: str) -> Any:
    return browser.post(LOGIN, {"login": email, "password": PASSWORD})


# --- Every way to sign in ---------------------------------------------------------------------------


def test_signing_in_leads_back(browser: Browser, invite: FamilyPlanInvite, carol: User) -> None:
    assert browser.get(PAGE)["Location"] == LOGIN
    browser.get(LOGIN)
    assert browser.post(LOGIN, {"login": carol.email, "password": "wrong"}).status_code == HTTPStatus.OK

    assert sign_in(browser, carol.email)["Location"] == PAGE
    assert browser.get(PAGE).status_code == HTTPStatus.OK


def test_signing_up_leads_back(browser: Browser, invite: FamilyPlanInvite) -> None:
    browser.get(PAGE)
    signing_up = re.search(r'href="(/accounts/signup/[^"]*)"', browser.get(LOGIN).content.decode())
    assert signing_up
    assert signing_up[1] == "/accounts/signup/"
    form = {"email": "newcomer@example.com", "password1": PASSWORD, "password2": PASSWORD}
    confirm = browser.post(signing_up[1], form)["Location"]
    browser.get(confirm)
    browser.post(confirm, {"code": "AAA-AAA"})
    browser.post(confirm, {"action": "resend"})

    assert browser.post(confirm, {"code": code_in_the_last_mail()})["Location"] == PAGE


def test_an_address_that_is_verified_on_the_way_leads_back(
    browser: Browser, invite: FamilyPlanInvite, carol: User
) -> None:
    EmailAddress.objects.filter(user=carol).update(verified=False)
    browser.get(PAGE)
    confirm = sign_in(browser, carol.email)["Location"]

    assert browser.post(confirm, {"code": code_in_the_last_mail()})["Location"] == PAGE


def test_a_reset_of_the_password_leads_back(browser: Browser, invite: FamilyPlanInvite, carol: User) -> None:
    browser.get(PAGE)
    confirm = browser.post("/accounts/password/reset/", {"email": carol.email})["Location"]
    browser.get(confirm)
    complete = browser.post(confirm, {"code": code_in_the_last_mail()})["Location"]
    browser.get(complete)
    chosen = "brand-new-password"
    done = browser.post(complete, {"password1": chosen, "password2": chosen}, follow=True)
    assert done.status_code == HTTPStatus.OK

    back = browser.post(LOGIN, {"login": carol.email, "password": chosen})
    assert back["Location"] == PAGE


@pytest.mark.parametrize("came_signed_out", [True, False])
def test_another_account_leads_back(
    browser: Browser, invite: FamilyPlanInvite, carol: User, *, came_signed_out: bool
) -> None:
    # given carol at the invite
    if came_signed_out:
        browser.get(PAGE)
        assert sign_in(browser, carol.email)["Location"] == PAGE
    else:
        browser.force_login(carol)
    assert "Use another account" in browser.get(PAGE).content.decode()

    # when she leaves, and dave signs in
    assert browser.post("/accounts/logout/")["Location"] == LOGIN
    dave = UserFactory(email="dave@example.com")

    # then he is at the invite
    assert sign_in(browser, dave.email)["Location"] == PAGE


def test_who_is_signed_in_already_goes_back_from_the_sign_in_page(
    browser: Browser, invite: FamilyPlanInvite, carol: User
) -> None:
    browser.get(PAGE)
    browser.force_login(carol)

    assert browser.get(LOGIN)["Location"] == PAGE


def test_a_page_that_is_asked_for_wins(browser: Browser, invite: FamilyPlanInvite, superuser: User) -> None:
    browser.get(PAGE)
    sent = browser.get("/admin/", follow=True)
    assert sent.redirect_chain[-1][0] == f"{LOGIN}?next=%2Fadmin%2F"

    back = browser.post(LOGIN, {"login": superuser.email, "password": PASSWORD, "next": "/admin/"})

    assert back["Location"] == "/admin/"


# --- A way back written by hand -----------------------------------------------------------------------

SPELLINGS: list[Callable[[str], str]] = [
    lambda page: page,
    lambda page: page.rstrip("/"),
    lambda page: f"{page}?utm_source=mail#top",
    lambda page: quote(page, safe=""),
    lambda page: quote(quote(quote(page, safe=""), safe=""), safe=""),
    lambda page: f"http://testserver{page}",
    lambda page: f"https://evil.example{page}",
    lambda page: f"{LOGIN}?next={quote(page)}",
    lambda page: page.replace("/", "\\"),
    lambda page: page.replace("inv", "in\tv"),
    lambda page: page.removeprefix("/"),
    lambda page: page.replace("invites/", "invites//"),
]


@pytest.mark.parametrize("spell", SPELLINGS)
@pytest.mark.parametrize(
    "door",
    [LOGIN, "/accounts/login", "/accounts/signup/", "/accounts/password/reset/", "/admin/login/", "/x/"],
)
def test_a_next_in_an_address_is_moved_and_never_repeated(
    browser: Browser, invite: FamilyPlanInvite, carol: User, door: str, spell: Callable[[str], str]
) -> None:
    moved = browser.get(door, {"next": spell(PAGE), "lang": "de"})

    assert (moved.status_code, moved["Location"]) == (HTTPStatus.FOUND, f"{door}?lang=de")
    assert "no-store" in moved["Cache-Control"]
    browser.get(moved["Location"], follow=True)
    assert sign_in(browser, carol.email)["Location"] == PAGE


@pytest.mark.parametrize("spell", SPELLINGS)
def test_a_next_in_a_form_is_moved_and_never_repeated(
    browser: Browser, invite: FamilyPlanInvite, carol: User, spell: Callable[[str], str]
) -> None:
    form = {"login": carol.email, "next": spell(PAGE)}
    refused = browser.post(f"{LOGIN}?next={quote(spell(PAGE))}", {**form, "password": "wrong"})
    assert refused.status_code == HTTPStatus.OK
    assert browser.sealed

    back = Browser().post(LOGIN, {**form, "password": PASSWORD})

    assert back["Location"] == PAGE


def test_a_next_to_anywhere_else_stays_what_it_was(browser: Browser, carol: User) -> None:
    for page in ("/invites/accepted/", "/accounts/email/", "/graphql/"):
        assert f'value="{page}"' in browser.get(LOGIN, {"next": page}).content.decode()
        assert not browser.sealed
    back = browser.post(LOGIN, {"login": carol.email, "password": PASSWORD, "next": "https://evil.example/"})
    assert back["Location"] == "/"


def test_a_suspended_request_takes_nothing_of_it_into_the_session(
    browser: Browser, invite: FamilyPlanInvite, carol: User, settings: Settings
) -> None:
    # given a person on the way to an invite who must give their password again first
    settings.ACCOUNT_REAUTHENTICATION_REQUIRED = True
    browser.get(PAGE)
    browser.force_login(carol)

    # when allauth stores their request, headers included
    asked = browser.post(
        "/accounts/email/?next=" + PAGE,
        {"email": "second@example.com", "action_add": "", "next": PAGE},
        headers={"referer": f"http://testserver{PAGE}"},
    )

    # then it did, and this test's browser checks what it stored
    assert asked["Location"].startswith("/accounts/reauthenticate/")
    assert "account_reauthentication_state" in browser.session


# --- The cookie ---------------------------------------------------------------------------------------


def test_the_cookie_is_sealed_and_for_our_server_alone(browser: Browser, invite: FamilyPlanInvite) -> None:
    browser.get(PAGE)

    cookie = browser.cookies[COOKIE]
    assert (cookie["httponly"], cookie["samesite"], cookie["path"]) == (True, "Lax", "/")
    assert (cookie["domain"], cookie["max-age"]) == ("", 3600)
    assert way_back.decrypt(cookie.value) == TOKEN


def test_it_lasts_an_hour(browser: Browser, invite: FamilyPlanInvite, carol: User) -> None:
    with time_machine.travel("2026-08-03T08:00:00Z", tick=False) as clock:
        browser.get(PAGE)
        sealed = browser.sealed
        clock.shift(3600)
        assert way_back.decrypt(sealed) == TOKEN
        clock.shift(1)
        assert way_back.decrypt(sealed) == ""


@pytest.mark.parametrize("value", ["", "forged", "/invites/x/", "gAAAAA", "ü", "a" * 4000])
def test_a_forged_one_leads_nowhere(browser: Browser, carol: User, value: str) -> None:
    browser.cookies[COOKIE] = value

    assert sign_in(browser, carol.email)["Location"] == "/"


def test_another_key_reads_nothing_in_it(browser: Browser, carol: User, settings: Settings) -> None:
    browser.get(PAGE)
    settings.SECRET_KEY = "another-" * 8

    assert sign_in(browser, carol.email)["Location"] == "/"


def test_nothing_but_a_page_of_ours_can_come_of_it(browser: Browser, carol: User) -> None:
    sealed = way_back.cipher().encrypt(b"//evil.example/?<script>").decode()
    browser.cookies[COOKIE] = sealed

    assert sign_in(browser, carol.email)["Location"] == "/"


def test_a_token_that_is_too_long_is_not_kept(browser: Browser) -> None:
    assert browser.get(f"/invites/{'t' * 2000}/")["Location"] == LOGIN
    assert not browser.sealed


# --- Until it is over -----------------------------------------------------------------------------------


def test_accepting_ends_it(browser: Browser, invite: FamilyPlanInvite, carol: User) -> None:
    browser.force_login(carol)
    browser.get(PAGE)
    assert browser.sealed

    assert browser.post(PAGE)["Location"] == "/invites/accepted/"

    assert Membership.objects.filter(user=carol).exists()
    assert not browser.sealed
    browser.post("/accounts/logout/")
    assert sign_in(browser, carol.email)["Location"] == "/"


@pytest.mark.parametrize("gone", [{"token_digest": "0" * 64}, {"expires_at": "2020-01-01T00:00Z"}])
def test_an_invite_that_is_none_any_more_ends_it(
    browser: Browser, invite: FamilyPlanInvite, carol: User, gone: dict[str, str]
) -> None:
    browser.get(PAGE)
    FamilyPlanInvite.objects.filter(pk=invite.pk).update(**gone)
    assert sign_in(browser, carol.email)["Location"] == PAGE
    assert browser.sealed

    assert browser.get(PAGE).status_code in {HTTPStatus.NOT_FOUND, HTTPStatus.GONE}

    assert not browser.sealed


def test_the_page_of_another_invite_ends_nothing(
    browser: Browser, invite: FamilyPlanInvite, carol: User
) -> None:
    browser.force_login(carol)
    browser.get(PAGE)
    sealed = browser.sealed

    assert browser.get("/invites/unknown/").status_code == HTTPStatus.NOT_FOUND

    assert browser.sealed == sealed


# --- No row ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["get", "head"])
def test_looking_at_an_invite_signed_out_writes_and_asks_nothing(
    browser: Browser, invite: FamilyPlanInvite, method: str
) -> None:
    # Not with this test's browser, which reads the sessions.
    stranger = Client()
    with unchanged(), CaptureQueriesContext(connection) as captured:
        assert getattr(stranger, method)(PAGE).status_code == HTTPStatus.FOUND
        assert stranger.get(LOGIN).status_code == HTTPStatus.OK

    assert [query["sql"] for query in captured if not query["sql"].startswith("SELECT")] == []
    assert not Session.objects.exists()
    assert set(stranger.cookies) == {COOKIE, settings.CSRF_COOKIE_NAME}
