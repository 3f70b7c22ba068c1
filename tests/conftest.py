"""The fixtures of tests, and what they need from the machine."""

import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.core.cache import cache
from django.db import connection
from pytest_django import Settings

from config import account_mail
from plans.models import FamilyPlan
from tests.factories import InviteFactory, MembershipFactory, OwnerFactory, UserFactory
from tests.production import _production, production, server_databases  # noqa: F401  # fixtures
from zammad.refusals import Refusals
from zammad.sandbox import Sandbox

pytest.register_assert_rewrite("tests.refusals")  # before a test imports it

# --- What a test needs of the machine: see the markers in pyproject.toml ------------------------


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests that this machine cannot run, with the reason; CI forbids such skips."""
    lacks = {
        "postgresql": ("" if connection.vendor == "postgresql" else "TEST_DATABASE_URL names no PostgreSQL"),
        "browser": (
            ""
            if shutil.which("chromium") and shutil.which("chromedriver")
            else "chromium or chromedriver is missing"
        ),
        "gettext": "" if shutil.which("xgettext") and shutil.which("msgmerge") else "gettext is missing",
        "node": "" if shutil.which("node") and shutil.which("npm") else "node or npm is missing",
    }
    for marker, reason in lacks.items():
        marked = [item for item in items if item.get_closest_marker(marker)]
        if not marked or not reason:
            continue
        if os.environ.get(f"REQUIRE_{marker.upper()}") == "1":
            raise pytest.UsageError(f"REQUIRE_{marker.upper()}=1, but {reason}.")
        for item in marked:
            item.add_marker(pytest.mark.skip(reason=reason))


# --- Every test ---------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _no_attempts_counted() -> None:
    """Forget the log-in attempts of earlier tests."""
    cache.clear()


@pytest.fixture(autouse=True)
def refusals(monkeypatch: pytest.MonkeyPatch) -> Refusals:
    """Count refusals for this test alone, and write them when the test says so.

    The usual thread has a connection of its own, which no transaction of a test reaches.
    """
    monkeypatch.setattr(Refusals, "_start_writer", lambda _self: None)
    counted = Refusals()
    monkeypatch.setattr("zammad.views.count_refusal", counted.count)
    return counted


class AtOnce(Executor):
    """Do within the request what is usually done after the response."""

    def submit(self, work: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(work(*arguments, **named))
        return done


@pytest.fixture(autouse=True)
def _mails_before_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Send mails about accounts before the response, so that a test can read them."""
    monkeypatch.setattr(account_mail, "_postbox", AtOnce())


# --- The cast: alice owns a plan, bob joined it by an invite, carol is a stranger -----------------


@pytest.fixture
def alice(db: None) -> User:
    return UserFactory(email="alice@example.com", first_name="Alice", last_name="Archer")


@pytest.fixture
def bob(db: None) -> User:
    return UserFactory(email="bob@example.com", first_name="Bob", last_name="Baker")


@pytest.fixture
def carol(db: None) -> User:
    return UserFactory(email="carol@example.com", first_name="Carol", last_name="Carver")


@pytest.fixture
def support(db: None) -> User:
    """A member of staff with the rights of the group Support."""
    user = UserFactory(email="support@example.com", is_staff=True)
    user.groups.add(Group.objects.get(name="Support"))
    return user


@pytest.fixture
def superuser(db: None) -> User:
    return UserFactory(email="admin@example.com", is_staff=True, is_superuser=True)


@pytest.fixture
def clerk(db: None) -> User:
    """A member of staff without any right."""
    return UserFactory(email="clerk@example.com", is_staff=True)


@pytest.fixture
def plan(alice: User, bob: User) -> FamilyPlan:
    """Alice's plan, with Bob in it."""
    plan: FamilyPlan = OwnerFactory(user=alice, family_plan__name="The Archers").family_plan
    MembershipFactory(user=bob, family_plan=plan)
    InviteFactory(family_plan=plan, created_by=alice, user=bob)
    return plan


# --- Zammad: a stand-in of the test's own, over real HTTP ------------------------------------------


@pytest.fixture
def sandbox(settings: Settings) -> Iterator[Sandbox]:
    """Run a Zammad whose retries wait milliseconds, and point the project to it."""
    with Sandbox(retry_factor=0.001) as sandbox:
        settings.ZAMMAD_URL = sandbox.url
        settings.ZAMMAD_API_TOKEN = sandbox.token
        yield sandbox
