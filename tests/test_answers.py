"""Every response has the form that the client speaks, and no odd input is an internal error."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import User
from django.http import Http404
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver
from hypothesis import HealthCheck, given
from hypothesis import settings as effort
from hypothesis import strategies as st
from pytest_django import Settings

from config.answers import check_json
from tests.factories import UserFactory

pytestmark = pytest.mark.django_db

LOGIN = "/_allauth/app/v1/auth/login"


def endpoints(patterns: list[Any] | None = None, prefix: str = "/") -> list[str]:
    """List the URLs of allauth's API."""
    found = []
    for pattern in patterns or get_resolver().url_patterns:
        path = f"{prefix}{pattern.pattern}"
        if isinstance(pattern, URLResolver):
            found += endpoints(pattern.url_patterns, path)
        elif isinstance(pattern, URLPattern):
            found.append(path)
    return [path for path in found if path.startswith("/_allauth/")]


@pytest.fixture
def anybody() -> Client:
    """A client that returns a failure as a response."""
    return Client(raise_request_exception=False)


def send(client: Client, path: str, body: bytes, method: str = "POST") -> Any:
    return client.generic(method, path, body, content_type="application/json")


def check(answer: Any, *statuses: int) -> dict[str, Any]:
    """Check that a refusal is JSON that explains itself, to programs and to people."""
    assert answer.status_code in statuses
    assert answer.headers["Content-Type"] == "application/json"
    told: dict[str, Any] = json.loads(answer.content)
    assert told["status"] == answer.status_code
    assert all(error["code"] and error["message"] for error in told["errors"])
    assert told["errors"]
    return told


ODD = {
    "no JSON": b"{",
    "no object": b"[]",
    "no UTF-8": b'{"email": "\xff"}',
    "a lone surrogate": b'{"email": "dana@example.com", "password": "\\ud800"}',
    "a lone surrogate in a name": b'{"\\udfff": 1}',
    "NUL": b'{"email": "dana@example.com", "password": "a\\u0000b"}',
    "20,000 brackets": b'{"email": ' + b"[" * 20_000 + b"]" * 20_000 + b"}",
    "20,000 braces": b'{"email":' * 20_000 + b"1" + b"}" * 20_000,
    "900 brackets": b'{"email": ' + b"[" * 900 + b"]" * 900 + b"}",
    "5,000 digits": b'{"email": ' + b"9" * 5_000 + b"}",
}


@pytest.mark.parametrize("body", ODD.values(), ids=ODD.keys())
@pytest.mark.parametrize("path", endpoints())
def test_a_body_that_no_form_takes_is_a_bad_request_everywhere(
    anybody: Client, path: str, body: bytes
) -> None:
    check(send(anybody, path, body), 400)


def test_what_a_form_takes_is_left_to_it() -> None:
    check_json(b"")
    check_json('{"email": "dänä@example.com", "x": [1, 2.5, null, true, {"y": {"z": ["😀"]}}]}'.encode())


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=50),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(["email", "password", "key", "username", "phone", "new_password", "primary", "x"])


@effort(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None
)
@given(
    path=st.sampled_from(endpoints()),
    method=st.sampled_from(["POST", "PUT", "PATCH", "DELETE"]),
    body=st.dictionaries(NAMES, JSON_VALUES, max_size=4),
)
def test_whatever_is_sent_to_the_api_is_answered_in_json(
    anybody: Client, path: str, method: str, body: dict[str, Any]
) -> None:
    answer = send(anybody, path, json.dumps(body).encode(), method)

    assert answer.status_code < 500
    assert answer.headers["Content-Type"] == "application/json"
    assert json.loads(answer.content)["status"] == answer.status_code


@pytest.mark.parametrize(
    "path",
    [
        "/_allauth",
        "/_allauth/",
        "/_allauth/x",
        f"{LOGIN}/",
        "/_allauth/browser/v1/config",
        "/_allauth/app/v1/account/phone",
        "/_allauth/app/v1/auth/phone/verify",
    ],
)
def test_what_is_not_there_is_told_in_json(anybody: Client, path: str) -> None:
    assert check(anybody.get(path), 404)["errors"][0]["code"] == "not_found"


def test_a_method_that_is_not_allowed_is_told_in_json(anybody: Client) -> None:
    answer = anybody.get(LOGIN)

    assert check(answer, 405)["errors"][0]["code"] == "method_not_allowed"
    assert "POST" in answer.headers["Allow"]


def test_a_large_body_is_told_in_json(anybody: Client, settings: Settings) -> None:
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 1000

    assert check(send(anybody, LOGIN, b" " * 1001), 413)["errors"][0]["code"] == "too_large"


def test_too_many_requests_hear_when_to_come_back(anybody: Client, settings: Settings) -> None:
    settings.ACCOUNT_RATE_LIMITS = {"login": "1/m/ip"}
    body = b'{"email": "dana@example.com", "password": "wrong"}'
    assert send(anybody, LOGIN, body).status_code == 400

    answer = send(anybody, LOGIN, body)
    page = anybody.post("/accounts/login/", {"login": "dana@example.com", "password": "wrong"})

    assert check(answer, 429)["errors"][0]["code"] == "rate_limited"
    assert page.status_code == 429
    for refused in (answer, page):
        assert 0 < int(refused.headers["Retry-After"]) <= 60


@pytest.mark.parametrize(("error", "status"), [(RuntimeError, 500), (Http404, 404)])
def test_a_failure_of_ours_is_told_in_json(
    anybody: Client, monkeypatch: pytest.MonkeyPatch, error: type[Exception], status: int
) -> None:
    def broken(*_arguments: object, **_more: object) -> None:
        raise error

    monkeypatch.setattr("config.adapter.AccountAdapter.authenticate", broken)

    check(send(anybody, LOGIN, b'{"email": "dana@example.com", "password": "x"}'), status)


def test_a_host_that_is_not_ours_is_told_in_json(anybody: Client) -> None:
    answer = anybody.post(LOGIN, b"{}", content_type="application/json", headers={"Host": "evil.example"})

    check(answer, 400)


def test_messages_speak_the_language_of_the_client(anybody: Client) -> None:
    answer = anybody.get(LOGIN, headers={"Accept-Language": "de"})

    assert answer.headers["Content-Language"] == "de"


# --- Pages ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("raw", ["%00", "%ED%A0%80", "http://[", "//[", "%FF", "9" * 5000])
@pytest.mark.parametrize("page", ["login", "signup", "password/reset", "logout", "confirm-email"])
def test_hostile_text_in_a_form_or_an_address_is_no_failure_of_ours(
    anybody: Client, page: str, raw: str
) -> None:
    path = f"/accounts/{page}/"
    names = ("login", "email", "password", "password1", "password2", "code", "next")
    form = "&".join(f"{name}={raw}" for name in names)
    got = anybody.generic("GET", path, QUERY_STRING=f"next={raw}&email={raw}")
    posted = anybody.generic(
        "POST", f"{path}?next={raw}", form.encode(), content_type="application/x-www-form-urlencoded"
    )

    assert got.status_code < 500
    assert posted.status_code < 500


HOSTILE_QUERIES = [
    "{moment}__gte=99999-01-01",
    "{moment}__year=99999",
    "{moment}__gte=%00",
    "{moment}__range=1",
    "q=%00",
    "q=" + "x" * 60_000,
    "p=99999999999999999999999",
    "p=%00",
    "o=%00.9.-9",
    "id=99999999999999999999999",
    "id__in=%00",
    "_to_field=%00",
    "_facets=%00",
    "{moment}__month=abc",
]


@pytest.mark.parametrize("query", HOSTILE_QUERIES)
def test_no_query_of_admin_is_a_failure_of_ours(anybody: Client, superuser: User, query: str) -> None:
    anybody.force_login(superuser)
    UserFactory()
    for model in admin.site._registry:
        moments = [
            field.name
            for field in getattr(model._meta, "fields", [])
            if field.get_internal_type() == "DateTimeField"
        ]
        path = f"/admin/{model._meta.app_label}/{model._meta.model_name}/"
        for moment in moments or ["created_at"]:
            answer = anybody.generic("GET", path, QUERY_STRING=query.format(moment=moment))
            assert answer.status_code < 500, path


def test_nobody_signed_out_fails_admin_either(anybody: Client) -> None:
    for query in HOSTILE_QUERIES[:5]:
        answer = anybody.generic(
            "GET", "/admin/zammad/webhookdelivery/", QUERY_STRING=query.format(moment="received_at")
        )
        assert answer.status_code == 302
        assert anybody.get(answer.headers["Location"]).status_code < 500


def test_a_failure_of_admin_without_a_query_stays_one(
    anybody: Client, superuser: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_arguments: object, **_more: object) -> None:
        raise ValueError("a bug of ours")

    anybody.force_login(superuser)
    monkeypatch.setattr("config.admin.UserAdmin.get_queryset", broken)

    assert anybody.get("/admin/auth/user/").status_code == 500
    assert anybody.get("/admin/auth/user/?q=x").status_code == 400
