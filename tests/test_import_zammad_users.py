"""The import: all users pass the same guard as webhooks, page by page."""

import io
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from unittest import mock

import pytest
from allauth.account.models import EmailAddress
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import connection
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
        "Page 1: 6 created, 0 updated, 0 unchanged, 0 stale, 1 skipped",
        "Imported: 6 created, 0 updated, 0 unchanged, 0 stale, 1 skipped.",
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

    assert run()[-1] == "Imported: 0 created, 0 updated, 0 unchanged, 6 stale, 1 skipped."
    assert list(ZammadUser.objects.order_by("pk").values()) == before


def test_what_webhooks_lost_is_repaired_and_nothing_newer_overwritten(sandbox: Sandbox) -> None:
    tomorrow = datetime.now(UTC) + timedelta(hours=12)
    ZammadUserFactory(zammad_id=3, firstname="Outdated", updated_at=LONG_AGO)
    ZammadUserFactory(zammad_id=4, firstname="Newer", updated_at=tomorrow)

    assert run()[-1] == "Imported: 4 created, 1 updated, 0 unchanged, 1 stale, 1 skipped."

    assert ZammadUser.objects.get(zammad_id=3).firstname == "Alice"
    assert ZammadUser.objects.get(zammad_id=4).firstname == "Newer"


def test_the_name_of_the_organization_is_taken_along(sandbox: Sandbox) -> None:
    sandbox.change_user(3, organization="Acme Example GmbH")

    run()

    assert ZammadUser.objects.get(zammad_id=3).organization == "Acme Example GmbH"


def test_a_user_who_is_unusable_is_skipped(sandbox: Sandbox) -> None:
    with sandbox.lock:
        sandbox.records["users"][3]["updated_at"] = "yesterday"

    assert run()[-1] == "Imported: 5 created, 0 updated, 0 unchanged, 0 stale, 2 skipped."
    assert not ZammadUser.objects.filter(zammad_id=3).exists()


def test_many_pages_are_read_in_turn(sandbox: Sandbox) -> None:
    assert run("--per-page", "3") == [
        "Page 1: 2 created, 0 updated, 0 unchanged, 0 stale, 1 skipped",
        "Page 2: 5 created, 0 updated, 0 unchanged, 0 stale, 1 skipped",
        "Page 3: 6 created, 0 updated, 0 unchanged, 0 stale, 1 skipped",
        "Imported: 6 created, 0 updated, 0 unchanged, 0 stale, 1 skipped.",
    ]


def test_an_import_that_was_cut_says_where_to_go_on(sandbox: Sandbox) -> None:
    page_two = mock.Mock(wraps=sandbox.faults.take)
    # Its check and its first page get through; then Zammad is down.
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
        "Imported: 4 created, 0 updated, 0 unchanged, 0 stale, 0 skipped."
    )
    assert ZammadUser.objects.count() == 6


def test_a_dry_run_counts_and_writes_nothing(sandbox: Sandbox) -> None:
    ZammadUserFactory(zammad_id=3, firstname="Outdated", updated_at=LONG_AGO)
    ZammadUserFactory(zammad_id=4, updated_at=datetime.now(UTC) + timedelta(hours=12))
    before = list(ZammadUser.objects.order_by("pk").values())

    assert run("--dry-run")[-1] == "Would import: 4 created, 1 updated, 0 unchanged, 1 stale, 1 skipped."

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


def test_a_terminal_shows_the_same_lines_as_a_pipe(sandbox: Sandbox) -> None:
    screen = Terminal()

    call_command("import_zammad_users", "--per-page", "3", "--no-color", stdout=screen)

    assert [line.partition(":")[0] for line in screen.getvalue().splitlines()] == [
        "Page 1",
        "Page 2",
        "Page 3",
        "Imported",
    ]


def test_an_import_that_is_interrupted_says_where_to_go_on(sandbox: Sandbox) -> None:
    asked = mock.Mock(side_effect=[None, None, KeyboardInterrupt])
    upsert = ZammadUserQuerySet.upsert

    def interrupted_later(rows: ZammadUserQuerySet, users: list[UserData], *, now: datetime) -> object:
        asked()
        return upsert(rows, users, now=now)

    with (
        mock.patch.object(ZammadUserQuerySet, "upsert", interrupted_later),
        pytest.raises(
            CommandError,
            match=r"^Cut short \(KeyboardInterrupt\)\. Go on with --start-page 3 --per-page 2\.$",
        ),
    ):
        run("--per-page", "2")

    # then two pages are stored for good, without Zammad's own user
    assert sorted(ZammadUser.objects.values_list("zammad_id", flat=True)) == [2, 3, 4]


def test_a_page_is_written_by_one_statement_however_long_it_is(sandbox: Sandbox) -> None:
    for number in range(300):
        sandbox.add_user(f"many{number}@example.com")

    statements: list[str] = []

    def note(execute: Callable[..., object], sql: str, *arguments: object) -> object:
        statements.append(sql)
        return execute(sql, *arguments)

    with connection.execute_wrapper(note):
        run()

    assert ZammadUser.objects.count() == 306
    assert sum(sql.startswith('INSERT INTO "zammad_zammaduser"') for sql in statements) == 1
    # Links are settled by the hundred: a transaction, locks on PostgreSQL, and the owners of the addresses.
    assert len(statements) <= 5 + 4 * 5


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

    assert run("--dry-run")[-1] == "Would import: 6 created, 0 updated, 0 unchanged, 0 stale, 1 skipped."
    assert run()[-1] == "Imported: 6 created, 0 updated, 0 unchanged, 0 stale, 1 skipped."

    assert ZammadUser.objects.get(zammad_id=3).firstname == "Newer"


def test_a_page_without_anybody_usable_is_passed(sandbox: Sandbox) -> None:
    assert run("--per-page", "1")[0] == "Page 1: 0 created, 0 updated, 0 unchanged, 0 stale, 1 skipped"


def test_an_import_needs_nobody_to_watch(sandbox: Sandbox) -> None:
    summary = import_users(client=get_client(), now=datetime.now(UTC), per_page=4)

    assert summary == ImportSummary(created=6, skipped=1)


def test_a_summary_counts_everything_that_was_read() -> None:
    summary = ImportSummary(created=1, updated=2, unchanged=5, stale=3, skipped=4)

    assert (summary.read, summary.changed) == (15, 3)


# --- What changed lately ---------------------------------------------------------------------------


def age(sandbox: Sandbox, user_id: int, **ago: float) -> None:
    """Give a user an earlier time of change."""
    changed = datetime.now(UTC) - timedelta(**ago)
    with sandbox.lock:
        sandbox.records["users"][user_id]["updated_at"] = changed.isoformat(timespec="milliseconds")


def test_what_changed_lately_is_pulled_and_nothing_else(sandbox: Sandbox, alice: User) -> None:
    run()
    for user_id in (1, 2, 4, 5, 6):
        age(sandbox, user_id, hours=2)
    sandbox.change_user(3, phone="+49 30 5550142", active=False)
    sandbox.calls.clear()

    lines = run("--changed-within", "1h")

    # and of two, one had nothing new
    assert lines[-1] == (
        "2 read, 1 changed. Imported: 0 created, 1 updated, 0 unchanged, 1 stale, 0 skipped."
    )
    stored = ZammadUser.objects.get(zammad_id=3)
    assert (stored.phone, stored.active, stored.user) == ("+49 30 5550142", False, None)
    asked = {name: value for call in sandbox.calls for name, value in call.query.items()}
    assert asked["condition[user.updated_at][range]"] == "hour"


@pytest.mark.parametrize(
    ("window", "value", "unit"),
    [("1m", 1, "minute"), ("90m", 90, "minute"), ("120m", 2, "hour"), ("48h", 2, "day"), ("30d", 30, "day")],
)
def test_a_window_is_asked_in_the_largest_whole_unit(
    sandbox: Sandbox, window: str, value: int, unit: str
) -> None:
    run("--changed-within", window)

    asked = next(call.query for call in sandbox.calls if call.path.endswith("/users/search"))
    assert asked["condition[user.updated_at][value]"] == str(value)
    assert asked["condition[user.updated_at][range]"] == unit


@pytest.mark.parametrize(
    "window", ["", "0m", "1", "h", "1s", "1.5h", "-1h", "31d", "721h", "43201m", "1 h", "١h"]
)
def test_a_window_that_is_none_is_refused(sandbox: Sandbox, window: str) -> None:
    with pytest.raises(CommandError, match="1m to 30d"):
        run(f"--changed-within={window}")

    assert sandbox.calls == []


def test_what_changed_has_no_page_to_go_on_from(sandbox: Sandbox) -> None:
    with pytest.raises(CommandError, match="--start-page is for the whole import"):
        run("--changed-within", "1h", "--start-page", "2")

    assert sandbox.calls == []


def test_a_user_who_moves_between_the_pages_counts_once(sandbox: Sandbox) -> None:
    pages = iter([[3, 4], [4, 5], [2], []])

    def answer() -> Reply:
        shown = [sandbox.user_json(user_id, names=True) for user_id in next(pages)]
        return Reply(body=json.dumps(shown).encode())

    take = sandbox.faults.take
    with mock.patch.object(
        sandbox.faults, "take", lambda called: answer() if "/users/search" in called else take(called)
    ):
        lines = run("--changed-within", "1h")

    assert lines[-1] == (
        "4 read, 4 changed. Imported: 4 created, 0 updated, 0 unchanged, 0 stale, 0 skipped."
    )


@pytest.mark.parametrize("status", [400, 403, 404, 422, 500])
def test_a_search_that_is_refused_names_the_whole_import(sandbox: Sandbox, status: int) -> None:
    sandbox.faults.set("GET /api/v1/users/search", Reply(status=status, body=b'{"error": "no."}'))

    with pytest.raises(
        CommandError,
        match=rf"refuses the search .* {status}: no\. Run the whole import instead, without --changed-within",
    ):
        run("--changed-within", "1h")

    assert not ZammadUser.objects.exists()


def test_a_search_without_an_end_names_the_whole_import(sandbox: Sandbox) -> None:
    shown = [sandbox.user_json(3, names=True)]
    sandbox.faults.set("GET /api/v1/users/search", Reply(body=json.dumps(shown).encode()))

    with pytest.raises(CommandError, match=r"again and again\. Run the whole import instead"):
        run("--changed-within", "1h")


def test_a_search_that_ignores_the_window_stores_nothing_and_names_the_whole_import(
    sandbox: Sandbox,
) -> None:
    shown = [sandbox.user_json(user_id, names=True) for user_id in (3, 4)]
    shown[1]["updated_at"] = (datetime.now(UTC) - timedelta(hours=2)).isoformat()
    sandbox.faults.set("GET /api/v1/users/search", Reply(body=json.dumps(shown).encode()))

    with pytest.raises(
        CommandError, match=r"ignores the time of their changes\. Run the whole import instead"
    ):
        run("--changed-within", "1h")

    assert not ZammadUser.objects.exists()


def test_a_search_that_is_cut_says_to_run_it_again(sandbox: Sandbox) -> None:
    sandbox.faults.set("GET /api/v1/users/search", Reply(status=503))

    with pytest.raises(CommandError, match=r"503.* Run it again; what was read is stored\."):
        run("--changed-within", "1h")
