"""Zammad fails in every way it can, in each operation that needs it.

Each time: a typed response within the deadline, nothing half-done in the database, one line with
the cause and no secret, and the next attempt succeeds.
"""

from __future__ import annotations

import io
import itertools
import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from unittest import mock

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from pytest_django import Settings

from plans.models import FamilyPlan, FamilyPlanInvite, digest_of
from tests.api import ask, node_id, refusal_of
from tests.factories import InviteFactory
from tests.refusals import rows
from tests.server import free_port
from zammad import sandbox as faulty
from zammad.models import ZammadUser
from zammad.sandbox import Fault, Reply, Sandbox

pytestmark = pytest.mark.django_db

DEADLINE = 0.6  # seconds
PROMISED = 8.0  # seconds, from the design; a fault that drips or hangs does so without end
TOKENS = "/api/v1/user_access_token"
ADDRESS = "invited.person@example.com"  # no log line may contain it
OLD = (datetime.now(UTC) - timedelta(hours=2)).isoformat()
CREATE = """mutation($input: CreateInviteInput!) { createInvite(input: $input) {
    __typename ... on OperationInfo { messages { code message } } ... on CreatedInvite { token } } }"""
REISSUE = CREATE.replace("CreateInviteInput", "ReissueInviteInput").replace("createInvite", "reissueInvite")


def json_error(status: int) -> Reply:
    return Reply(status=status, body=b'{"error": "Not now.", "error_human": "Not now."}')


# What Zammad returns, and how the one logged line reports it.
REFUSALS = {
    status: (json_error(status), f"Zammad answered {status}: Not now.")
    for status in (401, 403, 404, 422, 429, 500, 502, 503, 504)
}
FAULTS: dict[str, tuple[Fault | Reply, str]] = {
    "reset": (Fault.RESET, r"Zammad could not be reached \(\w+\)\."),
    "hang": (Fault.HANG, r"Zammad did not answer in time \(\w+\)\."),
    "dripping headers": (Fault.DRIP_HEADERS, r"Zammad did not answer in time \(\w+\)\."),
    "dripping body": (Fault.DRIP_BODY, r"Zammad did not answer in time \(\w+\)\."),
    "truncated": (Fault.TRUNCATE, r"Zammad could not be reached \(\w+\)\."),
    "HTML": (faulty.HTML_PAGE, "Zammad's response is not JSON."),
    "an HTML error": (
        Reply(status=502, body=b"<h1>Bad gateway</h1>", headers={"Content-Type": "text/html"}),
        "Zammad answered 502: no reason given",
    ),
    "broken JSON": (faulty.BROKEN_JSON, "Zammad's response is not JSON."),
    "a text": (faulty.WRONG_TYPE, "Zammad's response is not (an object|a list)."),
    "a number": (Reply(body=b"5"), "Zammad's response is not (an object|a list)."),
    "null": (Reply(body=b"null"), "Zammad's response is not JSON."),
    "an object of another kind": (
        Reply(body=b'{"token": 5, "tokens": {}}'),
        "Zammad's response (contains no|is not a list)",
    ),
    "empty": (Reply(body=b""), "Zammad's response is not JSON."),
    "a redirect": (faulty.REDIRECT, "Zammad answered 302: no reason given"),
    **{str(status): (reply, re.escape(line)) for status, (reply, line) in REFUSALS.items()},
}
# Faults of the one response that contains a token; lists may be that long.
TOKEN_FAULTS: dict[str, tuple[Fault | Reply, str]] = {
    "a null token": (faulty.NULL_TOKEN, "Zammad's response contains no token."),
    "oversized": (faulty.OVERSIZED, "Zammad's response is too long."),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """Something that needs Zammad."""

    route: str
    fails: Callable[[], str]  # returns the line that says why, where it is not logged
    succeeds: Callable[[], object]


@pytest.fixture
def hurried(settings: Settings) -> None:
    settings.ZAMMAD_CONNECT_TIMEOUT = 0.3
    settings.ZAMMAD_DEADLINE = settings.ZAMMAD_COMMAND_DEADLINE = DEADLINE


@pytest.fixture(
    params=[
        "createInvite",
        "reissueInvite",
        "import_zammad_users",
        "reconcile_invites",
        "install_zammad_webhook",
    ]
)
def operation(
    request: pytest.FixtureRequest,
    plan: FamilyPlan,
    alice: User,
    sandbox: Sandbox,
    hurried: None,
) -> Operation:
    """One of the operations that need Zammad, with some work to do."""
    match request.param:
        case "createInvite":
            values = {"planId": node_id(plan), "email": ADDRESS}
            return mutation(CREATE, alice, values)
        case "reissueInvite":
            invite = InviteFactory(family_plan=plan, created_by=alice, email=ADDRESS)
            return mutation(REISSUE, alice, {"inviteId": node_id(invite)})
        case "import_zammad_users":
            return Operation(
                route="GET /api/v1/users",
                fails=lambda: failing_command("import_zammad_users"),
                succeeds=lambda: imports_everybody(sandbox),
            )
        case "install_zammad_webhook":
            return Operation(
                route="POST /api/v1/webhooks",
                fails=lambda: failing_command("install_zammad_webhook"),
                succeeds=lambda: installs(sandbox),
            )
        case _:
            needed = InviteFactory(family_plan=plan, created_by=alice)
            sandbox.add_token(2, "needed", name=needed.zammad_token_name)["created_at"] = OLD
            lost = f"family-plan-invite-{'0' * 8}-0000-4000-8000-{'0' * 12}"
            sandbox.add_token(2, "lost", name=lost)["created_at"] = OLD
            return Operation(
                route=f"GET {TOKENS}",
                fails=lambda: failing_command("reconcile_invites"),
                succeeds=lambda: reconciles(sandbox, keeps=needed.zammad_token_name),
            )


def mutation(query: str, person: User, values: dict[str, str]) -> Operation:
    def fails() -> str:
        message = refusal_of(person, query, input=values)
        assert message == {
            "code": "INVITE_TOKEN_UNAVAILABLE",
            "message": "The invite could not be created just now. Try again in a moment.",
        }
        return ""

    def succeeds() -> None:
        created = ask(person, query, input=values)
        assert created["__typename"] == "CreatedInvite"
        assert FamilyPlanInvite.objects.filter(token_digest=digest_of(created["token"])).count() == 1

    return Operation(route=f"POST {TOKENS}", fails=fails, succeeds=succeeds)


def failing_command(name: str, **options: object) -> str:
    with pytest.raises(CommandError) as error:
        call_command(name, stdout=io.StringIO(), **options)
    return str(error.value)


def installs(sandbox: Sandbox) -> None:
    call_command("install_zammad_webhook", stdout=io.StringIO(), stderr=io.StringIO())
    assert len(sandbox.records["webhooks"]) == 1
    assert len(sandbox.records["triggers"]) == 2


def imports_everybody(sandbox: Sandbox) -> None:
    call_command("import_zammad_users", stdout=io.StringIO())
    assert ZammadUser.objects.count() == len(sandbox.records["users"]) - 1  # never Zammad's own user 1


def reconciles(sandbox: Sandbox, *, keeps: str) -> None:
    call_command("reconcile_invites", stdout=io.StringIO())
    assert [row["name"] for row in sandbox.records["tokens"].values()] == ["Family Plans", keeps]


def everything(sandbox: Sandbox) -> object:
    return rows(), {row["name"] for row in sandbox.records["tokens"].values()}


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """List what an operator reads, without the line of every request; nothing is silenced."""
    records = [record for record in caplog.records if record.name != "config.middleware"]
    return [record.getMessage() for record in records if record.levelno >= logging.INFO]


def holds_no_secret(told: str, sandbox: Sandbox, *secrets: str) -> bool:
    values = [str(row["value"]) for row in sandbox.records["tokens"].values()]
    return not any(secret in told for secret in (*values, "Authorization", *secrets))


def check(
    operation: Operation,
    line: str,
    *,
    sandbox: Sandbox,
    caplog: pytest.LogCaptureFixture,
    secrets: tuple[str, ...] = (ADDRESS,),
) -> None:
    """Check what is promised of an operation that meets a fault."""
    before = everything(sandbox)

    # it ends in time
    started = time.monotonic()
    told = operation.fails()
    assert time.monotonic() - started < PROMISED

    # one line has the cause and no secret
    told_lines = [told] if told else lines(caplog)
    assert len(told_lines) == 1, told_lines
    assert re.search(line, told_lines[0]), told_lines
    assert holds_no_secret(caplog.text + told, sandbox, *secrets)

    # nothing was changed, here or there
    assert everything(sandbox) == before


@pytest.mark.parametrize(("fault", "line"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_told_and_leaves_nothing_behind(
    operation: Operation, fault: Fault | Reply, line: str, sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    sandbox.faults.set(operation.route, fault)

    check(operation, line, sandbox=sandbox, caplog=caplog)

    sandbox.faults.clear()
    operation.succeeds()


@pytest.mark.parametrize("operation", ["createInvite", "reissueInvite"], indirect=True)
@pytest.mark.parametrize(("fault", "line"), TOKEN_FAULTS.values(), ids=TOKEN_FAULTS)
def test_an_answer_without_a_token_that_can_be_used_makes_no_invite(
    operation: Operation, fault: Fault | Reply, line: str, sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    sandbox.faults.set(operation.route, fault)

    check(operation, line, sandbox=sandbox, caplog=caplog)

    sandbox.faults.clear()
    operation.succeeds()


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "nobody.invalid"], ids=["a refused connection", "a name that nobody knows"]
)
def test_a_zammad_that_is_not_there_is_told_and_leaves_nothing_behind(
    operation: Operation,
    host: str,
    sandbox: Sandbox,
    settings: Settings,
    caplog: pytest.LogCaptureFixture,
) -> None:
    # given an address with credentials in it, where nobody listens
    there = settings.ZAMMAD_URL
    settings.ZAMMAD_URL = f"http://agent:hunter2@{host}:{free_port()}"

    check(
        operation,
        r"Zammad (could not be reached|did not answer in time) \(\w+\)\.",
        sandbox=sandbox,
        caplog=caplog,
        secrets=(ADDRESS, "agent", "hunter2", host),
    )

    settings.ZAMMAD_URL = there
    operation.succeeds()


def test_a_mutation_asks_zammad_once_however_it_fails(
    plan: FamilyPlan, alice: User, sandbox: Sandbox, hurried: None
) -> None:
    sandbox.faults.set(f"POST {TOKENS}", Reply(status=503))

    assert refusal_of(alice, CREATE, input={"planId": node_id(plan)})["code"] == "INVITE_TOKEN_UNAVAILABLE"

    assert [(call.method, call.path) for call in sandbox.calls] == [("POST", TOKENS)]


def test_an_import_that_is_cut_keeps_the_pages_before_and_says_where_to_go_on(
    plan: FamilyPlan, sandbox: Sandbox, hurried: None
) -> None:
    # given a Zammad that responds to the check and the first page, and then no more
    asked = itertools.count()
    take = sandbox.faults.take

    def fail_later(called: str) -> Fault | Reply | None:
        return None if next(asked) < 2 else take(called)

    sandbox.faults.set("GET /api/v1/users", json_error(500))
    with mock.patch.object(sandbox.faults, "take", fail_later):
        told = failing_command("import_zammad_users", per_page=2)

    assert told == "Zammad answered 500: Not now. Go on with --start-page 2 --per-page 2."
    assert [user.zammad_id for user in ZammadUser.objects.all()] == [2]

    # when Zammad is back, then the rest comes
    sandbox.faults.clear()
    call_command("import_zammad_users", start_page=2, per_page=2, stdout=io.StringIO())
    assert sorted(user.zammad_id for user in ZammadUser.objects.all()) == [2, 3, 4, 5, 6, 7]


def test_a_reconciliation_that_is_cut_goes_on_the_next_time(
    plan: FamilyPlan, alice: User, sandbox: Sandbox, hurried: None
) -> None:
    # given three tokens that nobody needs, and a Zammad that refuses to delete the second
    for number in range(3):
        name = f"family-plan-invite-{number:08}-0000-4000-8000-{0:012}"
        sandbox.add_token(2, f"lost-{number}", name=name)["created_at"] = OLD
    sandbox.faults.set(f"DELETE {TOKENS}/3", json_error(403))

    assert failing_command("reconcile_invites") == "Zammad answered 403: Not now."
    assert len(sandbox.records["tokens"]) == 3

    sandbox.faults.clear()
    call_command("reconcile_invites", stdout=io.StringIO())
    assert [row["name"] for row in sandbox.records["tokens"].values()] == ["Family Plans"]
