"""People see where they are signed in, and end it; sessions from the previous version live on."""

from __future__ import annotations

import datetime
import importlib
from typing import Any

import pytest
import time_machine
from django.apps import apps
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.auth.models import User
from django.contrib.sessions.backends.base import UpdateError
from django.contrib.sessions.backends.db import SessionStore as FormerStore
from django.contrib.sessions.models import Session as FormerSession
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import Settings

from config.models import Session
from config.sessions import SessionStore
from tests.factories import PASSWORD

pytestmark = pytest.mark.django_db

API = "/_allauth/app/v1"
SESSIONS = f"{API}/auth/sessions"
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
EDGE = "Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 Chrome/140.0 Safari/537.36 Edg/140.0"


def sign_in_by_page(person: User, agent: str = FIREFOX) -> Client:
    client = Client(headers={"User-Agent": agent})
    answer = client.post("/accounts/login/", {"login": person.email, "password": PASSWORD})
    assert answer.status_code == 302
    return client


def token_of(person: User, agent: str = "family-app/3.1 (iOS)") -> str:
    answer = Client(headers={"User-Agent": agent}).post(
        f"{API}/auth/login", {"email": person.email, "password": PASSWORD}, content_type="application/json"
    )
    token: str = answer.json()["meta"]["session_token"]
    return token


def asks(token: str) -> int:
    answer = Client().post(
        "/graphql/",
        {"query": "{ viewer { email } }"},
        content_type="application/json",
        headers={"X-Session-Token": token},
    )
    return answer.status_code


def is_signed_in(client: Client) -> bool:
    return bool(client.get("/").context["user"].is_authenticated)


def listed(token: str) -> list[dict[str, Any]]:
    answer = Client().get(SESSIONS, headers={"X-Session-Token": token})
    assert answer.status_code == 200
    data: list[dict[str, Any]] = answer.json()["data"]
    return data


def end(token: str, body: Any) -> Any:
    return Client().delete(
        SESSIONS, body, content_type="application/json", headers={"X-Session-Token": token}
    )


# --- The page -------------------------------------------------------------------------------------


def test_a_person_sees_where_they_are_signed_in_and_nobody_elses(alice: User, bob: User) -> None:
    here = sign_in_by_page(alice)
    sign_in_by_page(alice, EDGE)
    token_of(alice)
    sign_in_by_page(bob, "bobs-own-app/1")

    page = here.get("/accounts/sessions/").content.decode()

    for shown in ("Firefox on Linux", "Edge on Windows", "family-app", "This is your current session."):
        assert shown in page
    assert "bobs-own-app" not in page
    assert page.count("End this session") == 2
    for key in Session.objects.values_list("pk", flat=True):
        assert key not in page


def test_one_session_is_ended_at_once_by_page(alice: User) -> None:
    here, there, token = sign_in_by_page(alice), sign_in_by_page(alice), token_of(alice)
    number = Session.objects.get(pk=token).number

    here.post("/accounts/sessions/", {"session": str(number)})

    assert asks(token) == 401
    assert is_signed_in(here)
    assert is_signed_in(there)


def test_all_other_sessions_are_ended_at_once_by_page(alice: User, bob: User) -> None:
    here, there, token, others = (
        sign_in_by_page(alice),
        sign_in_by_page(alice),
        token_of(alice),
        sign_in_by_page(bob),
    )

    here.post("/accounts/sessions/", {"others": "1"})

    assert asks(token) == 401
    assert (is_signed_in(here), is_signed_in(there), is_signed_in(others)) == (True, False, True)


def test_a_session_of_somebody_else_is_not_ended(alice: User, bob: User) -> None:
    token = token_of(bob)
    number = Session.objects.get(pk=token).number
    here = sign_in_by_page(alice)

    here.post("/accounts/sessions/", {"session": str(number)})

    assert asks(token) == 200
    assert end(token_of(alice), {"sessions": [number]}).status_code == 400
    assert asks(token) == 200


def test_the_page_is_for_those_who_are_signed_in(client: Client) -> None:
    for answer in (client.get("/accounts/sessions/"), client.post("/accounts/sessions/", {"others": "1"})):
        assert answer.status_code == 302
        assert answer.headers["Location"].startswith("/accounts/login/")


# --- Headless -------------------------------------------------------------------------------------


def test_a_client_lists_sessions_in_the_shape_that_allauth_documents(alice: User) -> None:
    sign_in_by_page(alice)
    token = token_of(alice)

    own, browser = listed(token)

    assert set(own) == {"id", "user_agent", "ip", "created_at", "last_seen_at", "is_current"}
    assert (own["user_agent"], own["is_current"]) == ("family-app/3.1 (iOS)", True)
    assert (browser["user_agent"], browser["is_current"]) == (FIREFOX, False)
    assert 0 < own["id"] < 2**53


def test_a_client_ends_sessions_and_its_own_last(alice: User) -> None:
    browser, token = sign_in_by_page(alice), token_of(alice)
    own, other = (session["id"] for session in listed(token))

    answer = end(token, {"sessions": [other]})
    assert (answer.status_code, [each["id"] for each in answer.json()["data"]]) == (200, [own])
    assert not is_signed_in(browser)

    assert end(token, {"sessions": [own]}).status_code == 401
    assert asks(token) == 401


@pytest.mark.parametrize(
    "body",
    [{}, {"sessions": None}, {"sessions": 5}, {"sessions": [1]}, {"sessions": [True]}, {"sessions": [[]]}],
)
def test_odd_sessions_are_refused_and_end_nothing(alice: User, body: Any) -> None:
    token = token_of(alice)

    assert end(token, body).status_code == 400

    assert asks(token) == 200


def test_nobody_lists_sessions_without_a_sign_in() -> None:
    assert Client().get(SESSIONS).status_code == 401
    assert end("x" * 32, {"sessions": []}).status_code == 410


# --- What ends them -------------------------------------------------------------------------------


def test_a_changed_password_ends_all_others(alice: User) -> None:
    here, there, token = sign_in_by_page(alice), sign_in_by_page(alice), token_of(alice)
    new = "another-password-of-mine"

    here.post("/accounts/password/change/", {"oldpassword": PASSWORD, "password1": new, "password2": new})

    assert asks(token) == 401
    assert (is_signed_in(here), is_signed_in(there)) == (True, False)
    assert Session.objects.filter(user=alice).count() == 1


def test_a_password_changed_elsewhere_ends_all_in_the_list_too(alice: User) -> None:
    token = token_of(alice)
    alice.set_password("set-by-a-command")
    alice.save()

    assert asks(token) == 401
    assert not Session.objects.living_of(alice).exists()


def test_a_person_who_is_deleted_takes_their_sessions_along(alice: User) -> None:
    token = token_of(alice)

    alice.delete()

    assert not Session.objects.filter(pk=token).exists()
    assert asks(token) == 401


@pytest.mark.django_db(transaction=True)
def test_a_session_of_a_person_who_was_just_deleted_is_refused_and_not_tried_for_ever(alice: User) -> None:
    store = SessionStore()
    store.update({SESSION_KEY: str(alice.pk + 1000), BACKEND_SESSION_KEY: "x", HASH_SESSION_KEY: "y"})

    with pytest.raises(UpdateError):
        store.create()

    assert not Session.objects.exists()


def test_a_rotated_key_signs_nobody_out(alice: User, settings: Settings) -> None:
    client, token = sign_in_by_page(alice), token_of(alice)
    old, settings.SECRET_KEY = settings.SECRET_KEY, "another-key" * 6
    settings.SECRET_KEY_FALLBACKS = [old]
    for _ in range(2):
        assert asks(token) == 200
        assert is_signed_in(client)
    assert len(listed(token)) == 2

    settings.SECRET_KEY_FALLBACKS = []

    assert asks(token) == 200
    assert is_signed_in(client)


def test_a_rotated_key_revives_no_session_of_an_older_password(alice: User, settings: Settings) -> None:
    token = token_of(alice)
    alice.set_password("set-by-a-command")
    alice.save()
    old, settings.SECRET_KEY = settings.SECRET_KEY, "another-key" * 6
    settings.SECRET_KEY_FALLBACKS = [old]

    assert asks(token) == 401


# --- When they were last used ---------------------------------------------------------------------


def test_reading_writes_once_an_hour_at_most(alice: User) -> None:
    with time_machine.travel("2026-08-03T08:00:00Z", tick=False) as clock:
        token = token_of(alice)
        made = Session.objects.get(pk=token)
        clock.shift(datetime.timedelta(minutes=59))
        with CaptureQueriesContext(connection) as captured:
            assert asks(token) == 200
        assert not [query for query in captured if query["sql"].startswith("UPDATE")]

        clock.shift(datetime.timedelta(minutes=2))
        assert asks(token) == 200
        used = Session.objects.get(pk=token)
        with CaptureQueriesContext(connection) as captured:
            assert asks(token) == 200
        assert not [query for query in captured if query["sql"].startswith("UPDATE")]

    assert used.last_used_at - made.last_used_at == datetime.timedelta(minutes=61)
    assert used.created_at == made.created_at


def test_a_session_that_is_saved_again_stays_as_old_as_it_is(alice: User) -> None:
    with time_machine.travel("2026-08-03T08:00:00Z", tick=False) as clock:
        client = sign_in_by_page(alice)
        clock.shift(datetime.timedelta(days=1))
        session = client.session
        session["anything"] = 1
        session.save()

    kept = Session.objects.get(user=alice)
    assert kept.created_at == datetime.datetime(2026, 8, 3, 8, tzinfo=datetime.UTC)
    assert kept.client == FIREFOX


# --- Sessions of the previous version -------------------------------------------------------------


def former_session(person: User | None, *, days: int = 3, **more: Any) -> str:
    """Store a session as the previous version did."""
    store = FormerStore()
    if person:
        store[SESSION_KEY] = str(person.pk)
        store[BACKEND_SESSION_KEY] = "config.accounts.AccountBackend"
        store[HASH_SESSION_KEY] = person.get_session_auth_hash()
    store.update(more)
    store.set_expiry(timezone.now() + datetime.timedelta(days=days))
    store.save()
    return str(store.session_key)


def carry_over() -> None:
    migration = importlib.import_module("config.migrations.0003_sessions")
    migration.carry_over(apps, None)


def test_living_sessions_are_carried_over(alice: User, bob: User) -> None:
    at = datetime.datetime(2026, 8, 1, tzinfo=datetime.UTC)
    records = [{"method": "password", "at": at.timestamp()}]
    token = former_session(alice, account_authentication_methods=records)
    cookie = former_session(bob)
    unfinished = former_session(None, something="unfinished")
    ended = former_session(alice, days=-1)
    gone = former_session(User(pk=999_999, password="x"))
    forged = former_session(alice)
    FormerSession.objects.filter(pk=forged).update(session_data="forged")

    carry_over()

    assert set(Session.objects.values_list("pk", "user")) == {
        (token, alice.pk),
        (cookie, bob.pk),
        (unfinished, None),
    }
    assert not Session.objects.filter(pk__in=[ended, gone, forged]).exists()
    assert asks(token) == 200
    browser = Client()
    browser.cookies["sessionid"] = cookie
    assert is_signed_in(browser)
    [shown] = listed(token)
    assert (shown["is_current"], shown["created_at"]) == (True, at.timestamp())


def test_carrying_over_twice_changes_nothing(alice: User) -> None:
    former_session(alice)
    carry_over()
    before = list(Session.objects.values())

    carry_over()

    assert list(Session.objects.values()) == before


def test_the_nightly_job_removes_what_ended_and_what_was_carried_over(alice: User) -> None:
    living, former = token_of(alice), former_session(alice)
    ended = token_of(alice)
    Session.objects.filter(pk=ended).update(expire_date=timezone.now() - datetime.timedelta(days=1))

    call_command("clearsessions")

    assert list(Session.objects.values_list("pk", flat=True)) == [living]
    assert not FormerSession.objects.filter(pk=former).exists()


def test_a_browser_of_before_keeps_its_sign_in_under_the_name_of_now(alice: User, settings: Settings) -> None:
    # given a server that people reach by https, where cookies have other names
    settings.SESSION_COOKIE_NAME = "__Host-sessionid"
    settings.SESSION_COOKIE_SECURE = True
    former = former_session(alice)
    carry_over()
    browser = Client()
    browser.cookies["sessionid"] = former

    # when the browser sends the former cookie
    answer = browser.get("/accounts/sessions/", secure=True)

    # then it is signed in, and gets the current cookie instead
    assert answer.status_code == 200
    cookie = answer.cookies["__Host-sessionid"]
    assert (cookie.value, cookie["secure"], cookie["httponly"], cookie["path"]) == (former, True, True, "/")
    assert answer.cookies["sessionid"].value == ""
    assert browser.get("/accounts/sessions/", secure=True).status_code == 200


def test_no_session_that_was_begun_since_counts_in_the_cookie_of_before(
    alice: User, settings: Settings
) -> None:
    token = token_of(alice)
    settings.SESSION_COOKIE_NAME = "__Host-sessionid"

    for planted in (token, "", "x" * 40, "\u00e9"):
        browser = Client()
        browser.cookies["sessionid"] = planted
        assert browser.get("/accounts/sessions/").status_code == 302
