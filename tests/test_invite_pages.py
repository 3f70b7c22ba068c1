"""The browser's way through an invite link: what it shows, and that only the button accepts."""

import html
import logging
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import constance
import pytest
from django.contrib.auth.models import User
from django.test import Client

from config.logs import LineFormatter
from plans.models import FamilyPlan, FamilyPlanInvite, Membership
from plans.services import accept_invite
from tests.factories import PASSWORD, InviteFactory, OwnerFactory, UserFactory
from tests.refusals import unchanged

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 8, 3, 12, tzinfo=UTC)
TOKEN = "Token-of_43-characters" + "t" * 21
PAGE = f"/invites/{TOKEN}/"


@pytest.fixture
def invite(plan: FamilyPlan, alice: User) -> FamilyPlanInvite:
    invite: FamilyPlanInvite = InviteFactory(family_plan=plan, created_by=alice, token=TOKEN)
    return invite


@pytest.fixture
def carols(client: Client, carol: User) -> Client:
    """The browser in which carol is signed in."""
    client.force_login(carol)
    return client


def text_of(response: Any) -> str:
    """Read what a page says, without its markup."""
    content = re.sub(r"<style>.*?</style>", "", response.content.decode(), flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", content)).split())


def assert_guarded(response: Any) -> None:
    """Check what is true of every response at an invite's URL: no cache keeps it, no Referer reveals it."""
    assert "no-store" in response["Cache-Control"]
    assert response["Referrer-Policy"] == "strict-origin"


# --- Signed out ----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["get", "head", "post"])
@pytest.mark.parametrize("page", [PAGE, "/invites/unknown/"])
def test_who_is_signed_out_signs_in_first(
    client: Client, invite: FamilyPlanInvite, method: str, page: str
) -> None:
    with unchanged():
        response = getattr(client, method)(page)

    assert response.status_code == HTTPStatus.FOUND
    assert response["Location"] == "/accounts/login/"
    assert_guarded(response)


def test_signing_in_leads_back_to_the_invite(client: Client, carol: User, invite: FamilyPlanInvite) -> None:
    signing_in = client.get(PAGE)["Location"]

    response = client.post(signing_in, {"login": carol.email, "password": PASSWORD})

    assert (response.status_code, response["Location"]) == (HTTPStatus.FOUND, PAGE)
    assert client.get(PAGE).status_code == HTTPStatus.OK


# --- The page --------------------------------------------------------------------------------------


def test_the_page_says_what_one_accepts_from_whom_and_as_whom(
    carols: Client, invite: FamilyPlanInvite
) -> None:
    FamilyPlanInvite.objects.filter(pk=invite.pk).update(expires_at=datetime(2099, 8, 5, 12, tzinfo=UTC))

    with unchanged():
        response = carols.get(PAGE)

    assert response.status_code == HTTPStatus.OK
    assert_guarded(response)
    said = text_of(response)
    assert "Join “The Archers”" in said
    assert "Alice Archer invites you to share this family plan." in said
    assert "You are signed in as Carol Carver (carol@example.com)." in said
    assert "The plan's owner will see this address." in said
    assert "Accept the invitation" in said
    assert "Use another account" in said
    assert "The invitation works until 5 August 2099, 12:00 UTC." in said


def test_names_are_text_never_markup(carols: Client, alice: User, invite: FamilyPlanInvite) -> None:
    FamilyPlan.objects.update(name="<script>alert('plan')</script>")
    User.objects.filter(pk=alice.pk).update(first_name="<img src=x onerror=alert(1)>", last_name="")

    page = carols.get(PAGE).content.decode()

    assert "<script" not in page
    assert "<img" not in page
    assert "&lt;script&gt;alert(&#x27;plan&#x27;)&lt;/script&gt;" in page
    carols.post(PAGE)
    assert "<script" not in carols.get("/invites/accepted/").content.decode()


@pytest.mark.parametrize("method", ["get", "head"])
def test_looking_accepts_nothing(carols: Client, invite: FamilyPlanInvite, method: str) -> None:
    with unchanged():
        assert getattr(carols, method)(PAGE).status_code == HTTPStatus.OK


@pytest.mark.parametrize("method", ["put", "patch", "delete", "options", "trace"])
def test_no_other_method_is_served(carols: Client, invite: FamilyPlanInvite, method: str) -> None:
    with unchanged():
        response = getattr(carols, method)(PAGE)

    assert response.status_code == HTTPStatus.METHOD_NOT_ALLOWED
    assert response["Allow"] == "GET, HEAD, POST"


# --- The button --------------------------------------------------------------------------------------


def test_the_button_accepts_and_leads_on(
    carols: Client, carol: User, plan: FamilyPlan, invite: FamilyPlanInvite
) -> None:
    response = carols.post(PAGE)

    assert (response.status_code, response["Location"]) == (HTTPStatus.FOUND, "/invites/accepted/")
    assert_guarded(response)
    assert Membership.objects.get(user=carol).family_plan == plan
    assert "You are in “The Archers”" in text_of(carols.get("/invites/accepted/"))


@pytest.mark.parametrize("page", ["/welcome?a=b", "https://app.example.com/welcome"])
def test_staff_choose_where_the_button_leads(carols: Client, invite: FamilyPlanInvite, page: str) -> None:
    constance.config.INVITE_ACCEPTED_URL = page

    assert carols.post(PAGE)["Location"] == page
    assert carols.get(PAGE)["Location"] == page


@pytest.mark.parametrize(
    "page", ["javascript:alert(1)", "//evil.example", "\\\\evil.example", "/\\evil.example"]
)
def test_a_hostile_setting_leads_nobody_away(carols: Client, invite: FamilyPlanInvite, page: str) -> None:
    constance.config.INVITE_ACCEPTED_URL = page

    assert carols.post(PAGE)["Location"] == "/invites/accepted/"


def test_a_button_on_another_site_accepts_nothing(carol: User, invite: FamilyPlanInvite) -> None:
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(carol)

    with unchanged():
        assert browser.post(PAGE).status_code == HTTPStatus.FORBIDDEN
        assert browser.post(PAGE, {"csrfmiddlewaretoken": "x" * 64}).status_code == HTTPStatus.FORBIDDEN

    # and the button of our own page works
    form = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', browser.get(PAGE).content.decode())
    assert form is not None
    response = browser.post(PAGE, {"csrfmiddlewaretoken": form[1]})
    assert response.status_code == HTTPStatus.FOUND
    assert Membership.objects.filter(user=carol).exists()


@pytest.mark.parametrize("method", ["get", "head", "post"])
def test_ones_own_used_invite_leads_where_success_does(
    carols: Client, carol: User, invite: FamilyPlanInvite, method: str
) -> None:
    accept_invite(actor=carol, token=TOKEN)
    FamilyPlanInvite.objects.filter(pk=invite.pk).update(expires_at=NOON - timedelta(days=900))

    with unchanged():
        response = getattr(carols, method)(PAGE)

    assert (response.status_code, response["Location"]) == (HTTPStatus.FOUND, "/invites/accepted/")


# --- Refusals: GET returns the status of its POST --------------------------------------------------------


def used_by_another(invite: FamilyPlanInvite, carol: User) -> None:
    invite.user = UserFactory()
    invite.save()


def expired(invite: FamilyPlanInvite, carol: User) -> None:
    invite.expires_at = NOON - timedelta(days=900)
    invite.save()


def for_another_address(invite: FamilyPlanInvite, carol: User) -> None:
    invite.email = "another@example.com"
    invite.save()


def in_a_plan_already(invite: FamilyPlanInvite, carol: User) -> None:
    OwnerFactory(user=carol)


def full(invite: FamilyPlanInvite, carol: User) -> None:
    constance.config.USER_LIMIT = 2


def replaced(invite: FamilyPlanInvite, carol: User) -> None:
    invite.token_digest = "0" * 64
    invite.save()


@pytest.mark.parametrize(
    ("spoil", "status", "reason", "advice"),
    [
        (replaced, HTTPStatus.NOT_FOUND, "There is no such invite.", "Check that the link is complete"),
        (expired, HTTPStatus.GONE, "This invite has expired.", "owner can send you a new one"),
        (
            used_by_another,
            HTTPStatus.CONFLICT,
            "This invite has already been used.",
            "owner can send you a new one",
        ),
        (
            for_another_address,
            HTTPStatus.CONFLICT,
            "This invite is for another address.",
            "You are signed in as carol@example.com. Use another account",
        ),
        (
            in_a_plan_already,
            HTTPStatus.CONFLICT,
            "This person is already in a plan.",
            "leave yours first, or use another account. Use another account",
        ),
        (
            full,
            HTTPStatus.CONFLICT,
            "Every seat of this plan is taken.",
            "Ask the plan's owner to free a seat",
        ),
    ],
)
def test_a_refusal_says_why_and_what_to_do(
    carols: Client,
    carol: User,
    invite: FamilyPlanInvite,
    spoil: Callable[[FamilyPlanInvite, User], None],
    status: HTTPStatus,
    reason: str,
    advice: str,
) -> None:
    spoil(invite, carol)

    with unchanged():
        got, headed, posted = carols.get(PAGE), carols.head(PAGE), carols.post(PAGE)

    assert (got.status_code, headed.status_code, posted.status_code) == (status, status, status)
    for response in (got, posted):
        assert_guarded(response)
        assert reason in text_of(response)
        assert advice in text_of(response)
        assert "Accept the invitation" not in text_of(response)
        assert "another@example.com" not in text_of(response)


def test_an_odd_token_is_unknown(carols: Client, invite: FamilyPlanInvite) -> None:
    for token in ("x", TOKEN + "t", quote("<script>"), quote("nul\0"), "%FF", "%ED%A0%80", "t" * 2000):
        response = carols.get(f"/invites/{token}/")
        assert response.status_code == HTTPStatus.NOT_FOUND
        assert b"<script" not in response.content


# --- Another account -----------------------------------------------------------------------------------


def test_using_another_account_leads_through_sign_in_and_back(
    carols: Client, invite: FamilyPlanInvite
) -> None:
    page = carols.get(PAGE).content.decode()
    assert '<form method="post" action="/accounts/logout/">' in page
    dave = UserFactory(email="dave@example.com")

    left = carols.post("/accounts/logout/", follow=True)
    assert left.redirect_chain == [("/accounts/login/", HTTPStatus.FOUND)]
    back = carols.post("/accounts/login/", {"login": dave.email, "password": PASSWORD}, follow=True)

    assert back.redirect_chain == [(PAGE, HTTPStatus.FOUND)]
    assert "You are signed in as" in text_of(back)
    assert "dave@example.com" in text_of(back)


# --- The page after -------------------------------------------------------------------------------------


def test_the_page_after_tells_in_which_plan_one_is(
    client: Client, plan: FamilyPlan, bob: User, carol: User
) -> None:
    said = "You are not in a family plan"
    assert said in text_of(client.get("/invites/accepted/"))
    client.force_login(carol)
    assert said in text_of(client.get("/invites/accepted/"))
    client.force_login(bob)
    assert "You are in “The Archers”" in text_of(client.get("/invites/accepted/"))
    assert client.post("/invites/accepted/").status_code == HTTPStatus.METHOD_NOT_ALLOWED


# --- Logs ------------------------------------------------------------------------------------------------


def test_no_token_reaches_a_log(
    client: Client, carol: User, invite: FamilyPlanInvite, caplog: pytest.LogCaptureFixture
) -> None:
    # given the handlers' own formatter: Django names the path of what it refused
    caplog.set_level(logging.DEBUG)
    caplog.handler.setFormatter(LineFormatter(as_json=False))

    client.get(client.get(PAGE)["Location"])
    client.force_login(carol)
    client.get(PAGE)
    Client(enforce_csrf_checks=True).post(PAGE)
    client.put(PAGE)
    client.post(PAGE)
    FamilyPlanInvite.objects.filter(pk=invite.pk).update(token_digest="0" * 64)
    assert client.get(PAGE).status_code == HTTPStatus.NOT_FOUND

    assert "Forbidden" in caplog.text
    assert "path=/invites/***/" in caplog.text
    assert TOKEN not in caplog.text
