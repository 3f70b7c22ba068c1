"""The import: all users through the guard that webhooks pass, page by page."""

import io
from datetime import UTC, datetime, timedelta
from unittest import mock

import pytest
from allauth.account.models import EmailAddress
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings

from tests.factories import ZammadUserFactory
from zammad.client import get_client
from zammad.models import ZammadUser, ZammadUserQuerySet
from zammad.sandbox import Reply, Sandbox
from zammad.services import ImportSummary, import_users
from zammad.webhooks import UserData

pytestmark = pytest.mark.django_db

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def run(*arguments: str) -> list[str]:
    out = io.StringIO()
    call_command("import_zammad_users", *arguments, stdout=out)
    return out.getvalue().splitlines()


def test_all_users_but_zammads_own_are_imported_and_linked(sandbox: Sandbox, alice: User, bob: User) -> None:
    lines = run()

    assert lines == [
        "Page 1: 6 created, 0 updated, 0 already known, 1 skipped",
        "Imported: 6 created, 0 updated, 0 already known, 1 skipped.",
    ]
    assert list(ZammadUser.objects.order_by("zammad_id").values_list("zammad_id", "email", "user")) == [
        (2, "kim.agent@helpdesk.example", None),
        (3, "alice@example.com", alice.pk),
        (4, "bob@example.com", bob.pk),
        (5, "carol@example.com", None),
        (6, "dave@example.com", None),
        (7, "erin@example.com", None),
    ]


def test_an_import_links_by_either_spelling_of_a_domain(sandbox: Sandbox, alice: User, bob: User) -> None:
    for user_id, in_zammad, person, verified in (
        (3, "alice@bücher.example", alice, "alice@xn--bcher-kva.example"),
        (4, "bob@xn--bcher-kva.example", bob, "bob@bücher.example"),
    ):
        sandbox.records["users"][user_id]["email"] = in_zammad
        EmailAddress.objects.filter(user=person).update(email=verified)

    run()

    linked = ZammadUser.objects.exclude(user=None).order_by("zammad_id").values_list("zammad_id", "user")
    assert list(linked) == [(3, alice.pk), (4, bob.pk)]


def test_a_second_import_changes_nothing(sandbox: Sandbox, alice: User) -> None:
    run()
    before = list(ZammadUser.objects.order_by("pk").values())

    assert run()[-1] == "Imported: 0 created, 0 updated, 6 already known, 1 skipped."
    assert list(ZammadUser.objects.order_by("pk").values()) == before


def test_what_webhooks_lost_is_repaired_and_nothing_newer_overwritten(sandbox: Sandbox) -> None:
    tomorrow = datetime.now(UTC) + timedelta(hours=12)
    ZammadUserFactory(zammad_id=3, firstname="Outdated", updated_at=LONG_AGO)
    ZammadUserFactory(zammad_id=4, firstname="Newer", updated_at=tomorrow)

    assert run()[-1] == "Imported: 4 created, 1 updated, 1 already known, 1 skipped."

    assert ZammadUser.objects.get(zammad_id=3).firstname == "Alice"
    assert ZammadUser.objects.get(zammad_id=4).firstname == "Newer"


def test_the_name_of_the_organization_is_taken_along(sandbox: Sandbox) -> None:
    sandbox.change_user(3, organization="Acme Example GmbH")

    run()

    assert ZammadUser.objects.get(zammad_id=3).organization == "Acme Example GmbH"


def test_a_user_who_is_unusable_is_skipped(sandbox: Sandbox) -> None:
    with sandbox.lock:
        sandbox.records["users"][3]["updated_at"] = "yesterday"

    assert run()[-1] == "Imported: 5 created, 0 updated, 0 already known, 2 skipped."
    assert not ZammadUser.objects.filter(zammad_id=3).exists()


def test_many_pages_are_read_in_turn(sandbox: Sandbox) -> None:
    assert run("--per-page", "3") == [
        "Page 1: 2 created, 0 updated, 0 already known, 1 skipped",
        "Page 2: 5 created, 0 updated, 0 already known, 1 skipped",
        "Page 3: 6 created, 0 updated, 0 already known, 1 skipped",
        "Imported: 6 created, 0 updated, 0 already known, 1 skipped.",
    ]


def test_an_import_that_was_cut_says_where_to_go_on(sandbox: Sandbox) -> None:
    page_two = mock.Mock(wraps=sandbox.faults.take)
    # Its check and its first page go through; from then on Zammad is down.
    page_two.side_effect = [None, None, *[Reply(status=500)] * 9]

    with (
        mock.patch.object(sandbox.faults, "take", page_two),
        pytest.raises(
            CommandError, match=r"^Zammad answered 500: .* Go on with --start-page 2 --per-page 3\.$"
        ),
    ):
        run("--per-page", "3")
    assert ZammadUser.objects.count() == 2

    assert run("--per-page", "3", "--start-page", "2")[-1] == (
        "Imported: 4 created, 0 updated, 0 already known, 0 skipped."
    )
    assert ZammadUser.objects.count() == 6


def test_a_dry_run_counts_and_writes_nothing(sandbox: Sandbox) -> None:
    ZammadUserFactory(zammad_id=3, firstname="Outdated", updated_at=LONG_AGO)
    ZammadUserFactory(zammad_id=4, updated_at=datetime.now(UTC) + timedelta(hours=12))
    before = list(ZammadUser.objects.order_by("pk").values())

    assert run("--dry-run")[-1] == "Would import: 4 created, 1 updated, 1 already known, 1 skipped."

    assert list(ZammadUser.objects.order_by("pk").values()) == before


def test_a_token_that_sees_only_itself_is_refused(sandbox: Sandbox) -> None:
    with sandbox.lock:
        sandbox.records["tokens"][1]["permissions"] = frozenset()

    with pytest.raises(CommandError, match=r"^The token may not list users: it needs ticket\.agent or"):
        run()

    assert not ZammadUser.objects.exists()


@pytest.mark.parametrize("arguments", [("--start-page", "0"), ("--per-page", "0"), ("--per-page", "1001")])
def test_pages_that_zammad_does_not_have_are_refused(sandbox: Sandbox, arguments: tuple[str, str]) -> None:
    with pytest.raises(CommandError, match="Pages start at 1"):
        run(*arguments)

    assert sandbox.calls == []


def test_on_a_terminal_a_bar_stands_in_for_the_lines(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    screen = Terminal()

    call_command("import_zammad_users", stdout=screen)

    assert screen.getvalue() == "Imported: 6 created, 0 updated, 0 already known, 1 skipped.\n"
    assert "7 users" in terminal.getvalue()


def test_lines_that_go_into_a_pipe_are_plain_also_beside_a_terminal(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)

    assert len(run("--per-page", "3")) == 4
    assert terminal.getvalue() == ""


def test_an_import_that_is_interrupted_says_where_to_go_on(sandbox: Sandbox) -> None:
    asked = mock.Mock(side_effect=[None, None, KeyboardInterrupt])
    upsert_all = ZammadUserQuerySet.upsert_all

    def interrupted_later(rows: ZammadUserQuerySet, users: list[UserData], *, now: datetime) -> object:
        asked()
        return upsert_all(rows, users, now=now)

    with (
        mock.patch.object(ZammadUserQuerySet, "upsert_all", interrupted_later),
        pytest.raises(
            CommandError,
            match=r"^Cut short \(KeyboardInterrupt\)\. Go on with --start-page 3 --per-page 2\.$",
        ),
    ):
        run("--per-page", "2")

    # then two pages are there for good, Zammad's own user apart
    assert sorted(ZammadUser.objects.values_list("zammad_id", flat=True)) == [2, 3, 4]


def test_a_page_is_written_by_one_statement_however_long_it_is(sandbox: Sandbox) -> None:
    for number in range(300):
        sandbox.add_user(f"many{number}@example.com")

    with CaptureQueriesContext(connection) as queries:
        run()

    assert ZammadUser.objects.count() == 306
    # Who is known, the users, who has verified one of their addresses, and who waits for those.
    assert len(queries) <= 4


def test_debugging_keeps_no_statements_of_pages_that_are_through(
    sandbox: Sandbox, settings: Settings
) -> None:
    settings.DEBUG = True

    run("--per-page", "1")

    assert connection.queries_log is not None
    assert len(connection.queries_log) == 0


def test_a_user_who_is_listed_twice_is_stored_once_as_the_newest(sandbox: Sandbox) -> None:
    with sandbox.lock:
        newer = {**sandbox.records["users"][3], "firstname": "Newer", "updated_at": "2026-01-02T00:00:00Z"}
        older = {**newer, "firstname": "Older", "updated_at": "2026-01-01T00:00:00Z"}
        sandbox.records["users"] |= {3: newer, 8: older, 9: {**newer}}

    assert run("--dry-run")[-1] == "Would import: 6 created, 0 updated, 2 already known, 1 skipped."
    assert run()[-1] == "Imported: 6 created, 0 updated, 2 already known, 1 skipped."

    assert ZammadUser.objects.get(zammad_id=3).firstname == "Newer"


def test_a_page_without_anybody_usable_is_passed(sandbox: Sandbox) -> None:
    assert run("--per-page", "1")[0] == "Page 1: 0 created, 0 updated, 0 already known, 1 skipped"


def test_an_import_needs_nobody_to_watch(sandbox: Sandbox) -> None:
    summary = import_users(client=get_client(), now=datetime.now(UTC), per_page=4)

    assert summary == ImportSummary(created=6, skipped=1)


def test_a_summary_counts_everything_that_was_read() -> None:
    assert ImportSummary(created=1, updated=2, stale=3, skipped=4).read == 10
