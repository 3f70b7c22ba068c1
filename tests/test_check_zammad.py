"""The command reports what our token may do in Zammad, and warns if its owner may do too much."""

import io
from datetime import UTC, datetime, timedelta
from unittest import mock

import pytest
import time_machine
from django.core.management import CommandError, call_command
from django.db import DatabaseError
from pytest_django import Settings

from zammad.models import WebhookDelivery, WebhookDeliveryQuerySet
from zammad.sandbox import ADMIN, Fault, Sandbox, Version

pytestmark = pytest.mark.django_db

MINTING = "user_preferences.access_token"
KNOWN = "Zammad knows the token.\n"
MINTS = "It may make invite tokens.\n"
NEVER = "No delivery has come yet.\n"


ENDPOINT = "https://plans.example.com/webhooks/zammad/"
AT_ENDPOINT = ("--token-from-env", "INSTALLING", "--endpoint", ENDPOINT)


@pytest.fixture(autouse=True)
def _settings(settings: Settings) -> None:
    settings.ZAMMAD_WEBHOOK_MAX_BYTES = 10 * 1024 * 1024
    settings.ZAMMAD_WEBHOOK_SECRETS = ["the-signature-token"]


def check(*arguments: str) -> tuple[str, str]:
    out, err = io.StringIO(), io.StringIO()
    call_command("check_zammad", *arguments, stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


def let(sandbox: Sandbox, *, owner: set[str], token: set[str]) -> None:
    """Give the token to an owner with these permissions, and these to the token."""
    person = sandbox.add_user("minting@helpdesk.example", permissions=frozenset(owner))
    with sandbox.lock:
        sandbox.records["tokens"][1].update(user_id=person["id"], permissions=frozenset(token))


def test_an_agent_without_admin_user_is_as_it_should_be(sandbox: Sandbox) -> None:
    let(sandbox, owner={MINTING, "ticket.agent"}, token={MINTING, "ticket.agent"})

    assert check() == (f"{KNOWN}{MINTS}It may list users, as import_zammad_users does.\n{NEVER}", "")
    assert {call.method for call in sandbox.calls} == {"GET"}


@pytest.mark.parametrize("token", [{MINTING}, {MINTING, "admin.user"}])
def test_an_owner_with_admin_user_is_warned_of_whatever_the_token_may(
    sandbox: Sandbox, token: set[str]
) -> None:
    let(sandbox, owner={MINTING, "admin.user"}, token=token)

    _, warnings = check()

    assert warnings.splitlines()[-1] == (
        "Warning: The owner of ZAMMAD_API_TOKEN holds admin.user. In Zammad every token of such an "
        "account, also the powerless ones behind invites, can act as any user: make the token with an "
        "account without admin.user."
    )


def test_other_rights_of_an_admin_are_not_warned_of(sandbox: Sandbox) -> None:
    let(sandbox, owner={MINTING, "ticket.agent", "admin.webhook"}, token={MINTING, "ticket.agent"})

    assert check()[1] == ""


def test_a_token_that_sees_only_itself_is_warned_of(sandbox: Sandbox) -> None:
    let(sandbox, owner={MINTING, "ticket.agent"}, token={MINTING})

    assert check() == (
        KNOWN + MINTS + NEVER,
        "Warning: The token may not list users: import_zammad_users needs ticket.agent.\n",
    )


def test_it_tells_when_the_last_authentic_delivery_came(sandbox: Sandbox) -> None:
    came = datetime(2026, 8, 3, 8, 15, tzinfo=UTC)
    WebhookDelivery.objects.create(body_digest="0" * 64, outcome="IGNORED", last_received_at=came)

    with time_machine.travel(came + timedelta(hours=2, minutes=5)):
        out, _ = check()

    assert out.splitlines()[-1] == (
        "The last authentic delivery came 2 hours ago, at 2026-08-03 08:15:00 UTC."
    )


def test_a_database_that_does_not_answer_fails_the_check(sandbox: Sandbox) -> None:
    with (
        mock.patch.object(WebhookDeliveryQuerySet, "last_received_at", side_effect=DatabaseError("secret")),
        pytest.raises(CommandError, match=r"^The database does not answer \(DatabaseError\)\.$"),
    ):
        check()


def test_a_token_that_mints_nothing_fails_the_check(sandbox: Sandbox) -> None:
    let(sandbox, owner={MINTING, "ticket.agent"}, token={"ticket.agent"})

    with pytest.raises(
        CommandError, match=r"^Zammad answered 403: .* have user_preferences\.access_token\?$"
    ):
        check()


def test_a_zammad_that_does_not_answer_fails_the_check(sandbox: Sandbox) -> None:
    sandbox.faults.set("GET /api/v1/users/me", Fault.RESET)

    with pytest.raises(CommandError, match=r"^Zammad could not be reached \(\w+\)\.$"):
        check()


# --- The longest delivery -------------------------------------------------------------------------


def test_a_cap_below_what_zammad_sends_is_warned_of(sandbox: Sandbox, settings: Settings) -> None:
    let(sandbox, owner={MINTING, "ticket.agent"}, token={MINTING, "ticket.agent"})
    settings.ZAMMAD_WEBHOOK_MAX_BYTES = 10 * 1024 * 1024 - 1

    assert check()[1] == (
        "Warning: ZAMMAD_WEBHOOK_MAX_BYTES is 10485759. Deliveries of Zammad reach about 9 MB, and those "
        "longer than this are refused, and lost: set it to 10485760 at least.\n"
    )


def test_a_warning_is_a_failure_with_strict_alone(sandbox: Sandbox, settings: Settings) -> None:
    let(sandbox, owner={MINTING, "ticket.agent"}, token={MINTING, "ticket.agent"})
    check("--strict")

    settings.ZAMMAD_WEBHOOK_MAX_BYTES = 1
    check()
    with pytest.raises(CommandError, match=r"^Warnings: 1\. Each is a failure with --strict\.$"):
        check("--strict")


# --- Webhook and triggers -------------------------------------------------------------------------


@pytest.fixture
def installed(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    """A Zammad with our webhook and triggers, and a token that may read them."""
    let(sandbox, owner={MINTING, "ticket.agent"}, token={MINTING, "ticket.agent"})
    sandbox.add_token(2, "an-admin's", name="Install", permissions=ADMIN)
    monkeypatch.setenv("INSTALLING", "an-admin's")
    call_command("install_zammad_webhook", *AT_ENDPOINT, stdout=io.StringIO())
    sandbox.calls.clear()
    return sandbox


def test_what_is_as_installed_is_told(installed: Sandbox) -> None:
    out, warnings = check(*AT_ENDPOINT, "--strict")

    assert out.splitlines()[4:] == [
        'Webhook "Family Plans" is as install_zammad_webhook makes it.',
        'Trigger "Family Plans: ticket created" is as install_zammad_webhook makes it.',
        'Trigger "Family Plans: ticket updated" is as install_zammad_webhook makes it.',
    ]
    assert warnings == ""
    assert {call.method for call in installed.calls} == {"GET"}


def test_each_difference_is_named_with_both_values(installed: Sandbox) -> None:
    installed.records["webhooks"][1].update(
        endpoint="https://elsewhere.example.com/", pre_defined_webhook_type="Slack"
    )
    installed.records["triggers"][2]["execution_condition_mode"] = "selective"

    out, warnings = check(*AT_ENDPOINT)

    assert warnings.splitlines() == [
        (
            'Warning: Webhook "Family Plans": endpoint is "https://elsewhere.example.com/", not '
            f'"{ENDPOINT}": deliveries are sent elsewhere.'
        ),
        (
            'Warning: Webhook "Family Plans": pre_defined_webhook_type is "Slack", not "": deliveries are '
            "made for another product, and ignored here."
        ),
        (
            'Warning: Trigger "Family Plans: ticket updated": execution_condition_mode is "selective", not '
            '"always": updates are sent only with a new article.'
        ),
    ]
    assert 'Trigger "Family Plans: ticket created" is as' in out
    assert {call.method for call in installed.calls} == {"GET"}
    with pytest.raises(CommandError, match=r"^Warnings: 3\."):
        check(*AT_ENDPOINT, "--strict")


def test_a_signature_token_that_is_shown_is_compared_and_never_told(installed: Sandbox) -> None:
    installed.records["webhooks"][1]["signature_token"] = "a-foreign-one"

    out, warnings = check(*AT_ENDPOINT)

    assert warnings == (
        'Warning: Webhook "Family Plans": signature_token is not the first of ZAMMAD_WEBHOOK_SECRETS.\n'
    )
    for secret in ("a-foreign-one", "the-signature-token", "an-admin's"):
        assert secret not in out + warnings


def test_a_signature_token_that_is_masked_is_not_comparable_and_no_warning(installed: Sandbox) -> None:
    installed.version = Version.V7

    out, warnings = check(*AT_ENDPOINT, "--strict")

    assert out.splitlines()[4:6] == [
        'Webhook "Family Plans" is as install_zammad_webhook makes it.',
        'Webhook "Family Plans": Zammad masks its signature_token, which is not comparable.',
    ]
    assert warnings == ""


def test_what_is_not_there_is_warned_of(installed: Sandbox) -> None:
    _, warnings = check(*AT_ENDPOINT, "--name", "Another")

    assert warnings.splitlines() == [
        'Warning: Webhook "Another" is not there: run install_zammad_webhook.',
        'Warning: Trigger "Another: ticket created" is not there: run install_zammad_webhook.',
        'Warning: Trigger "Another: ticket updated" is not there: run install_zammad_webhook.',
    ]


def test_a_token_that_may_not_see_them_fails_the_check(
    installed: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INSTALLING", installed.token)

    with pytest.raises(
        CommandError, match=r"^The token or its owner lacks admin\.webhook and admin\.trigger"
    ):
        check(*AT_ENDPOINT)

    monkeypatch.setenv("INSTALLING", "")
    with pytest.raises(CommandError, match=r"^The environment variable INSTALLING is empty\.$"):
        check(*AT_ENDPOINT)
