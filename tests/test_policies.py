"""Content-Security-Policy and Permissions-Policy: on every response, strict, and pages work under them."""

import base64
import hashlib
import re
from http import HTTPStatus
from typing import Any

import constance
import pytest
from django.contrib.auth.models import User
from django.test import Client
from pytest_django import Settings

from config.policies import source_of
from graphql_api import graphiql
from plans.models import FamilyPlan
from tests.factories import PASSWORD, InviteFactory

pytestmark = pytest.mark.django_db

TOKEN = "Token-of_43-characters" + "t" * 21
PAGE = f"/invites/{TOKEN}/"
STRICT = {
    "default-src": ["'none'"],
    "script-src": ["'self'"],
    "style-src": ["'self'"],
    "img-src": ["'self'", "data:"],
    "font-src": ["'self'"],
    "connect-src": ["'self'"],
    "form-action": ["'self'"],
    "frame-ancestors": ["'none'"],
    "base-uri": ["'none'"],
}


def policy_of(response: Any) -> dict[str, list[str]]:
    directives = [part.split() for part in response["Content-Security-Policy"].split(";")]
    assert len({directive for directive, *_ in directives}) == len(directives)
    return {directive: sources for directive, *sources in directives}


# --- Everywhere ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 200),
        ("/accounts/login/", 200),
        ("/accounts/login", 301),
        ("/accounts/password/reset/", 200),
        ("/admin/", 302),
        ("/nothing-here/", 404),
        ("/healthz", 200),
        ("/readyz", 200),
        ("/metrics", 404),
        ("/webhooks/zammad/", 405),
        ("/_allauth/app/v1/config", 200),
        ("/static/plans/pages.css", 200),
        ("/static/nothing.css", 404),
    ],
)
def test_every_answer_carries_the_strict_policy(client: Client, path: str, status: int) -> None:
    response = client.get(path)
    response.close()  # a file is open until then

    assert response.status_code == status
    assert policy_of(response) == STRICT
    assert {"camera=()", "geolocation=()", "payment=()", "usb=()"} <= set(
        response["Permissions-Policy"].split(", ")
    )


def test_a_refused_host_and_an_error_of_ours_carry_it_too(
    client: Client, monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    settings.ALLOWED_HOSTS = ["plans.example.com"]
    assert client.get("/", headers={"host": "evil.example"}).status_code == HTTPStatus.BAD_REQUEST
    assert policy_of(client.get("/", headers={"host": "evil.example"})) == STRICT

    settings.ALLOWED_HOSTS = ["testserver"]
    monkeypatch.setattr("config.views.render", lambda *_: 1 / 0)
    client.raise_request_exception = False
    broken = client.get("/")
    assert broken.status_code == HTTPStatus.INTERNAL_SERVER_ERROR
    assert policy_of(broken) == STRICT
    assert "/static/plans/pages.css" in broken.content.decode()


def test_no_page_of_ours_holds_a_script_or_a_style(client: Client, superuser: User, plan: FamilyPlan) -> None:
    signed_out = ("/accounts/login/", "/accounts/signup/", "/accounts/password/reset/", "/nothing-here/")
    pages = [client.get(path) for path in signed_out]
    client.force_login(superuser)
    signed_in = (
        "/",
        "/accounts/email/",
        "/accounts/password/change/",
        "/accounts/logout/",
        "/admin/",
        "/admin/plans/config/",
        "/admin/plans/config/history/",
        "/admin/plans/familyplan/",
        f"/admin/plans/familyplan/{plan.pk}/change/",
        f"/admin/plans/familyplan/{plan.pk}/history/",
        "/admin/plans/familyplaninvite/",
        "/admin/zammad/zammaduser/",
        "/admin/zammad/webhookdelivery/",
        "/admin/auth/user/",
        f"/admin/auth/user/{superuser.pk}/change/",
        "/admin/auth/group/add/",
    )
    pages += [client.get(path) for path in signed_in]

    for response in pages:
        path, html = response.request["PATH_INFO"], response.content.decode()
        assert response.status_code in {200, 404}, path
        assert policy_of(response) == STRICT, path
        assert not re.search(r"<style|<[^>]*\s(?:style|on[a-z]+)=", html), path
        # A script within the page is data, otherwise it is a file.
        for attributes in re.findall(r"<script([^>]*)>", html):
            assert "src=" in attributes or 'type="application/json"' in attributes, path


# --- Where forms may lead ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("page", "source"),
    [
        ("/welcome", ""),
        ("https://app.example.com/welcome?a=b;c", "https://app.example.com"),
        ("http://app.example.com:8080/", "http://app.example.com:8080"),
        ("https://APP.example.com", "https://app.example.com"),
        ("https://user:secret@app.example.com/", "https://app.example.com"),
        ("https://münchen.example/", "https://xn--mnchen-3ya.example"),
        ("https://[::1]:8000/", "https:"),
    ],
)
def test_the_origin_of_a_page_is_named_as_policies_name_it(page: str, source: str) -> None:
    assert source_of(page) == source


def test_the_page_after_an_invite_is_a_target_of_every_form_on_the_way_there(
    client: Client, carol: User, plan: FamilyPlan
) -> None:
    InviteFactory(family_plan=plan, token=TOKEN)
    constance.config.INVITE_ACCEPTED_URL = "https://app.example.com/welcome"
    widened = {**STRICT, "form-action": ["'self'", "https://app.example.com"]}

    assert policy_of(client.get("/accounts/login/")) == STRICT  # nobody is on the way to an invite
    client.get(PAGE)
    for path in ("/accounts/login/", "/accounts/signup/", "/accounts/password/reset/"):
        assert policy_of(client.get(path)) == widened, path
    refused = client.post("/accounts/login/", {"login": carol.email, "password": "wrong"})
    assert policy_of(refused) == widened
    client.post("/accounts/login/", {"login": carol.email, "password": PASSWORD})
    assert policy_of(client.get(PAGE)) == widened
    client.post(PAGE)
    assert policy_of(client.get("/accounts/logout/")) == STRICT  # it is over


# --- GraphiQL ---------------------------------------------------------------------------------------


def test_graphiql_may_load_the_files_that_it_names_and_nothing_else(client: Client, superuser: User) -> None:
    client.force_login(superuser)

    response = client.get("/graphql/", headers={"accept": "text/html"})

    html = response.content.decode()
    policy = policy_of(response)
    [inline] = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
    scripts = [source for source in policy["script-src"] if source.startswith("https:")]
    assert policy["script-src"] == [*scripts, f"'sha256-{digest}'"]
    assert len(scripts) == html.count("<script\n") == 5
    named = [*scripts, *(source for source in policy["style-src"] if source.startswith("https:"))]
    assert sorted(named) == sorted(re.findall(r'"(https://unpkg\.com/[^"]+)"', html))
    assert all(re.fullmatch(r"https://unpkg\.com/.+@[\d.]+/.+\.(?:js|css)", source) for source in named)
    assert policy["default-src"] == ["'none'"]
    assert policy["connect-src"] == ["'self'"]
    assert "unsafe" not in response["Content-Security-Policy"]


def test_graphiql_reads_the_csrf_cookie_by_the_name_that_settings_give_it(settings: Settings) -> None:
    settings.CSRF_COOKIE_NAME = "__Host-csrftoken"
    graphiql.page.cache_clear()
    try:
        assert 'Cookies.get("__Host-csrftoken")' in graphiql.page()
        assert '"csrftoken"' not in graphiql.page()
    finally:
        graphiql.page.cache_clear()
