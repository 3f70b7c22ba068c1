"""Who sends a request: the session token, else the cookie with a CSRF check, else nobody."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from allauth.account.models import EmailAddress
from django.conf import settings as django_settings
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import Settings
from time_machine import TimeMachineFixture

from config.models import Session
from plans.models import FamilyPlan
from tests.api import JSON, URL, client_of, post
from tests.factories import PASSWORD, OwnerFactory, UserFactory

pytestmark = pytest.mark.django_db

WHO = "{ viewer { email } }"
AUTH = "/_allauth/app/v1/auth"


def log_in(email: str, password: str = PASSWORD) -> Any:
    """Sign in as a program does, and return the body of the response."""
    body = json.dumps({"email": email, "password": password})
    return Client().post(f"{AUTH}/login", body, content_type=JSON).json()


def token_of(person: User) -> str:
    token: str = log_in(person.email)["meta"]["session_token"]
    return token


def strict_client(person: User | None = None) -> Client:
    """Return a browser: CSRF is checked for its cookies."""
    client = Client(enforce_csrf_checks=True)
    if person is not None:
        client.force_login(person)
    return client


def check_who(response: Any, email: str | None) -> None:
    assert response.status_code == 200, response.content
    assert response.json() == {"data": {"viewer": {"email": email} if email else None}}


def check_unknown(response: Any) -> None:
    assert response.status_code == 401
    assert response["Content-Type"] == "application/json; charset=utf-8"
    assert response.json() == {
        "errors": [
            {
                "message": "This session token is unknown or has ended.",
                "extensions": {"code": "NOT_AUTHENTICATED"},
            }
        ]
    }


def check_forged(response: Any) -> None:
    assert response.status_code == 403
    assert response["Content-Type"] == "application/json; charset=utf-8"
    [error] = response.json()["errors"]
    assert error["extensions"] == {"code": "CSRF_FAILED"}


# --- The session token ---------------------------------------------------------------------------


def test_a_session_token_from_the_sign_in_says_who_asks(alice: User) -> None:
    check_who(post(strict_client(), WHO, **{"X-Session-Token": token_of(alice)}), "alice@example.com")


def test_a_session_token_takes_one_query_for_the_session_and_one_for_the_person(alice: User) -> None:
    token = token_of(alice)

    with CaptureQueriesContext(connection) as captured:
        check_who(post(strict_client(), WHO, **{"X-Session-Token": token}), "alice@example.com")

    assert ["config_session" in query["sql"] for query in captured] == [True, False]


@pytest.mark.parametrize(
    "token", ["", " ", "unknown", "x" * 32, "x" * 5000, "\xe9" * 32, "../x", "a\0b" * 11, "None"]
)
def test_a_token_that_nobody_was_given_is_refused(token: str, alice: User) -> None:
    with_token = {"X-Session-Token": token}

    check_unknown(post(strict_client(), WHO, **with_token))
    # Even for clients whose cookie would do.
    check_unknown(post(strict_client(alice), WHO, **with_token))


def test_a_token_ends_with_its_sign_out(alice: User) -> None:
    token = token_of(alice)

    signed_out = Client().delete(f"{AUTH}/session", headers={"X-Session-Token": token})

    assert signed_out.status_code == 401  # allauth's word for: signed out
    check_unknown(post(Client(), WHO, **{"X-Session-Token": token}))


def test_a_token_expires_with_its_session(alice: User, time_machine: TimeMachineFixture) -> None:
    token = token_of(alice)
    age = timedelta(seconds=django_settings.SESSION_COOKIE_AGE)

    time_machine.move_to(timezone.now() + age - timedelta(minutes=1))
    check_who(post(Client(), WHO, **{"X-Session-Token": token}), "alice@example.com")

    time_machine.move_to(timezone.now() + timedelta(minutes=2))
    check_unknown(post(Client(), WHO, **{"X-Session-Token": token}))


def test_a_token_ends_when_the_password_changes(alice: User) -> None:
    token = token_of(alice)
    check_who(post(Client(), WHO, **{"X-Session-Token": token}), "alice@example.com")

    alice.set_password("another battery staple")
    alice.save()

    check_unknown(post(Client(), WHO, **{"X-Session-Token": token}))


def test_a_token_ends_at_once_when_its_person_is_switched_off_or_erased(alice: User, bob: User) -> None:
    tokens = {person: token_of(person) for person in (alice, bob)}

    User.objects.filter(pk=alice.pk).update(is_active=False)
    bob.delete()

    for token in tokens.values():
        check_unknown(post(Client(), WHO, **{"X-Session-Token": token}))


def test_a_sign_in_that_waits_for_its_code_is_nobody_yet() -> None:
    mallory = UserFactory(email="mallory@example.com", verified=False)

    answer = log_in(mallory.email)

    assert answer["meta"]["is_authenticated"] is False
    token = answer["meta"]["session_token"]
    assert Session.objects.filter(session_key=token).exists()
    check_unknown(post(Client(), WHO, **{"X-Session-Token": token}))


def test_a_wrong_password_gives_no_token(alice: User) -> None:
    answer = log_in(alice.email, "wrong")

    assert answer["status"] == 400
    assert "session_token" not in answer.get("meta", {})


def test_a_token_wins_over_the_cookie_and_needs_no_csrf_check(alice: User, bob: User) -> None:
    check_who(post(strict_client(bob), WHO, **{"X-Session-Token": token_of(alice)}), "alice@example.com")


def test_a_token_acts_with_the_rights_of_its_person(alice: User, plan: FamilyPlan) -> None:
    OwnerFactory()

    response = post(Client(), "{ plans { edges { node { name } } } }", **{"X-Session-Token": token_of(alice)})

    assert response.json()["data"]["plans"]["edges"] == [{"node": {"name": plan.name}}]


# --- The cookie ----------------------------------------------------------------------------------


def test_a_cookie_alone_is_refused_also_when_it_is_stale(alice: User) -> None:
    client = strict_client(alice)
    check_forged(post(client, WHO))

    Session.objects.all().delete()
    check_forged(post(client, WHO))

    client.cookies[django_settings.SESSION_COOKIE_NAME] = "nobody-was-given-this"
    check_forged(post(client, WHO))


def test_the_page_gives_the_csrf_token_that_a_cookie_needs(support: User) -> None:
    client = strict_client(support)
    page = client.get(URL)
    csrf = client.cookies[django_settings.CSRF_COOKIE_NAME]

    assert page.status_code == 200
    assert csrf["httponly"] == ""  # GraphiQL reads it
    check_who(post(client, WHO, **{"X-CSRFToken": csrf.value}), "support@example.com")
    check_forged(post(client, WHO, **{"X-CSRFToken": "x" * 64}))
    check_forged(post(client, WHO, **{"X-CSRFToken": csrf.value, "Origin": "https://evil.example"}))


def test_a_stale_cookie_that_passes_the_check_is_nobody(support: User) -> None:
    client = strict_client(support)
    client.get(URL)
    Session.objects.all().delete()

    check_who(
        post(client, WHO, **{"X-CSRFToken": client.cookies[django_settings.CSRF_COOKIE_NAME].value}), None
    )


def test_the_session_cookie_is_out_of_reach_of_scripts(alice: User) -> None:
    client = Client()

    client.post("/accounts/login/", {"login": alice.email, "password": PASSWORD})

    cookie = client.cookies[django_settings.SESSION_COOKIE_NAME]
    assert (cookie["httponly"], cookie["samesite"]) == (True, "Lax")


def test_who_sends_neither_is_nobody_and_needs_no_check(alice: User) -> None:
    check_who(post(strict_client(), WHO), None)


def test_a_password_that_changes_ends_the_cookie_too(support: User) -> None:
    client = strict_client(support)
    client.get(URL)

    support.set_password("another battery staple")
    support.save()

    check_who(
        post(client, WHO, **{"X-CSRFToken": client.cookies[django_settings.CSRF_COOKIE_NAME].value}), None
    )


# --- The page ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("debug", "who", "status"),
    [
        (False, "nobody", 302),
        (False, "alice", 403),
        (False, "clerk", 200),
        (True, "nobody", 200),
        (True, "alice", 200),
        (True, "clerk", 200),
    ],
)
def test_graphiql_and_introspection_are_for_staff_and_with_debug_for_all(
    debug: bool, who: str, status: int, alice: User, settings: Settings
) -> None:
    people = {"nobody": None, "alice": alice, "clerk": UserFactory(is_staff=True)}
    settings.DEBUG = debug
    client = Client()
    if person := people[who]:
        client.force_login(person)

    page = client.get(URL)
    schema = post(client, '{ __schema { queryType { name } } __type(name: "User") { name } }').json()

    assert page.status_code == status
    if status == 200:
        assert "GraphiQL" in page.text
        assert schema == {"data": {"__schema": {"queryType": {"name": "Query"}}, "__type": {"name": "User"}}}
    else:
        assert "data" not in schema
        assert django_settings.CSRF_COOKIE_NAME not in client.cookies
    if status == 302:
        assert page["Location"] == "/accounts/login/?next=/graphql/"


def test_an_answer_is_never_kept_on_the_way(alice: User) -> None:
    with_token = {"X-Session-Token": token_of(alice)}

    for response in (post(Client(), WHO, **with_token), post(Client(), WHO), Client().get(URL)):
        assert "no-store" in response["Cache-Control"]
        assert "private" in response["Cache-Control"]


def test_nothing_about_a_token_is_remembered_between_requests(alice: User) -> None:
    with_token = {"X-Session-Token": token_of(alice)}
    client = Client()
    check_who(post(client, WHO, **with_token), "alice@example.com")

    User.objects.filter(pk=alice.pk).update(email="new@example.com")
    check_who(post(client, WHO, **with_token), "new@example.com")

    EmailAddress.objects.filter(user=alice).delete()
    alice.delete()
    check_unknown(post(client, WHO, **with_token))
    check_who(post(client, WHO), None)


def test_the_endpoint_answers_without_its_slash_too() -> None:
    response = client_of(None).post("/graphql", {"query": "{ __typename }"}, content_type="application/json")

    assert response.json() == {"data": {"__typename": "Query"}}
