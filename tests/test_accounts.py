"""Accounts: one sign-in page, one limit, addresses verified by a code, and user names that nobody sees."""

import datetime
import re
from typing import Any

import pytest
import time_machine
from allauth.account.models import EmailAddress
from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.models import Group, Permission, User
from django.core import mail
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings

from plans.models import FamilyPlan, PlanEvent
from tests.factories import OwnerFactory

PASSWORD = "correct-horse-battery"
VICTIM = "victim@example.com"
API = "/_allauth/app/v1"

pytestmark = pytest.mark.django_db


def make_person(email: str, *, username: str = "0a1b2c-opaque", **fields: Any) -> User:
    user = User.objects.create_user(username=username, email=email, password=PASSWORD, **fields)
    EmailAddress.objects.create(user=user, email=email, verified=True, primary=True)
    return user


@pytest.fixture
def dana() -> User:
    return make_person("dana@example.com", username="dana-opaque-name")


@pytest.fixture
def staff() -> User:
    user = make_person("staff@example.com", username="staff-opaque-name", is_staff=True)
    user.user_permissions.add(
        *Permission.objects.filter(codename__in=["view_user", "change_user", "delete_user", "add_user"])
    )
    return user


def post(client: Client, path: str, body: dict[str, Any], token: str = "") -> Any:
    headers = {"X-Session-Token": token} if token else {}
    return client.post(path, body, content_type="application/json", headers=headers)


def code_in_the_last_mail() -> str:
    found = re.search(r"^([A-Z0-9]{3,}-?[A-Z0-9]+)$", str(mail.outbox[-1].body), re.MULTILINE)
    assert found, "The mail holds no code."
    return found[1]


# --- Signing up -----------------------------------------------------------------------------------


def test_a_person_signs_up_and_proves_the_address_with_the_code_of_a_mail(client: Client) -> None:
    answer = client.post(
        "/accounts/signup/",
        {"email": "New.Person@example.com", "password1": PASSWORD, "password2": PASSWORD},
        follow=True,
    )
    assert answer.redirect_chain == [("/accounts/confirm-email/", 302)]

    answer = client.post("/accounts/confirm-email/", {"code": code_in_the_last_mail()})

    user = User.objects.get()
    assert answer.status_code == 302
    assert answer.headers["Location"] == "/"
    assert EmailAddress.objects.get(user=user, verified=True).email == "new.person@example.com"
    assert client.get("/").context["user"] == user
    assert re.fullmatch(r"[0-9a-f]{32}", user.username)


def test_the_way_back_to_an_invite_survives_signing_up(client: Client) -> None:
    page = "/invites/accepted/"
    client.post(
        f"/accounts/signup/?next={page}",
        {"email": VICTIM, "password1": PASSWORD, "password2": PASSWORD, "next": page},
    )

    answer = client.post("/accounts/confirm-email/", {"code": code_in_the_last_mail(), "next": page})

    assert answer.headers["Location"] == page


def test_mallory_who_signs_up_with_the_victims_address_never_gets_it_verified(client: Client) -> None:
    client.post("/accounts/signup/", {"email": VICTIM, "password1": PASSWORD, "password2": PASSWORD})
    code = code_in_the_last_mail()

    for guess in ("AAA-AAA", "BBB-BBB", "CCC-CCC", "DDD-DDD", "EEE-EEE"):
        assert guess != code
        client.post("/accounts/confirm-email/", {"code": guess})

    # After so many wrong codes even the right one is worth nothing.
    client.post("/accounts/confirm-email/", {"code": code})
    assert not EmailAddress.objects.filter(verified=True).exists()
    assert not client.get("/").context["user"].is_authenticated


def test_mallory_never_gets_the_victims_address_verified_by_the_api(client: Client) -> None:
    answer = post(client, f"{API}/auth/signup", {"email": VICTIM, "password": PASSWORD})
    assert answer.status_code == 401
    token = answer.json()["meta"]["session_token"]
    code = code_in_the_last_mail()

    for guess in ("AAA-AAA", "BBB-BBB", "CCC-CCC", "DDD-DDD", "EEE-EEE"):
        assert guess != code
        assert post(client, f"{API}/auth/email/verify", {"key": guess}, token).status_code in {400, 409}

    assert post(client, f"{API}/auth/email/verify", {"key": code}, token).status_code in {400, 409}
    assert not EmailAddress.objects.filter(verified=True).exists()
    assert client.get(f"{API}/auth/session", headers={"X-Session-Token": token}).status_code == 401


def test_the_victims_mail_holds_no_link_that_would_verify_mallorys_sign_up(client: Client) -> None:
    client.post("/accounts/signup/", {"email": VICTIM, "password1": PASSWORD, "password2": PASSWORD})

    (message,) = mail.outbox
    assert message.to == [VICTIM]
    assert "confirm" not in " ".join(re.findall(r"https?://\S*", str(message.body)))


def test_signing_up_with_a_taken_address_looks_the_same_and_changes_nothing(
    client: Client, dana: User
) -> None:
    answer = client.post(
        "/accounts/signup/",
        {"email": dana.email, "password1": "another-password", "password2": "another-password"},
    )

    assert answer.headers["Location"] == "/accounts/confirm-email/"
    assert User.objects.count() == 1
    dana.refresh_from_db()
    assert dana.check_password(PASSWORD)


def test_mails_name_us_and_never_the_host_of_the_request(
    client: Client, dana: User, settings: Settings
) -> None:
    settings.ALLOWED_HOSTS = ["*"]

    client.post(
        "/accounts/signup/",
        {"email": dana.email, "password1": PASSWORD, "password2": PASSWORD},
        headers={"host": "evil.example"},
    )

    (message,) = mail.outbox
    text = f"{message.subject}\n{message.body}"
    assert "evil.example" not in text
    assert "Hello from Family Plans!" in text
    assert "http://127.0.0.1:8000/accounts/password/reset/" in text


def test_a_forgotten_password_is_reset_by_a_code(client: Client, dana: User) -> None:
    confirm = client.post("/accounts/password/reset/", {"email": dana.email}).headers["Location"]
    answer = client.post(confirm, {"code": code_in_the_last_mail()}, follow=True)
    assert answer.status_code == 200
    client.post(
        answer.request["PATH_INFO"], {"password1": "brand-new-password", "password2": "brand-new-password"}
    )

    dana.refresh_from_db()
    assert dana.check_password("brand-new-password")


# --- The API's session tokens ---------------------------------------------------------------------


def log_in(client: Client, email: str) -> str:
    answer = post(client, f"{API}/auth/login", {"email": email, "password": PASSWORD})
    assert answer.status_code == 200
    token: str = answer.json()["meta"]["session_token"]
    return token


def test_a_client_signs_in_and_out_with_a_session_token(client: Client, dana: User) -> None:
    token = log_in(client, dana.email)
    session = client.get(f"{API}/auth/session", headers={"X-Session-Token": token})
    assert session.json()["data"]["user"] == {
        "id": dana.pk,
        "display": "dana",
        "email": "dana@example.com",
        "has_usable_password": True,
    }

    client.delete(f"{API}/auth/session", headers={"X-Session-Token": token})

    assert client.get(f"{API}/auth/session", headers={"X-Session-Token": token}).status_code in {401, 410}


def test_a_session_token_ends_by_the_clock(client: Client, dana: User) -> None:
    with time_machine.travel("2026-08-03T08:00:00Z", tick=False) as clock:
        token = log_in(client, dana.email)
        clock.shift(datetime.timedelta(days=15))

        answer = client.get(f"{API}/auth/session", headers={"X-Session-Token": token})

    assert answer.status_code in {401, 410}


def test_an_unverified_address_gets_no_session(client: Client, dana: User) -> None:
    EmailAddress.objects.update(verified=False)

    answer = post(client, f"{API}/auth/login", {"email": dana.email, "password": PASSWORD})

    assert answer.status_code == 401
    assert answer.json()["meta"]["is_authenticated"] is False


# --- Limits ---------------------------------------------------------------------------------------


def test_log_ins_from_one_network_address_are_limited(client: Client, dana: User, settings: Settings) -> None:
    settings.ACCOUNT_RATE_LIMITS = {"login": "2/m/ip"}
    for _ in range(2):
        log_in(client, dana.email)

    by_api = post(client, f"{API}/auth/login", {"email": dana.email, "password": PASSWORD})
    by_page = client.post("/accounts/login/", {"login": dana.email, "password": PASSWORD})

    assert by_api.status_code == 429
    assert by_page.status_code == 429
    assert "Too many attempts" in by_page.content.decode()
    assert not client.get("/").context["user"].is_authenticated


def test_behind_a_proxy_the_limit_counts_each_clients_own_address(
    client: Client, dana: User, settings: Settings
) -> None:
    settings.ACCOUNT_RATE_LIMITS = {"login": "1/m/ip"}
    settings.ALLAUTH_TRUSTED_PROXY_COUNT = 1

    def status(client_address: str) -> int:
        answer = client.post(
            f"{API}/auth/login",
            {"email": dana.email, "password": PASSWORD},
            content_type="application/json",
            headers={"X-Forwarded-For": client_address},
        )
        return int(answer.status_code)

    assert [status("203.0.113.1"), status("203.0.113.2"), status("203.0.113.1")] == [200, 200, 429]


# --- Admin's door ---------------------------------------------------------------------------------


def test_rights_are_those_that_django_knows_and_take_one_query(dana: User) -> None:
    own, groups, others = Permission.objects.filter(content_type__app_label="plans")[:3]
    dana.user_permissions.add(own)
    team = Group.objects.create(name="Team")
    team.permissions.add(own, groups)
    dana.groups.add(team, Group.objects.get(name="Support"))
    Group.objects.create(name="Another team").permissions.add(others)
    usual = ModelBackend().get_all_permissions(User.objects.get(pk=dana.pk))
    person = User.objects.get(pk=dana.pk)

    with CaptureQueriesContext(connection) as captured:
        assert person.get_all_permissions() == usual >= {f"plans.{own.codename}", f"plans.{groups.codename}"}
        assert person.has_perm(f"plans.{own.codename}")
        assert not person.has_perm("plans.fly")

    assert len(captured) == 1


@pytest.mark.parametrize("fields", [{"is_active": False}, {"is_superuser": True}, {}])
def test_who_has_no_rights_or_all_of_them_is_as_django_says(dana: User, fields: dict[str, bool]) -> None:
    User.objects.filter(pk=dana.pk).update(**fields)
    person = User.objects.get(pk=dana.pk)

    assert person.get_all_permissions() == ModelBackend().get_all_permissions(User.objects.get(pk=dana.pk))
    assert person.has_perm("plans.view_familyplan") is fields.get("is_superuser", False)
    assert not person.has_perm("plans.view_familyplan", obj=person) or person.is_superuser


def test_admin_leads_to_the_one_sign_in_page_and_back(client: Client, staff: User) -> None:
    answer = client.get("/admin/auth/user/", follow=True)
    path, query = answer.redirect_chain[-1][0].split("?")
    assert path == "/accounts/login/"

    answer = client.post(
        f"{path}?{query}", {"login": staff.email, "password": PASSWORD, "next": "/admin/auth/user/"}
    )

    assert answer.headers["Location"] == "/admin/auth/user/"
    assert client.get("/admin/auth/user/").status_code == 200


def test_admin_takes_no_password_itself(client: Client, staff: User) -> None:
    answer = client.post("/admin/login/", {"username": staff.username, "password": PASSWORD})

    assert answer.status_code == 302
    assert answer.headers["Location"].startswith("/accounts/login/")
    assert not client.get("/").context["user"].is_authenticated


def test_a_person_who_is_not_staff_is_told_so_and_sent_in_no_circle(client: Client, dana: User) -> None:
    client.force_login(dana)

    answer = client.get("/admin/", follow=True)

    assert answer.status_code == 403
    assert "Not allowed" in answer.content.decode()
    assert len(answer.redirect_chain) == 1


# --- User names -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/accounts/email/",
        "/accounts/logout/",
        "/accounts/password/change/",
        "/admin/",
        "/admin/auth/user/",
        "/admin/auth/user/{dana}/change/",
        "/admin/auth/user/{dana}/history/",
        "/admin/auth/user/add/",
    ],
)
def test_no_page_shows_a_user_name(client: Client, staff: User, dana: User, path: str) -> None:
    client.force_login(staff)
    client.post(
        f"/admin/auth/user/{dana.pk}/change/",
        {"first_name": "Dana", "last_name": "", "is_active": "on", **NO_DATES},
    )

    answer = client.get(path.format(dana=dana.pk))

    page = answer.content.decode()
    assert answer.status_code == 200
    assert "opaque-name" not in page
    if "dana" in path or path == "/admin/auth/user/":
        assert "dana@example.com" in page


@pytest.mark.parametrize("page", ["password", "delete"])
def test_no_page_of_superusers_shows_a_user_name(
    client: Client, superuser: User, dana: User, page: str
) -> None:
    client.force_login(superuser)

    answer = client.get(f"/admin/auth/user/{dana.pk}/{page}/")

    assert answer.status_code == 200
    assert "opaque-name" not in answer.content.decode()
    assert "dana@example.com" in answer.content.decode()


NO_DATES = {"last_login_0": "", "last_login_1": ""}


def test_the_greeting_after_signing_in_names_the_person(client: Client, dana: User) -> None:
    page = client.post("/accounts/login/", {"login": dana.email, "password": PASSWORD}, follow=True)

    assert "Successfully signed in as dana." in page.content.decode()
    assert "opaque-name" not in page.content.decode()


def test_staff_find_people_by_address(client: Client, staff: User, dana: User) -> None:
    client.force_login(staff)

    page = client.get("/admin/auth/user/", {"q": "dana@"}).content.decode()

    assert f"/admin/auth/user/{dana.pk}/change/" in page
    assert f"/admin/auth/user/{staff.pk}/change/" not in page


def test_staff_make_an_account_for_an_address(client: Client, staff: User) -> None:
    client.force_login(staff)

    answer = client.post(
        "/admin/auth/user/add/",
        {
            "email": "Erin@Example.com",
            "usable_password": "true",
            "password1": PASSWORD,
            "password2": PASSWORD,
        },
    )

    assert answer.status_code == 302
    erin = User.objects.get(email="erin@example.com")
    assert re.fullmatch(r"[0-9a-f]{32}", erin.username)
    assert not EmailAddress.objects.filter(user=erin, verified=True).exists()


def test_staff_cannot_make_a_second_account_for_an_address(client: Client, staff: User, dana: User) -> None:
    client.force_login(staff)

    answer = client.post(
        "/admin/auth/user/add/",
        {
            "email": "DANA@example.com",
            "usable_password": "true",
            "password1": PASSWORD,
            "password2": PASSWORD,
        },
    )

    assert "An account with this address already exists." in answer.content.decode()
    assert set(User.objects.all()) == {staff, dana}


def test_nobody_changes_the_address_of_somebody_else(client: Client, staff: User, dana: User) -> None:
    client.force_login(staff)

    client.post(
        f"/admin/auth/user/{dana.pk}/change/",
        {"email": "mallory@example.com", "first_name": "Dana", "is_active": "on"},
    )

    dana.refresh_from_db()
    assert (dana.first_name, dana.email) == ("Dana", "dana@example.com")


def test_a_person_who_holds_a_seat_is_not_deleted_and_admin_says_why(
    client: Client, superuser: User, dana: User
) -> None:
    seat = OwnerFactory(user=dana, family_plan__name="The Dorns")
    client.force_login(superuser)

    answer = client.post(f"/admin/auth/user/{dana.pk}/delete/", {"post": "yes"})

    page = answer.content.decode()
    assert "would require deleting the following protected related objects" in page
    assert "dana (Owner)" in page
    seat.refresh_from_db()
    assert User.objects.filter(pk=dana.pk).exists()


def test_a_person_without_a_seat_is_deleted_and_history_forgets_who_it_was(
    client: Client, dana: User
) -> None:
    root = make_person("root@example.com", username="root-opaque-name", is_staff=True, is_superuser=True)
    event = PlanEvent.objects.create(
        family_plan=FamilyPlan.objects.create(name="Closed"), kind=PlanEvent.Kind.PLAN_CLOSED, actor=dana
    )
    client.force_login(root)

    client.post(f"/admin/auth/user/{dana.pk}/delete/", {"post": "yes"})

    event.refresh_from_db()
    assert event.actor is None
    assert list(User.objects.all()) == [root]
    assert list(EmailAddress.objects.values_list("email", flat=True)) == ["root@example.com"]


# --- create_admin ---------------------------------------------------------------------------------


@pytest.fixture
def password_in_env(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADMIN_PASSWORD", PASSWORD)


@pytest.mark.usefixtures("password_in_env")
def test_an_admin_made_by_the_command_signs_in_without_further_steps(client: Client) -> None:
    call_command("create_admin", email="Root@Example.com", password_from_env="ADMIN_PASSWORD")

    answer = client.post(
        "/accounts/login/", {"login": "root@example.com", "password": PASSWORD, "next": "/admin/"}
    )

    assert answer.headers["Location"] == "/admin/"
    assert client.get("/admin/").status_code == 200
    assert User.objects.get().is_superuser


@pytest.mark.usefixtures("password_in_env")
def test_an_account_that_exists_is_left_alone(dana: User) -> None:
    with pytest.raises(CommandError, match="An account with this address already exists"):
        call_command("create_admin", email="DANA@example.com", password_from_env="ADMIN_PASSWORD")

    dana.refresh_from_db()
    assert not dana.is_superuser
    assert User.objects.count() == 1


@pytest.mark.parametrize(
    ("email", "password", "message"),
    [
        ("no-address", PASSWORD, "This is not an email address."),
        ("root@example.com", "", "The environment variable ADMIN_PASSWORD is empty."),
        ("root@example.com", "short", "This password is too short."),
    ],
)
def test_a_bad_admin_is_refused(
    monkeypatch: pytest.MonkeyPatch, email: str, password: str, message: str
) -> None:
    monkeypatch.setenv("ADMIN_PASSWORD", password)

    with pytest.raises(CommandError, match=message):
        call_command("create_admin", email=email, password_from_env="ADMIN_PASSWORD")

    assert not User.objects.exists()


@pytest.mark.parametrize(
    ("typed", "message"),
    [((PASSWORD, PASSWORD), ""), ((PASSWORD, "mistyped"), "The passwords do not match.")],
)
def test_the_command_asks_for_the_password_twice(
    monkeypatch: pytest.MonkeyPatch, typed: tuple[str, str], message: str
) -> None:
    answers = iter(typed)
    monkeypatch.setattr("config.management.commands.create_admin.getpass", lambda _prompt: next(answers))

    if message:
        with pytest.raises(CommandError, match=message):
            call_command("create_admin", email="root@example.com")
    else:
        call_command("create_admin", email="root@example.com")

    assert User.objects.filter(email="root@example.com").exists() is not bool(message)


# --- Pages ----------------------------------------------------------------------------------------


def test_the_start_page_shows_each_person_where_they_can_go(client: Client, staff: User, dana: User) -> None:
    signed_out = client.get("/").content.decode()
    client.force_login(dana)
    member = client.get("/").content.decode()
    client.force_login(staff)
    of_staff = client.get("/").content.decode()

    assert "/accounts/login/" in signed_out
    assert "/admin/" not in signed_out
    assert "dana@example.com" in member
    assert "/graphql/" not in member
    assert "/accounts/logout/" in member
    assert "/graphql/" in of_staff
    assert "/admin/" in of_staff


def test_every_field_of_the_sign_in_pages_has_a_label(client: Client) -> None:
    for path in ("/accounts/login/", "/accounts/signup/", "/accounts/password/reset/"):
        page = client.get(path).content.decode()
        fields = re.findall(r'<input type="(?:email|password|text|checkbox)"[^>]*id="([^"]+)"', page)
        assert fields, path
        for field in fields:
            assert f'<label for="{field}">' in page
        assert "<h1>" in page
