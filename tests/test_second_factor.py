"""A second factor for everybody who wants one, and for staff where the operator demands it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import time_machine
from allauth.mfa.models import Authenticator
from allauth.mfa.recovery_codes.internal.auth import RecoveryCodes
from allauth.mfa.totp.internal.auth import format_hotp_value, hotp_value
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, Permission, User
from django.core import mail
from django.core.cache import cache
from django.core.management import CommandError, call_command
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from config.models import Attempt
from config.second_factor import SecondFactorAdapter
from config.sessions import SessionStore
from tests.factories import PASSWORD

pytestmark = pytest.mark.django_db

API = "/_allauth/app/v1"
SECRET = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"
REFUSED = {"code": "SECOND_FACTOR_REQUIRED"}


@pytest.fixture(autouse=True)
def clock() -> Iterator[Any]:
    with time_machine.travel("2026-08-03T08:00:00Z", tick=False) as clock:
        yield clock


def code_now(secret: str = SECRET) -> str:
    return str(format_hotp_value(hotp_value(secret, int(timezone.now().timestamp()) // 30)))


def give_factor(person: User) -> Authenticator:
    data = {"secret": SecondFactorAdapter().encrypt(SECRET)}
    return Authenticator.objects.create(user=person, type=Authenticator.Type.TOTP, data=data)


def give_recovery_codes(person: User) -> list[str]:
    codes: list[str] = RecoveryCodes.activate(person).generate_codes()
    return codes


def api(method: str, path: str, body: Any = None, token: str = "") -> Any:
    headers = {"X-Session-Token": token} if token else {}
    sent = "" if body is None else json.dumps(body)
    return Client().generic(method, API + path, sent, content_type="application/json", headers=headers)


def log_in(person: User) -> Any:
    return api("POST", "/auth/login", {"email": person.email, "password": PASSWORD})


def sign_in(person: User, code: str = "") -> Client:
    client = Client()
    client.post("/accounts/login/", {"login": person.email, "password": PASSWORD})
    if code:
        client.post("/accounts/2fa/authenticate/", {"code": code})
    return client


def is_signed_in(client: Client) -> bool:
    return bool(client.get("/").context["user"].is_authenticated)


def graphql(token: str = "", client: Client | None = None) -> Any:
    headers = {"X-Session-Token": token} if token else {}
    query = {"query": "{ viewer { email } }"}
    return (client or Client()).post("/graphql/", query, content_type="application/json", headers=headers)


# --- Setting up -----------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)  # allauth reports it once it is committed
def test_a_factor_is_set_up_by_page_and_asked_for_from_then_on(
    alice: User,
    clock: Any,
) -> None:
    client = sign_in(alice)
    page = client.get("/accounts/2fa/totp/activate/").content.decode()
    found = re.search(r'value="([A-Z2-7]{32})"', page)
    assert found
    secret = found[1]
    assert "data:image/svg+xml" in page

    answer = client.post("/accounts/2fa/totp/activate/", {"code": code_now(secret)}, follow=True)

    assert "Recovery Codes" in answer.content.decode()
    assert [message.to for message in mail.outbox] == [["alice@example.com"]]
    row = Authenticator.objects.get(user=alice, type=Authenticator.Type.TOTP)
    assert secret not in json.dumps(row.data)
    clock.shift(60)
    assert not is_signed_in(sign_in(alice))
    assert not is_signed_in(sign_in(alice, "000000"))
    assert is_signed_in(sign_in(alice, code_now(secret)))


def test_a_factor_is_set_up_and_asked_for_headless(alice: User, clock: Any) -> None:
    token = log_in(alice).json()["meta"]["session_token"]
    offered = api("GET", "/account/authenticators/totp", token=token)
    assert offered.status_code == 404
    secret = offered.json()["meta"]["secret"]
    assert "issuer=Family%20Plans" in offered.json()["meta"]["totp_url"]

    set_up = api("POST", "/account/authenticators/totp", {"code": code_now(secret)}, token)
    assert set_up.status_code == 200
    clock.shift(60)
    asked = log_in(alice)
    assert asked.status_code == 401
    unfinished = asked.json()["meta"]["session_token"]
    assert graphql(unfinished).status_code == 401
    assert api("POST", "/auth/2fa/authenticate", {"code": "000000"}, unfinished).status_code == 400
    done = api("POST", "/auth/2fa/authenticate", {"code": code_now(secret)}, unfinished)
    assert done.status_code == 200
    assert graphql(done.json()["meta"]["session_token"]).status_code == 200


def test_a_secret_that_is_offered_stands_in_no_row_in_clear(alice: User) -> None:
    token = log_in(alice).json()["meta"]["session_token"]
    secret = api("GET", "/account/authenticators/totp", token=token).json()["meta"]["secret"]

    # A session is a row: signed, and readable by anybody with a copy.
    kept = json.dumps(SessionStore(token).load())
    assert "mfa.totp.secret" in kept
    assert secret not in kept
    assert api("POST", "/account/authenticators/totp", {"code": code_now(secret)}, token).status_code == 200
    assert "mfa.totp.secret" not in json.dumps(SessionStore(token).load())


@pytest.mark.parametrize("path", ["/accounts/2fa/totp/activate/", "/accounts/2fa/recovery-codes/"])
def test_a_stale_sign_in_sets_nothing_up(alice: User, clock: Any, path: str) -> None:
    client, token = sign_in(alice), log_in(alice).json()["meta"]["session_token"]
    give_recovery_codes(alice)
    secret = api("GET", "/account/authenticators/totp", token=token).json()["meta"]["secret"]
    clock.shift(301)

    assert client.get(path).headers["Location"].startswith("/accounts/reauthenticate/?")
    answer = api("POST", "/account/authenticators/totp", {"code": code_now(secret)}, token)
    assert answer.status_code == 401
    assert not Authenticator.objects.filter(type=Authenticator.Type.TOTP).exists()


def test_who_removes_their_factor_is_told(alice: User) -> None:
    give_factor(alice)
    client = sign_in(alice, code_now())

    client.post("/accounts/2fa/totp/deactivate/")

    assert not Authenticator.objects.exists()
    assert [message.to for message in mail.outbox] == [["alice@example.com"]]


# --- Codes ----------------------------------------------------------------------------------------


def test_a_code_counts_once_also_when_the_cache_forgets(alice: User, clock: Any) -> None:
    give_factor(alice)
    code = code_now()
    assert is_signed_in(sign_in(alice, code))
    for later in (0, 25, 10):
        cache.clear()
        clock.shift(later)
        assert not is_signed_in(sign_in(alice, code))

    cache.clear()
    assert is_signed_in(sign_in(alice, code_now()))


def test_an_older_code_counts_no_more_once_a_newer_one_did(alice: User, clock: Any) -> None:
    give_factor(alice)
    older = code_now()
    clock.shift(30)
    assert is_signed_in(sign_in(alice, code_now()))

    assert not is_signed_in(sign_in(alice, older))


def test_a_recovery_code_counts_once(alice: User) -> None:
    give_factor(alice)
    [code, *_] = give_recovery_codes(alice)

    assert is_signed_in(sign_in(alice, code))
    assert not is_signed_in(sign_in(alice, code))


def test_codes_cannot_be_guessed_on_and_on(alice: User) -> None:
    give_factor(alice)
    for _ in range(5):
        assert not is_signed_in(sign_in(alice, "000000"))

    assert not is_signed_in(sign_in(alice, code_now()))


def test_wrong_codes_are_counted_in_the_database_and_forgotten_after_a_right_one(alice: User) -> None:
    give_factor(alice)
    for _ in range(4):
        sign_in(alice, "000000")
    cache.clear()  # which forgets, and holds none of them
    fourth = Attempt.objects.filter(place=3)
    before = fourth.count()

    assert is_signed_in(sign_in(alice, code_now()))

    # five minutes' and a day's
    assert fourth.count() == before - 2


# --- At rest --------------------------------------------------------------------------------------


def test_secrets_are_encrypted_with_the_key_and_read_with_those_of_before(
    alice: User, settings: Settings
) -> None:
    factor = give_factor(alice)
    codes = give_recovery_codes(alice)
    assert SECRET not in json.dumps(factor.data)
    old, settings.SECRET_KEY = settings.SECRET_KEY, "another-key" * 6
    settings.SECRET_KEY_FALLBACKS = [old]
    assert is_signed_in(sign_in(alice, code_now()))

    call_command("encrypt_second_factors")
    settings.SECRET_KEY_FALLBACKS = []

    assert is_signed_in(sign_in(alice, codes[0]))
    factor.refresh_from_db()
    assert SecondFactorAdapter().decrypt(factor.data["secret"]) == SECRET
    settings.SECRET_KEY = old
    assert not is_signed_in(sign_in(alice, codes[1]))


def test_a_key_that_is_gone_refuses_every_code_and_says_what_to_do(
    alice: User, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    give_factor(alice)
    settings.SECRET_KEY = "another-key" * 6
    client = sign_in(alice)

    page = client.post("/accounts/2fa/authenticate/", {"code": code_now()}).content.decode()

    assert "Your second factor can no longer be checked." in page
    assert "SECRET_KEY_FALLBACKS" in caplog.text
    assert not is_signed_in(client)
    with pytest.raises(CommandError, match="encrypted with a key that is neither in"):
        call_command("encrypt_second_factors")


# --- Lost -----------------------------------------------------------------------------------------


def test_a_superuser_resets_a_lost_factor_and_it_is_recorded(alice: User, superuser: User) -> None:
    give_factor(alice)
    signed_in = sign_in(alice, code_now())
    admin = Client()
    admin.force_login(superuser)

    admin.post("/admin/auth/user/", {"action": "reset_second_factor", "_selected_action": [alice.pk]})

    assert not Authenticator.objects.exists()
    assert not is_signed_in(signed_in)
    assert is_signed_in(sign_in(alice))
    entry = LogEntry.objects.get()
    assert (entry.user, entry.object_id, entry.change_message) == (
        superuser,
        str(alice.pk),
        "Second factor reset.",
    )
    [told] = mail.outbox
    assert (told.to, told.subject) == (["alice@example.com"], "Your second factor was reset")
    assert len(told.alternatives) == 1  # type: ignore[union-attr]


def test_a_command_resets_a_lost_factor_and_it_is_recorded(
    alice: User, capsys: pytest.CaptureFixture[str]
) -> None:
    give_factor(alice)

    call_command("reset_second_factor", email="Alice@Example.com")

    assert not Authenticator.objects.exists()
    assert "by the command" in LogEntry.objects.get(object_id=str(alice.pk)).change_message
    assert [message.to for message in mail.outbox] == [["alice@example.com"]]
    assert capsys.readouterr().out.startswith("alice@example.com can sign in with the password alone")


@pytest.mark.parametrize("email", ["alice@example.com", "nobody@example.com"])
def test_where_there_is_no_factor_the_command_says_so(alice: User, email: str) -> None:
    with pytest.raises(CommandError, match=r"no second factor|no account"):
        call_command("reset_second_factor", email=email)

    assert not LogEntry.objects.exists()
    assert mail.outbox == []


# --- REQUIRE_MFA_FOR_STAFF ------------------------------------------------------------------------


@pytest.fixture
def required(settings: Settings) -> None:
    settings.REQUIRE_MFA_FOR_STAFF = True


def check_staff_refused(client: Client, token: str) -> None:
    for answer in (graphql(token), graphql(client=client)):
        assert answer.status_code == 403
        [error] = answer.json()["errors"]
        assert error["extensions"] == REFUSED
        assert "/accounts/2fa/" in error["message"]
        assert "data" not in answer.json()
    for path in ("/admin/", "/admin/plans/familyplan/", "/admin/zammad-user/5/"):
        page = client.get(path, follow=True)
        assert page.status_code == 403
        assert "Second factor required" in page.content.decode()
    assert client.get("/graphql/", headers={"Accept": "text/html"}).status_code == 403
    assert client.post("/admin/plans/familyplan/add/", {"name": "x"}).status_code == 302


def check_staff_let_in(client: Client, token: str, email: str = "support@example.com") -> None:
    assert graphql(token).json() == {"data": {"viewer": {"email": email}}}
    assert graphql(client=client).status_code == 200
    assert client.get("/admin/plans/familyplan/").status_code == 200
    assert client.get("/graphql/", headers={"Accept": "text/html"}).status_code == 200


@pytest.mark.django_db(transaction=True)  # it counts as used once it is committed
@pytest.mark.usefixtures("required")
def test_staff_without_a_factor_are_refused_until_they_set_one_up(
    superuser: User,
    clock: Any,
) -> None:
    client, token = sign_in(superuser), log_in(superuser).json()["meta"]["session_token"]
    check_staff_refused(client, token)
    found = re.search(r'value="([A-Z2-7]{32})"', client.get("/accounts/2fa/totp/activate/").content.decode())
    assert found

    client.post("/accounts/2fa/totp/activate/", {"code": code_now(found[1])})

    # It was just used in the browser; the token's session has yet to use it.
    assert client.get("/admin/plans/familyplan/").status_code == 200
    assert graphql(token).status_code == 403
    clock.shift(60)
    api("POST", "/auth/2fa/reauthenticate", {"code": code_now(found[1])}, token)
    check_staff_let_in(client, token, superuser.email)


@pytest.mark.usefixtures("required")
def test_staff_who_sign_in_with_a_factor_are_let_in_until_they_remove_it(support: User, clock: Any) -> None:
    give_factor(support)
    client = sign_in(support, code_now())
    clock.shift(30)
    unfinished = log_in(support).json()["meta"]["session_token"]
    done = api("POST", "/auth/2fa/authenticate", {"code": code_now()}, unfinished)
    token = done.json()["meta"]["session_token"]
    check_staff_let_in(client, token)

    assert api("DELETE", "/account/authenticators/totp", token=token).status_code == 200

    check_staff_refused(client, token)


@pytest.mark.usefixtures("required")
def test_a_factor_that_was_not_used_in_this_session_is_asked_for(support: User) -> None:
    client, token = sign_in(support), log_in(support).json()["meta"]["session_token"]
    give_factor(support)
    check_staff_refused(client, token)

    page = client.get("/admin/plans/familyplan/", follow=True).content.decode()
    found = re.search(r'href="(/accounts/2fa/reauthenticate/[^"]*)"', page)
    assert found
    answer = client.post(found[1], {"code": code_now(), "next": "/admin/plans/familyplan/"})

    assert answer.headers["Location"] == "/admin/plans/familyplan/"
    assert client.get("/admin/plans/familyplan/").status_code == 200


@pytest.mark.usefixtures("required")
@pytest.mark.parametrize("how", ["right", "group", "superuser", "staff", "nothing"])
def test_it_is_asked_of_everybody_who_may_do_more_than_others(alice: User, how: str) -> None:
    match how:
        case "right":
            alice.user_permissions.add(Permission.objects.get(codename="view_familyplan"))
        case "group":
            alice.groups.add(Group.objects.get(name="Support"))
        case "superuser" | "staff":
            User.objects.filter(pk=alice.pk).update(**{f"is_{how}": True})
    token = log_in(alice).json()["meta"]["session_token"]

    assert graphql(token).status_code == (200 if how == "nothing" else 403)


def test_it_is_off_unless_somebody_says_so(support: User) -> None:
    check_staff_let_in(sign_in(support), log_in(support).json()["meta"]["session_token"])
