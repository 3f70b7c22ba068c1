"""No right of staff reaches further than it says: only superusers decide who gets in, and as what."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest
from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from django.apps import apps
from django.contrib import admin
from django.contrib.auth.models import Group, Permission, User
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver
from django.utils.regex_helper import normalize

from config.models import Session
from plans.models import FamilyPlan
from tests.admin_pages import as_person, url
from tests.factories import InviteFactory, UserFactory, ZammadUserFactory
from zammad.models import WebhookDelivery

pytestmark = pytest.mark.django_db

NEW_PASSWORD = "a-password-from-somebody-else"


def access() -> dict[str, Any]:
    """Read everything that decides who gets in, and what they may do."""
    people = User.objects.order_by("pk")
    return {
        "people": list(
            people.values_list("pk", "password", "email", "is_active", "is_staff", "is_superuser")
        ),
        "in groups": sorted(User.groups.through.objects.values_list("user", "group")),
        "rights": sorted(User.user_permissions.through.objects.values_list("user", "permission")),
        "groups": sorted(Group.objects.values_list("pk", "name")),
        "rights of groups": sorted(Group.permissions.through.objects.values_list("group", "permission")),
        "addresses": sorted(EmailAddress.objects.values_list("pk", "user", "email", "verified", "primary")),
        "second factors": sorted(Authenticator.objects.values_list("pk", "user", "type")),
        "sessions": sorted(
            Session.objects.exclude(user__email="actor@example.com").values_list("pk", "user")
        ),
    }


class Fields(HTMLParser):
    """Read the fields of a page's forms, with the values they would send."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.values: dict[str, str] = {}
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        is_field = tag in {"input", "select", "textarea"}
        if is_field and named.get("type") not in {"checkbox", "radio", "submit"}:
            self.values[named.get("name") or ""] = named.get("value") or ""


@pytest.fixture
def dana() -> User:
    dana = UserFactory(email="dana@example.com")
    EmailAddress.objects.create(user=dana, email="unverified@example.com", verified=False)
    Authenticator.objects.create(user=dana, type=Authenticator.Type.TOTP, data={"secret": "x"})
    Client().force_login(dana)
    return dana


@pytest.fixture
def world(dana: User, superuser: User, plan: FamilyPlan) -> dict[str, list[str]]:
    """One row of everything that admin shows, by the model's label."""
    Client().force_login(superuser)
    InviteFactory(family_plan=plan)
    WebhookDelivery.objects.create(body_digest="0" * 64, outcome=WebhookDelivery.Outcome.APPLIED)
    ZammadUserFactory()
    return {
        model._meta.label_lower: [
            str(pk)
            for pk in model._default_manager.order_by("pk").values_list("pk", flat=True)[
                : 3 if model is EmailAddress else 1
            ]
        ]
        for model in admin.site._registry
        if hasattr(model, "_default_manager")
    }


def forged(dana: User, superuser: User, actor: User) -> dict[str, Any]:
    """Return fields that would give you everything, by all the names that forms have for them."""
    rights = [str(pk) for pk in Permission.objects.values_list("pk", flat=True)]
    return {
        "email": "actor@example.com",
        "username": "taken-over",
        "password": NEW_PASSWORD,
        "password1": NEW_PASSWORD,
        "password2": NEW_PASSWORD,
        "usable_password": "true",
        "is_staff": "on",
        "is_superuser": "on",
        "groups": [str(pk) for pk in Group.objects.values_list("pk", flat=True)],
        "user_permissions": rights,
        "permissions": rights,
        "name": "Everything",
        "user": str(actor.pk),
        "verified": "on",
        "primary": "on",
        "type": "totp",
        "data": '{"secret": "mine"}',
        "post": "yes",  # a deletion is confirmed
    }


def pages(world: dict[str, list[str]], users: list[str]) -> list[str]:
    """List every URL of admin, with a row of each model in its place."""
    found: list[str] = []

    def walk(patterns: list[URLPattern | URLResolver], prefix: str) -> None:
        for pattern in patterns:
            route = prefix + str(pattern.pattern)
            if isinstance(pattern, URLResolver):
                walk(pattern.url_patterns, route)
            else:
                found.append(route)

    [resolver] = [
        each
        for each in get_resolver().url_patterns
        if isinstance(each, URLResolver) and str(each.pattern) == "admin/"
    ]
    walk(resolver.url_patterns, "/admin/")
    addresses: list[str] = []
    for route in found:
        [(form, names)] = normalize(route) if "(?P" in route or "^" in route else [(route, [])]
        label = ".".join(route.split("/")[2:4])
        rows = users if label == "auth.user" else world.get(label, ["1"])
        if names or "<" in form or "%(" in form:
            addresses += [re.sub(r"<[^>]*>|%\([^)]*\)s", row, form) for row in rows]
        else:
            addresses.append(form)
    return [each for each in addresses if "logout" not in each and "jsi18n" not in each]


def all_rights() -> list[str]:
    rights = {
        f"{model._meta.app_label}.{verb}_{model._meta.model_name}"
        for model in apps.get_models()
        for verb in model._meta.default_permissions
    }
    return sorted(rights | {"constance.change_config", "constance.view_config"})


@pytest.mark.parametrize("right", all_rights())
def test_a_single_right_changes_nobodys_access(
    right: str, dana: User, superuser: User, world: dict[str, list[str]]
) -> None:
    actor = UserFactory(email="actor@example.com", is_staff=True)
    app, codename = right.split(".")
    actor.user_permissions.add(*Permission.objects.filter(content_type__app_label=app, codename=codename))
    newcomer = UserFactory(email="erin@example.com", is_staff=True)  # nobody holds an address of theirs
    EmailAddress.objects.filter(user=newcomer).delete()
    users = [str(person.pk) for person in (dana, superuser, actor, newcomer)]
    client = as_person(actor)
    lie = forged(dana, superuser, actor)
    made_by_actor = {"add_user"}
    before = access()

    for address in pages(world, users):
        as_new = [{**lie, "_saveasnew": "1"}] if address.endswith("/change/") else []
        for sent in (lie, *as_new):
            answer = client.post(address, sent)
            assert answer.status_code < 500, address
            if answer.status_code == 200:  # the form needs more than these values
                fields = Fields(answer.content.decode()).values
                assert client.post(address, {**fields, **sent}).status_code < 500, address
    for model, page in admin.site._registry.items():
        rows = users if model is User else world.get(model._meta.label_lower, [])
        actions = page._get_base_actions()  # type: ignore[attr-defined]  # regardless of permissions
        # Before Django 6.1 an action is a tuple.
        for action in {getattr(each, "name", None) or each[1] for each in actions}:
            chosen = {"action": action, "_selected_action": rows, "post": "yes", "index": "0"}
            answer = client.post(url(model, "changelist"), chosen)
            assert answer.status_code < 500, (model, action)

    after = access()
    if codename in made_by_actor:
        after["people"] = [row for row in after["people"] if row[0] in {each[0] for each in before["people"]}]
    assert after == before


def test_a_superuser_does_what_others_may_not(superuser: User, dana: User) -> None:
    client = as_person(superuser)
    group = Group.objects.get(name="Support")

    client.post(
        url(User, "change", dana.pk),
        {"first_name": "D", "last_name": "", "is_active": "on", "is_staff": "on", "groups": [group.pk]},
    )
    client.post(
        f"/admin/auth/user/{dana.pk}/password/",
        {"password1": NEW_PASSWORD, "password2": NEW_PASSWORD, "usable_password": "true"},
    )
    client.post(
        url(EmailAddress, "changelist"),
        {
            "action": "make_verified",
            "_selected_action": list(EmailAddress.objects.filter(user=dana).values_list("pk", flat=True)),
        },
    )

    dana.refresh_from_db()
    assert dana.is_staff
    assert list(dana.groups.all()) == [group]
    assert dana.check_password(NEW_PASSWORD)
    assert not Session.objects.filter(user=dana).exists()
    assert not EmailAddress.objects.filter(user=dana, verified=False).exists()


def test_the_right_to_change_people_corrects_a_name_and_never_a_superusers(
    superuser: User, dana: User, clerk: User
) -> None:
    clerk.user_permissions.add(Permission.objects.get(codename="change_user"))
    client = as_person(clerk)
    names = {"first_name": "Corrected", "last_name": "Name"}

    assert client.post(url(User, "change", dana.pk), names).status_code == 302
    assert client.post(url(User, "change", superuser.pk), names).status_code == 403

    dana.refresh_from_db()
    superuser.refresh_from_db()
    assert dana.first_name == "Corrected"
    assert superuser.first_name == "Pat"


def test_a_name_that_is_corrected_leaves_what_changed_meanwhile(clerk: User, dana: User) -> None:
    clerk.user_permissions.add(Permission.objects.get(codename="change_user"))
    page = admin.site.get_model_admin(User)
    switched_off = User.objects.get(pk=dana.pk)
    User.objects.filter(pk=dana.pk).update(is_active=False)

    class Form:
        changed_data = ["first_name"]  # noqa: RUF012

    switched_off.first_name = "Corrected"
    page.save_model(None, switched_off, Form(), True)  # type: ignore[arg-type]

    dana.refresh_from_db()
    assert (dana.first_name, dana.is_active) == ("Corrected", False)


@pytest.mark.parametrize("codename", ["view_user", "change_user"])
def test_nobody_but_a_superuser_sees_how_a_password_is_kept(clerk: User, dana: User, codename: str) -> None:
    clerk.user_permissions.add(Permission.objects.get(codename=codename))

    page = as_person(clerk).get(url(User, "change", dana.pk)).content.decode()

    assert "dana@example.com" in page
    assert dana.password.split("$")[0] not in page
    assert f"/admin/auth/user/{dana.pk}/password/" not in page


def test_ones_own_password_is_changed_where_everybody_does(clerk: User) -> None:
    answer = as_person(clerk).get("/admin/password_change/")

    assert answer.headers["Location"] == "/accounts/password/change/"


def test_no_page_of_admin_holds_the_key_of_a_session(superuser: User, dana: User) -> None:
    client = as_person(superuser)
    keys = list(Session.objects.filter(user=dana).values_list("pk", flat=True))
    assert keys

    page = client.get(url(User, "delete", dana.pk)).content.decode()

    assert f"Session of user {dana.pk}" in page
    assert keys[0] not in page


@pytest.mark.parametrize(
    "lookup",
    [
        "session",
        "session__in",
        "session__pk__startswith",
        "session__session_key__startswith",
        "session__session_data__contains",
        "authenticator__data__contains",
        "password__startswith",
    ],
)
def test_no_list_of_people_answers_questions_about_a_secret(clerk: User, dana: User, lookup: str) -> None:
    clerk.user_permissions.add(Permission.objects.get(codename="view_user"))
    key = Session.objects.get(user=dana).pk
    value = key if lookup in {"session", "session__in"} else key[:6]

    answer = as_person(clerk).get(url(User, "changelist"), {lookup: value})

    assert answer.status_code == 400
    assert "dana@example.com" not in answer.content.decode()


def test_a_list_of_people_is_filtered_by_what_it_shows(superuser: User, support: User) -> None:
    [group] = support.groups.all()

    for query in ({"is_superuser__exact": "0"}, {"groups__id__exact": group.pk}, {"pk": support.pk}):
        page = as_person(superuser).get(url(User, "changelist"), query).content.decode()

        assert support.email in page
        assert f"/admin/auth/user/{superuser.pk}/change/" not in page
