"""One command installs the webhook and its triggers in Zammad, and removes them again."""

from __future__ import annotations

import copy
import io
import json
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from pytest_django import Settings
from pytest_django.live_server_helper import LiveServer

from zammad.client import get_client
from zammad.installation import InstallationRefused, check_endpoint, install
from zammad.models import WebhookDelivery, ZammadUser
from zammad.sandbox import PEOPLE, Reply, Sandbox, Version

ENDPOINT = "https://plans.example.com/webhooks/zammad/"
OLD = "https://old.example.com/webhooks/zammad/"
SECRET = "the-first-of-two-secrets"
SET_AGAIN = "; Zammad does not show its signature_token, so that was set again."
MINTING = frozenset({"user_preferences.access_token", "ticket.agent"})


@pytest.fixture(autouse=True)
def _two_secrets(settings: Settings) -> None:
    settings.ZAMMAD_WEBHOOK_SECRETS = [SECRET, "the-second-of-two-secrets"]


def run(*arguments: str) -> list[str]:
    """Run the command, and return the lines of its output, warnings last."""
    out, err = io.StringIO(), io.StringIO()
    call_command("install_zammad_webhook", *arguments, stdout=out, stderr=err)
    return [*out.getvalue().splitlines(), *err.getvalue().splitlines()]


def installed(sandbox: Sandbox) -> dict[str, dict[int, dict[str, Any]]]:
    """Copy what an admin would see in Zammad."""
    with sandbox.lock:
        return copy.deepcopy({name: sandbox.records[name] for name in ("webhooks", "triggers")})


def written(sandbox: Sandbox) -> list[tuple[str, str, dict[str, Any]]]:
    """List the calls that would change something, with what they sent."""
    return [
        (call.method, call.path.removeprefix("/api/v1/"), json.loads(call.body or b"{}"))
        for call in sandbox.calls
        if call.method != "GET"
    ]


@pytest.fixture
def modest(sandbox: Sandbox) -> Sandbox:
    """A Zammad in which an agent without admin.user owns the token that creates tokens."""
    agent = sandbox.add_user("agent@helpdesk.example", permissions=MINTING)
    with sandbox.lock:
        sandbox.records["tokens"][1].update(user_id=agent["id"], permissions=MINTING)
    sandbox.add_token(2, "the-token-of-an-admin", name="Install", permissions=PEOPLE[0][3])
    return sandbox


# --- Installing ----------------------------------------------------------------------------------


def test_a_webhook_and_two_triggers_are_made_as_zammad_wants_them(sandbox: Sandbox) -> None:
    lines = run("--endpoint", ENDPOINT)

    assert lines[:4] == [
        'Webhook "Family Plans": created.',
        'Trigger "Family Plans: ticket created": created.',
        'Trigger "Family Plans: ticket updated": created.',
        f"Zammad sends webhooks to {ENDPOINT}",
    ]
    note = "Made by install_zammad_webhook, which also changes and removes it."
    assert written(sandbox) == [
        (
            "POST",
            "webhooks",
            {
                "name": "Family Plans",
                "endpoint": ENDPOINT,
                "signature_token": SECRET,
                "ssl_verify": True,
                "active": True,
                "customized_payload": False,
                "pre_defined_webhook_type": "",
                "http_method": "post",
                "note": note,
            },
        ),
        *(
            (
                "POST",
                "triggers",
                {
                    "name": f"Family Plans: {name}",
                    "active": True,
                    "activator": "action",
                    "execution_condition_mode": "always",
                    "disable_notification": True,
                    "condition": {"ticket.action": {"operator": "is", "value": event}},
                    "perform": {"notification.webhook": {"webhook_id": 1}},
                    "note": note,
                },
            )
            for event, name in (("create", "ticket created"), ("update", "ticket updated"))
        ),
    ]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("change", [{"title": "Still no invoice"}, {"state": "open"}, {"customer_id": 4}])
def test_updates_without_an_article_arrive_once_old_triggers_were_repaired(
    sandbox: Sandbox, live_server: LiveServer, change: dict[str, Any]
) -> None:
    endpoint = f"{live_server.url}/webhooks/zammad/"
    run("--endpoint", endpoint)
    for trigger in sandbox.records["triggers"].values():
        trigger["execution_condition_mode"] = "selective"
    ticket = sandbox.create_ticket("alice@example.com")
    sandbox.update_ticket(ticket["id"], title="A change that is missed")
    sandbox.settle()
    assert len(sandbox.deliveries) == 1

    run("--endpoint", endpoint)
    sandbox.update_ticket(ticket["id"], **change)
    sandbox.settle()

    assert [delivery.statuses for delivery in sandbox.deliveries] == [[200], [200]]
    assert WebhookDelivery.objects.filter(trigger="Family Plans: ticket updated").count() == 1


@pytest.mark.django_db(transaction=True)
def test_what_was_installed_brings_users_in(sandbox: Sandbox, live_server: LiveServer) -> None:
    run("--endpoint", f"{live_server.url}/webhooks/zammad/")

    ticket = sandbox.create_ticket("alice@example.com")
    sandbox.settle()
    sandbox.update_ticket(ticket["id"], title="Still no invoice")
    sandbox.settle()

    assert [delivery.statuses for delivery in sandbox.deliveries] == [[200], [200]]
    assert ZammadUser.objects.get().email == "alice@example.com"
    assert list(WebhookDelivery.objects.order_by("pk").values_list("trigger", "outcome")) == [
        ("Family Plans: ticket created", "APPLIED"),
        ("Family Plans: ticket updated", "STALE"),
    ]


def test_the_endpoint_is_ours_unless_another_is_named(sandbox: Sandbox, settings: Settings) -> None:
    settings.PUBLIC_URL = "https://plans.example.com"

    run()

    assert sandbox.records["webhooks"][1]["endpoint"] == ENDPOINT


def test_a_second_run_changes_nothing_where_the_signature_token_is_shown(sandbox: Sandbox) -> None:
    run("--endpoint", ENDPOINT)
    before = installed(sandbox)
    sandbox.calls.clear()

    lines = run("--endpoint", ENDPOINT)

    assert lines[:4] == [
        'Webhook "Family Plans": unchanged.',
        'Trigger "Family Plans: ticket created": unchanged.',
        'Trigger "Family Plans: ticket updated": unchanged.',
        "Nothing had to change.",
    ]
    assert written(sandbox) == []
    assert installed(sandbox) == before


def test_a_masked_signature_token_is_set_again_and_that_is_said(sandbox: Sandbox, settings: Settings) -> None:
    sandbox.version = Version.V7
    run("--endpoint", ENDPOINT)
    settings.ZAMMAD_WEBHOOK_SECRETS = ["a-rotated-secret", SECRET]
    sandbox.calls.clear()

    lines = run("--endpoint", ENDPOINT)

    assert lines[0] == f'Webhook "Family Plans": unchanged{SET_AGAIN}'
    assert lines[3] == "Nothing else had to change."
    assert written(sandbox) == [("PUT", "webhooks/1", {"signature_token": "a-rotated-secret"})]
    assert sandbox.records["webhooks"][1]["signature_token"] == "a-rotated-secret"


def test_a_signature_token_that_is_not_even_masked_is_set_again(sandbox: Sandbox) -> None:
    run("--endpoint", ENDPOINT)
    with sandbox.lock:
        del sandbox.records["webhooks"][1]["signature_token"]

    lines = run("--endpoint", ENDPOINT)

    assert lines[0] == f'Webhook "Family Plans": unchanged{SET_AGAIN}'
    assert sandbox.records["webhooks"][1]["signature_token"] == SECRET


def test_a_signature_token_that_is_shown_and_differs_is_updated(sandbox: Sandbox) -> None:
    run("--endpoint", ENDPOINT)
    for other, told in (
        ("another", "  signature_token was not the first of ZAMMAD_WEBHOOK_SECRETS."),
        (None, "  signature_token was missing: deliveries were unsigned, and refused here."),
    ):
        sandbox.records["webhooks"][1]["signature_token"] = other

        lines = run("--endpoint", ENDPOINT)

        assert lines[:2] == ['Webhook "Family Plans": updated (signature_token).', told]
        assert sandbox.records["webhooks"][1]["signature_token"] == SECRET


def test_only_what_differs_is_put_right(sandbox: Sandbox) -> None:
    # given a webhook at an old address, one trigger renamed in capitals and switched
    # off, and the other one missing
    sandbox.version = Version.V7
    run("--endpoint", OLD)
    with sandbox.lock:
        sandbox.records["triggers"][1].update(name="FAMILY PLANS: Ticket Created", active=False)
        del sandbox.records["triggers"][2]
    sandbox.calls.clear()

    lines = run("--endpoint", ENDPOINT)

    assert lines[:6] == [
        f'Webhook "Family Plans": updated (endpoint){SET_AGAIN}',
        f'  endpoint was "{OLD}", not "{ENDPOINT}": deliveries were sent elsewhere.',
        'Trigger "Family Plans: ticket created": updated (name, active).',
        '  name was "FAMILY PLANS: Ticket Created", not "Family Plans: ticket created".',
        "  active was false, not true: nothing was sent.",
        'Trigger "Family Plans: ticket updated": created.',
    ]
    assert "Nothing had to change." not in lines
    assert [(method, path) for method, path, _ in written(sandbox)] == [
        ("PUT", "webhooks/1"),
        ("PUT", "triggers/1"),
        ("POST", "triggers"),
    ]
    assert written(sandbox)[1][2] == {"name": "Family Plans: ticket created", "active": True}


SPOILT = {
    "endpoint": (
        "https://kim:hunter2@elsewhere.example.com/hook",
        f'"https://***@elsewhere.example.com/hook", not "{ENDPOINT}": deliveries were sent elsewhere',
    ),
    "ssl_verify": (False, "false, not true: the certificate of the endpoint was not checked"),
    "active": (False, "false, not true: nothing was sent"),
    "customized_payload": (
        True,
        "true, not false: deliveries were of a shape that is ignored here",
    ),
    "pre_defined_webhook_type": (
        "Slack",
        '"Slack", not "": deliveries were made for another product, and ignored here',
    ),
    "http_method": ("put", '"put", not "post": deliveries were refused, as only POST is accepted here'),
}
SPOILT_TRIGGER = {
    "active": (False, "false, not true: nothing was sent"),
    "activator": (
        "time",
        '"time", not "action": nothing was sent when a ticket is created or updated',
    ),
    "execution_condition_mode": (
        "selective",
        '"selective", not "always": updates were sent only with a new article',
    ),
    "condition": (
        {"ticket.state_id": {"operator": "is", "value": ["1"]}},
        (
            '{"ticket.state_id": {"operator": "is", "value": ["1"]}}, not '
            '{"ticket.action": {"operator": "is", "value": "update"}}: '
            "it was sent for other events, or for fewer"
        ),
    ),
    "perform": (
        {"notification.webhook": {"webhook_id": 77}},
        (
            '{"notification.webhook": {"webhook_id": 77}}, not {"notification.webhook": {"webhook_id": 1}}: '
            "our webhook was not sent, or not alone"
        ),
    ),
}


@pytest.mark.parametrize("field", SPOILT)
def test_a_webhook_that_reaches_us_no_more_is_repaired_and_that_is_said(sandbox: Sandbox, field: str) -> None:
    sandbox.version = Version.V7
    run("--endpoint", ENDPOINT)
    good = dict(sandbox.records["webhooks"][1])
    value, told = SPOILT[field]
    sandbox.records["webhooks"][1][field] = value

    lines = run("--endpoint", ENDPOINT)

    assert lines[:2] == [f'Webhook "Family Plans": updated ({field}){SET_AGAIN}', f"  {field} was {told}."]
    assert {**sandbox.records["webhooks"][1], "updated_at": ""} == {**good, "updated_at": ""}


@pytest.mark.parametrize("field", SPOILT_TRIGGER)
def test_a_trigger_that_misses_something_is_repaired_and_that_is_said(sandbox: Sandbox, field: str) -> None:
    run("--endpoint", ENDPOINT)
    good = dict(sandbox.records["triggers"][2])
    value, told = SPOILT_TRIGGER[field]
    sandbox.records["triggers"][2][field] = value

    lines = run("--endpoint", ENDPOINT)

    assert lines[2:4] == [
        f'Trigger "Family Plans: ticket updated": updated ({field}).',
        f"  {field} was {told}.",
    ]
    assert {**sandbox.records["triggers"][2], "updated_at": ""} == {**good, "updated_at": ""}


def test_everything_spoilt_at_once_is_repaired_in_one_run(sandbox: Sandbox) -> None:
    sandbox.version = Version.V7
    run("--endpoint", ENDPOINT)
    before = installed(sandbox)
    sandbox.records["webhooks"][1].update({field: value for field, (value, _) in SPOILT.items()})
    for trigger in sandbox.records["triggers"].values():
        trigger.update({field: value for field, (value, _) in SPOILT_TRIGGER.items()})

    run("--endpoint", ENDPOINT)

    after = installed(sandbox)
    for table in ("webhooks", "triggers"):
        for row_id, row in after[table].items():
            assert {**row, "updated_at": ""} == {**before[table][row_id], "updated_at": ""}


@pytest.mark.parametrize(
    ("table", "shown"),
    [
        ("webhooks", {"pre_defined_webhook_type": None}),
        ("webhooks", {"customized_payload": None}),
        ("triggers", {"perform": {"notification.webhook": {"webhook_id": "1"}}}),
    ],
)
def test_what_zammad_writes_in_another_way_is_no_difference(
    sandbox: Sandbox, table: str, shown: dict[str, object]
) -> None:
    run("--endpoint", ENDPOINT)
    for row in sandbox.records[table].values():
        row.update(shown)
    sandbox.calls.clear()

    run("--endpoint", ENDPOINT)

    assert written(sandbox) == []


@pytest.mark.parametrize("version", [Version.V6_0, Version.V6_5])
def test_a_version_that_knows_no_method_is_not_told_again_and_again(
    sandbox: Sandbox, version: Version
) -> None:
    sandbox.version = version
    run("--endpoint", ENDPOINT)
    assert "http_method" not in sandbox.records["webhooks"][1]
    sandbox.calls.clear()

    run("--endpoint", ENDPOINT)

    assert written(sandbox) == []


@pytest.mark.parametrize("there", [True, False])
def test_an_endpoint_that_zammad_cannot_resolve_is_explained(sandbox: Sandbox, there: bool) -> None:
    if there:
        run("--endpoint", "https://old.example.com/webhooks/zammad/")
    before = installed(sandbox)
    sandbox.unknown_hosts.add("plans.example.com")

    with pytest.raises(CommandError) as refusal:
        run("--endpoint", ENDPOINT)

    assert str(refusal.value) == (
        "Zammad answered 422: The provided endpoint is invalid, it could not be resolved to a safe IP "
        "address. Zammad, from its own machine, found no address for plans.example.com that it would send "
        "to. Add the name to the DNS that Zammad uses, or name another host by PUBLIC_URL or --endpoint, "
        "and run this again. If the name is lost later, newer versions drop deliveries without a retry."
    )
    assert installed(sandbox) == before


def test_another_refusal_of_the_webhook_is_told_as_it_is(sandbox: Sandbox) -> None:
    sandbox.faults.set("POST /api/v1/webhooks", Reply(status=422, body=b'{"error": "Something else"}'))

    with pytest.raises(CommandError, match=r"^Zammad answered 422: Something else$"):
        run("--endpoint", ENDPOINT)


def test_triggers_follow_a_webhook_that_was_made_anew(sandbox: Sandbox) -> None:
    run("--endpoint", ENDPOINT)
    with sandbox.lock:
        sandbox.records["webhooks"] = {7: {**sandbox.records["webhooks"][1], "id": 7}}

    lines = run("--endpoint", ENDPOINT)

    assert lines[1] == 'Trigger "Family Plans: ticket created": updated (perform).'
    assert {
        trigger["perform"]["notification.webhook"]["webhook_id"]
        for trigger in sandbox.records["triggers"].values()
    } == {7}


def test_two_installations_at_one_zammad_leave_each_other_alone(sandbox: Sandbox) -> None:
    run("--endpoint", ENDPOINT)
    production = installed(sandbox)

    run("--endpoint", "https://staging.example.com/webhooks/zammad/", "--name", "Family Plans, staging")
    assert len(sandbox.records["triggers"]) == 4

    run("--remove", "--name", "Family Plans, staging")
    assert installed(sandbox) == production


def test_a_dry_run_tells_and_changes_nothing(sandbox: Sandbox) -> None:
    lines = run("--endpoint", ENDPOINT, "--dry-run")

    assert lines[:4] == [
        "A dry run: this would be done.",
        'Webhook "Family Plans": created.',
        'Trigger "Family Plans: ticket created": created.',
        'Trigger "Family Plans: ticket updated": created.',
    ]
    assert written(sandbox) == []

    run("--endpoint", "https://old.example.com/webhooks/zammad/")
    sandbox.calls.clear()
    lines = run("--endpoint", ENDPOINT, "--dry-run")
    assert lines[1].startswith('Webhook "Family Plans": updated (endpoint)')
    assert lines[2] == f'  endpoint is "{OLD}", not "{ENDPOINT}": deliveries are sent elsewhere.'
    assert written(sandbox) == []


def test_an_endpoint_elsewhere_than_our_page_is_warned_of(
    modest: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INSTALLING", "the-token-of-an-admin")

    lines = run("--endpoint", ENDPOINT.rstrip("/"), "--token-from-env", "INSTALLING")

    assert lines[-1] == "Warning: The endpoint does not end in /webhooks/zammad/, where they are received."


# --- What is refused, before anything is changed --------------------------------------------------


@pytest.mark.parametrize(
    ("permissions", "missing"),
    [
        ({"admin.trigger"}, "admin.webhook"),
        ({"admin.webhook"}, "admin.trigger"),
        (set(), "admin.webhook and admin.trigger"),
    ],
)
@pytest.mark.parametrize("arguments", [("--endpoint", ENDPOINT), ("--remove",)])
def test_rights_that_are_missing_are_named_first(
    sandbox: Sandbox, permissions: set[str], missing: str, arguments: tuple[str, ...]
) -> None:
    sandbox.install_webhook("https://old.example.com/", secret="s")
    with sandbox.lock:
        sandbox.records["tokens"][1]["permissions"] = frozenset(permissions)
    before = installed(sandbox)

    with pytest.raises(CommandError, match=rf"^The token or its owner lacks {missing} in Zammad\.$"):
        run(*arguments)

    assert written(sandbox) == []
    assert installed(sandbox) == before


def test_a_token_that_zammad_does_not_know_is_told_apart(sandbox: Sandbox, settings: Settings) -> None:
    settings.ZAMMAD_API_TOKEN = "nobody's"

    with pytest.raises(CommandError, match=r"^Zammad answered 401: Can't find User for Token$"):
        run("--endpoint", ENDPOINT)


def test_tokens_that_are_switched_off_are_told_apart(sandbox: Sandbox) -> None:
    sandbox.api_token_access = False

    with pytest.raises(CommandError, match=r"^Zammad answered 403: API token access disabled!$"):
        run("--endpoint", ENDPOINT)


def test_a_zammad_that_fails_while_rights_are_checked_is_told_apart(sandbox: Sandbox) -> None:
    sandbox.faults.set("GET /api/v1/triggers", Reply(status=500))

    with pytest.raises(CommandError, match=r"^Zammad answered 500"):
        run("--endpoint", ENDPOINT)
    assert written(sandbox) == []


def test_several_webhooks_of_our_name_are_left_to_an_admin(sandbox: Sandbox) -> None:
    sandbox.install_webhook("https://a.example.com/", secret="s")
    with sandbox.lock:
        sandbox.records["webhooks"][2] = {**sandbox.records["webhooks"][1], "id": 2}
    before = installed(sandbox)

    for arguments in (("--endpoint", ENDPOINT), ("--remove",)):
        with pytest.raises(CommandError, match=r'^Zammad has several webhooks named "Family Plans"'):
            run(*arguments)
    assert installed(sandbox) == before


@pytest.mark.parametrize(
    ("endpoint", "reason"),
    [
        ("http://plans.example.com/webhooks/zammad/", "must be an https:// URL"),
        ("http://10.0.0.5/webhooks/zammad/", "must be an https:// URL"),
        ("http://127.0.0.1.example.com/", "must be an https:// URL"),
        ("https:///webhooks/zammad/", "not an https:// URL"),
        ("ftp://plans.example.com/", "not an https:// URL"),
        ("plans.example.com", "not an https:// URL"),
        (f"https://plans.example.com/{'x' * 2000}", "not an https:// URL"),
        ("https://plans.example.com:port/", "not a URL"),
        ("https://[plans.example.com/", "not a URL"),
        ("https://admin:hunter2@plans.example.com/", "holds credentials"),
    ],
)
def test_an_endpoint_that_zammad_should_not_send_to_is_refused(
    sandbox: Sandbox, endpoint: str, reason: str
) -> None:
    with pytest.raises(CommandError, match=reason) as refusal:
        run("--endpoint", endpoint)

    assert sandbox.calls == []
    assert "hunter2" not in str(refusal.value)


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost", "[::1]:8000", "127.9.9.9"])
def test_http_will_do_on_this_machine(host: str) -> None:
    check_endpoint(f"http://{host}/webhooks/zammad/")


def test_an_endpoint_is_checked_also_without_the_command(sandbox: Sandbox) -> None:
    with pytest.raises(InstallationRefused):
        list(install(client=get_client(), name="a", endpoint="http://a.example/", signature_token=SECRET))


@pytest.mark.parametrize("secrets", [[], [""], ["x" * 201]])
def test_a_signature_token_is_needed_that_zammad_can_hold(
    sandbox: Sandbox, settings: Settings, secrets: list[str]
) -> None:
    settings.ZAMMAD_WEBHOOK_SECRETS = secrets

    with pytest.raises(CommandError, match=r"^ZAMMAD_WEBHOOK_SECRETS must begin with a secret of 1 to 200"):
        run("--endpoint", ENDPOINT)
    assert sandbox.calls == []


def test_what_was_done_before_zammad_failed_is_told_and_the_next_run_goes_on(sandbox: Sandbox) -> None:
    sandbox.faults.set("POST /api/v1/triggers", Reply(status=500))
    out = io.StringIO()

    with pytest.raises(CommandError, match=r"^Zammad answered 500"):
        call_command("install_zammad_webhook", "--endpoint", ENDPOINT, stdout=out)
    assert out.getvalue() == 'Webhook "Family Plans": created.\n'

    sandbox.faults.clear()
    assert run("--endpoint", ENDPOINT)[1:3] == [
        'Trigger "Family Plans: ticket created": created.',
        'Trigger "Family Plans: ticket updated": created.',
    ]
    assert len(sandbox.records["webhooks"]) == 1


# --- Tokens and secrets ---------------------------------------------------------------------------


def test_installing_may_use_a_token_of_its_own(modest: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSTALLING", "the-token-of-an-admin")
    with pytest.raises(CommandError, match=r"lacks admin\.webhook and admin\.trigger"):
        run("--endpoint", ENDPOINT)

    lines = run("--endpoint", ENDPOINT, "--token-from-env", "INSTALLING")

    assert lines[-1] == f"Zammad sends webhooks to {ENDPOINT}"
    assert len(modest.records["triggers"]) == 2


def test_a_variable_that_holds_no_token_is_refused(sandbox: Sandbox) -> None:
    with pytest.raises(CommandError, match=r"^The environment variable NOT_SET_AT_ALL is empty\.$"):
        run("--endpoint", ENDPOINT, "--token-from-env", "NOT_SET_AT_ALL")

    assert sandbox.calls == []


def test_an_owner_of_the_minting_token_who_is_too_powerful_is_warned_of(sandbox: Sandbox) -> None:
    lines = run("--endpoint", ENDPOINT)

    assert lines[-1].startswith("Warning: The owner of ZAMMAD_API_TOKEN holds admin.user.")


def test_a_minting_token_that_cannot_be_judged_is_warned_of(sandbox: Sandbox) -> None:
    with sandbox.lock:
        sandbox.records["tokens"][1]["permissions"] = frozenset({"admin.webhook", "admin.trigger"})

    lines = run("--endpoint", ENDPOINT)

    assert lines[-1] == (
        "Warning: ZAMMAD_API_TOKEN could not be checked: Zammad answered 403: Token authorization failed."
    )
    assert len(sandbox.records["triggers"]) == 2


@pytest.mark.parametrize("version", Version)
def test_nothing_secret_comes_to_the_screen_or_into_logs(
    sandbox: Sandbox, version: Version, caplog: pytest.LogCaptureFixture, settings: Settings
) -> None:
    caplog.set_level("DEBUG")
    sandbox.version = version
    told = [*run("--endpoint", ENDPOINT)]
    settings.ZAMMAD_WEBHOOK_SECRETS = ["a-rotated-secret"]
    told += [*run("--endpoint", ENDPOINT), *run("--remove")]
    quoting = Reply(status=422, body=b'{"error": "a-rotated-secret of sandbox-api-token is bad"}')
    sandbox.faults.set("POST /api/v1/webhooks", quoting)
    with pytest.raises(CommandError) as refusal:
        run("--endpoint", ENDPOINT)

    everything = "\n".join([*told, str(refusal.value), caplog.text])
    assert "422: *** of *** is bad" in everything
    for secret in (SECRET, "a-rotated-secret", "sandbox-api-token"):
        assert secret not in everything


# --- Removing -------------------------------------------------------------------------------------


def test_triggers_are_removed_before_their_webhook(sandbox: Sandbox) -> None:
    run("--endpoint", ENDPOINT)
    with sandbox.lock:
        sandbox.records["triggers"][3] = {**sandbox.records["triggers"][1], "id": 3, "name": "Somebody's"}
        sandbox.records["triggers"][3]["perform"] = {"notification.webhook": {"webhook_id": 9}}
    sandbox.calls.clear()

    lines = run("--remove")

    assert lines == [
        'Trigger "Family Plans: ticket created": removed.',
        'Trigger "Family Plans: ticket updated": removed.',
        'Webhook "Family Plans": removed.',
    ]
    assert [(method, path) for method, path, _ in written(sandbox)] == [
        ("DELETE", "triggers/1"),
        ("DELETE", "triggers/2"),
        ("DELETE", "webhooks/1"),
    ]
    assert [trigger["name"] for trigger in sandbox.records["triggers"].values()] == ["Somebody's"]


def test_removing_can_be_repeated(sandbox: Sandbox) -> None:
    run("--endpoint", ENDPOINT)
    run("--remove")

    assert run("--remove") == [
        'Trigger "Family Plans: ticket created": not there.',
        'Trigger "Family Plans: ticket updated": not there.',
        'Webhook "Family Plans": not there.',
        "Nothing had to change.",
    ]


def test_what_somebody_removed_meanwhile_is_no_failure(sandbox: Sandbox) -> None:
    run("--endpoint", ENDPOINT)
    sandbox.faults.set("DELETE /api/v1/triggers/1", Reply(status=404))

    with pytest.raises(CommandError, match="422: Cannot delete! This webhook is referenced by Trigger: "):
        run("--remove")
    # The fault left the trigger there: so Zammad keeps the webhook, and says why.
    sandbox.faults.clear()
    assert run("--remove")[0] == 'Trigger "Family Plans: ticket created": removed.'


def test_removing_in_a_dry_run_changes_nothing(sandbox: Sandbox) -> None:
    run("--endpoint", ENDPOINT)
    before = installed(sandbox)

    lines = run("--remove", "--dry-run")

    assert lines == [
        "A dry run: this would be done.",
        'Trigger "Family Plans: ticket created": removed.',
        'Trigger "Family Plans: ticket updated": removed.',
        'Webhook "Family Plans": removed.',
    ]
    assert installed(sandbox) == before
