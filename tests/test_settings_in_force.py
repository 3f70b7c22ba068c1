"""Which settings apply: what staff chose, in the ranges of the form, whatever was stored."""

from collections.abc import Callable
from datetime import timedelta

import constance
import pytest
from constance.models import Constance
from django.core.exceptions import ValidationError
from django.http import HttpResponseRedirect

from plans.apps import check_constance_backend
from plans.settings import PageField, PlanSettings

pytestmark = pytest.mark.django_db

OURS = "/invites/accepted/"
# Values that a browser reads as a URL elsewhere, as a program, or not as a URL.
HOSTILE_PAGES = [
    "javascript:alert(1)",
    "JavaScript:alert(1)",
    "data:text/html,<script>alert(1)</script>",
    "ftp://example.com/",
    "mailto:alice@example.com",
    "//evil.example/",
    "///evil.example/",
    "/\\evil.example/",
    "\\\\evil.example/",
    "/a\\..\\b",
    "/\t/evil.example/",
    "/\n/evil.example/",
    "/\r\nSet-Cookie: a=b",
    "/two words",
    "/nul\0",
    "/\u202egnp.exe",
    "evil.example",
    "http:evil.example",
    "http:///evil.example",
    "https://",
    "http://[::1",
    "https://exa mple.com/",
    "https://example.com/\nX: y",
    "https://example.com/half\ud800",
    "https://example.com/" + "a" * 2000,
    "",
    " /invites/accepted/",
]


def test_the_defaults_are_in_force_until_staff_choose() -> None:
    assert PlanSettings.current() == PlanSettings(
        user_limit=5,
        invites_enabled=True,
        invite_ttl=timedelta(hours=48),
        invites_per_day=20,
        plans_per_day=3,
        invite_accepted_url=OURS,
        self_service_plans=False,
        membership_mails=True,
    )


def test_what_staff_chose_is_in_force() -> None:
    constance.config.USER_LIMIT = 9
    constance.config.INVITES_ENABLED = False
    constance.config.INVITE_TTL_HOURS = 2
    constance.config.INVITES_PER_DAY = 0
    constance.config.PLANS_PER_DAY = 9
    constance.config.INVITE_ACCEPTED_URL = "https://app.example.com/welcome?from=invite"
    constance.config.SELF_SERVICE_PLANS = True
    constance.config.MEMBERSHIP_MAILS = False

    assert PlanSettings.current() == PlanSettings(
        user_limit=9,
        invites_enabled=False,
        invite_ttl=timedelta(hours=2),
        invites_per_day=0,
        plans_per_day=9,
        invite_accepted_url="https://app.example.com/welcome?from=invite",
        self_service_plans=True,
        membership_mails=False,
    )


def test_a_read_is_one_query_and_writes_nothing(
    django_assert_num_queries: Callable[..., object],
) -> None:
    with django_assert_num_queries(1):  # type: ignore[attr-defined]
        PlanSettings.current()

    assert not Constance.objects.exists()


@pytest.mark.parametrize(
    ("name", "stored", "in_force"),
    [
        ("USER_LIMIT", 0, 1),
        ("USER_LIMIT", -5, 1),
        ("USER_LIMIT", 1, 1),
        ("USER_LIMIT", 100, 100),
        ("USER_LIMIT", 101, 100),
        ("USER_LIMIT", 10**30, 100),
        ("USER_LIMIT", None, 5),
        ("USER_LIMIT", "7", 5),
        ("USER_LIMIT", 7.5, 5),
        ("INVITE_TTL_HOURS", 0, 1),
        ("INVITE_TTL_HOURS", 721, 720),
        ("INVITE_TTL_HOURS", "soon", 48),
        ("INVITES_PER_DAY", -1, 0),
        ("INVITES_PER_DAY", 10_001, 10_000),
        ("INVITES_PER_DAY", [], 20),
        ("PLANS_PER_DAY", 0, 1),
        ("PLANS_PER_DAY", 101, 100),
        ("PLANS_PER_DAY", "many", 3),
    ],
)
def test_a_number_that_code_assigned_is_forced_into_its_range(
    name: str, stored: object, in_force: int
) -> None:
    setattr(constance.config, name, stored)

    now = PlanSettings.current()

    read = {
        "USER_LIMIT": now.user_limit,
        "INVITE_TTL_HOURS": now.invite_ttl // timedelta(hours=1),
        "INVITES_PER_DAY": now.invites_per_day,
        "PLANS_PER_DAY": now.plans_per_day,
    }
    assert read[name] == in_force


@pytest.mark.parametrize("page", HOSTILE_PAGES)
def test_a_hostile_page_is_refused_by_the_form_and_not_in_force(page: str) -> None:
    with pytest.raises(ValidationError):
        PageField(strip=False, max_length=2000).clean(page)

    constance.config.INVITE_ACCEPTED_URL = page
    assert PlanSettings.current().invite_accepted_url == OURS


@pytest.mark.parametrize("page", [None, 7, ["/"], "/" + "a" * 3000])
def test_a_page_that_is_none_is_not_in_force(page: object) -> None:
    constance.config.INVITE_ACCEPTED_URL = page

    assert PlanSettings.current().invite_accepted_url == OURS


@pytest.mark.parametrize(
    "page",
    [
        "/",
        OURS,
        "/welcome?a=b&c=%20d#e",
        "/willkommen/für-dich",
        "http://127.0.0.1:3000/",
        "https://app.example.com/a?b=c",
        "https://app.example.com/" + "a" * 1900,
        "https://app.example.com/" + "ä" * 1900,
    ],
)
def test_a_path_of_ours_or_a_page_on_the_web_is_in_force(page: str) -> None:
    assert PageField(max_length=2000).clean(page) == page

    constance.config.INVITE_ACCEPTED_URL = page
    assert PlanSettings.current().invite_accepted_url == page
    HttpResponseRedirect(page)  # Django would not refuse it


# --- Where settings are stored --------------------------------------------------------------------


def test_settings_in_the_database_pass_the_check() -> None:
    assert check_constance_backend() == []


def test_settings_elsewhere_fail_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("constance.settings.BACKEND", "constance.backends.memory.MemoryBackend")

    [error] = check_constance_backend()

    assert (error.id, error.hint) == (
        "plans.E001",
        'Set CONSTANCE_BACKEND = "constance.backends.database.DatabaseBackend".',
    )
