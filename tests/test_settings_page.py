"""Staff with the right change the limits in admin, and its history shows old and new values."""

import html
import re
from typing import Any

import pytest
from constance.models import Constance
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse

from plans.settings import PlanSettings
from tests.factories import UserFactory

PAGE = "/admin/plans/config/"
HISTORY = "/admin/plans/config/history/"


@pytest.fixture
def tuner(db: None) -> User:
    """A member of staff who may change the settings, and nothing else."""
    user = UserFactory(email="tuner@example.com", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="change_config"))
    return user


@pytest.fixture
def reader(db: None) -> User:
    """A member of staff who may read the settings, and nothing else."""
    user = UserFactory(email="reader@example.com", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_config"))
    return user


def as_person(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def form_of(client: Client) -> dict[str, str]:
    """Return what a browser would submit from the unchanged page."""
    form = client.get(PAGE).context["form"]
    values = {field.html_name: field.value() for field in form}
    return {
        name: "on" if value is True else str(value) for name, value in values.items() if value is not False
    }


def text_of(response: Any) -> str:
    main = response.content.decode().partition('<main id="content-start"')[2]
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", main)).split())


def test_the_settings_stand_under_plans(tuner: User) -> None:
    index = as_person(tuner).get(reverse("admin:index"))

    [section] = index.context["app_list"]
    assert (section["name"], [entry["name"] for entry in section["models"]]) == (
        "Plans",
        ["Family plan settings"],
    )
    assert section["models"][0]["admin_url"] == PAGE


def test_the_page_shows_every_setting_with_its_help(tuner: User) -> None:
    page = as_person(tuner).get(PAGE)

    assert "<h1>Family plan settings</h1>" in page.content.decode()
    text = text_of(page)
    assert (
        "USER_LIMIT Maximum number of people in a plan, including the main subscriber (1 to 100). Plans with "
        "their own limit keep it. Lowering the limit removes nobody. Default: 5." in text
    )
    for name in (
        "INVITES_ENABLED",
        "INVITE_TTL_HOURS",
        "INVITES_PER_DAY",
        "INVITE_ACCEPTED_URL",
        "SELF_SERVICE_PLANS",
        "MEMBERSHIP_MAILS",
    ):
        assert name in text
    assert "Default: off." in text


def test_a_change_takes_effect_and_its_values_stand_in_the_history(tuner: User) -> None:
    client = as_person(tuner)

    response = client.post(PAGE, form_of(client) | {"USER_LIMIT": "6"})

    assert response.status_code == 302
    assert PlanSettings.current().user_limit == 6
    entry = LogEntry.objects.get()
    assert (entry.user, entry.get_change_message()) == (tuner, "USER_LIMIT: 5 -> 6")
    history = text_of(client.get(HISTORY))
    assert "tuner@example.com USER_LIMIT: 5 -> 6" in history
    assert tuner.username not in history


def test_recent_actions_tell_the_change_and_lead_to_the_page(tuner: User) -> None:
    client = as_person(tuner)
    client.post(PAGE, form_of(client) | {"USER_LIMIT": "6"})

    index = client.get(reverse("admin:index")).content.decode()

    [(address, told)] = re.findall(
        r'<li class="changelink">.*?<a href="([^"]*)">([^<]*)</a>', index, re.DOTALL
    )
    assert html.unescape(told) == "USER_LIMIT: 5 -> 6"
    assert client.get(address, follow=True).request["PATH_INFO"] == PAGE


def test_the_history_tells_every_change_and_nothing_else(tuner: User) -> None:
    client = as_person(tuner)
    form = form_of(client) | {"INVITES_PER_DAY": "0", "SELF_SERVICE_PLANS": "on"}
    del form["INVITES_ENABLED"]

    client.post(PAGE, form)

    assert LogEntry.objects.get().change_message == (
        "INVITES_ENABLED: True -> False; INVITES_PER_DAY: 20 -> 0; SELF_SERVICE_PLANS: False -> True"
    )


def test_saving_without_a_change_leaves_no_history(tuner: User) -> None:
    client = as_person(tuner)

    client.post(PAGE, form_of(client))

    assert not LogEntry.objects.exists()
    assert "Nothing has been changed yet." in text_of(client.get(HISTORY))


def test_a_long_history_has_pages(tuner: User) -> None:
    client = as_person(tuner)
    client.post(PAGE, form_of(client) | {"USER_LIMIT": "6"})
    entry = LogEntry.objects.get()
    for _ in range(100):
        entry.pk = None
        entry.save()

    assert client.get(HISTORY).content.decode().count("USER_LIMIT: 5 -&gt; 6") == 100
    assert client.get(f"{HISTORY}?p=2").content.decode().count("USER_LIMIT: 5 -&gt; 6") == 1


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("USER_LIMIT", "0", "Ensure this value is greater than or equal to 1."),
        ("USER_LIMIT", "101", "Ensure this value is less than or equal to 100."),
        ("USER_LIMIT", "many", "Enter a whole number."),
        ("USER_LIMIT", "", "This field is required."),
        ("INVITE_TTL_HOURS", "0", "Ensure this value is greater than or equal to 1."),
        ("INVITE_TTL_HOURS", "721", "Ensure this value is less than or equal to 720."),
        ("INVITES_PER_DAY", "-1", "Ensure this value is greater than or equal to 0."),
        ("INVITES_PER_DAY", "10001", "Ensure this value is less than or equal to 10000."),
        ("PLANS_PER_DAY", "0", "Ensure this value is greater than or equal to 1."),
        ("PLANS_PER_DAY", "101", "Ensure this value is less than or equal to 100."),
        ("INVITE_ACCEPTED_URL", "//evil.example", "Enter a path that starts with one slash"),
        ("INVITE_ACCEPTED_URL", "javascript:alert(1)", "Enter a valid URL."),
    ],
)
def test_a_value_out_of_range_is_refused_with_the_reason(
    tuner: User, name: str, value: str, reason: str
) -> None:
    client = as_person(tuner)
    form = form_of(client)
    before = PlanSettings.current()

    page = client.post(PAGE, form | {name: value, "SELF_SERVICE_PLANS": "on"})

    assert page.status_code == 200
    assert reason in text_of(page)
    assert PlanSettings.current() == before
    assert not LogEntry.objects.exists()


def test_settings_that_somebody_else_changed_meanwhile_are_not_overwritten(tuner: User) -> None:
    client = as_person(tuner)
    stale = form_of(client) | {"USER_LIMIT": "7"}
    client.post(PAGE, form_of(client) | {"USER_LIMIT": "6"})

    page = client.post(PAGE, stale)

    assert "The settings have been modified by someone else." in text_of(page)
    assert PlanSettings.current().user_limit == 6


def test_who_may_only_read_the_settings_changes_none(reader: User, tuner: User) -> None:
    form = form_of(as_person(tuner))
    client = as_person(reader)

    page = client.get(PAGE)
    response = client.post(PAGE, form | {"USER_LIMIT": "6"})

    assert "USER_LIMIT" in text_of(page)
    assert 'value="Save"' not in page.content.decode()
    assert response.status_code == 403
    assert client.get(HISTORY).status_code == 200
    assert not LogEntry.objects.exists()
    assert not Constance.objects.exclude(value=None).filter(key="USER_LIMIT", value__contains="6").exists()
    assert PlanSettings.current().user_limit == 5


def test_staff_without_the_right_find_no_settings(support: User) -> None:
    client = as_person(support)

    assert client.get(PAGE).status_code == 403
    assert client.get(HISTORY).status_code == 403
    assert client.post(PAGE, {"USER_LIMIT": "6"}).status_code == 403
    assert "Family plan settings" not in client.get(reverse("admin:index")).content.decode()
    assert PlanSettings.current().user_limit == 5
