"""What Zammad is asked for, what becomes of its token, and who gets to see which secret."""

import base64
import hashlib
import hmac
import logging
import re
from datetime import UTC, datetime, time, timedelta, timezone

import constance
import pytest
from django.apps import apps
from django.contrib.auth.models import User
from django.core import mail
from django.db import connection
from pytest_django import Settings
from time_machine import TimeMachineFixture

from plans.models import FamilyPlan, FamilyPlanInvite
from plans.services import accept_invite, create_invite, reissue_invite
from tests.factories import InviteFactory
from tests.refusals import refused
from zammad.sandbox import HTML_PAGE, NULL_TOKEN, Fault, Reply, Sandbox, Version

pytestmark = pytest.mark.django_db

NAME = re.compile(r"family-plan-invite-[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def tokens_for_invites(sandbox: Sandbox) -> list[dict[str, object]]:
    """List the created tokens, oldest first; the sandbox starts with one for us."""
    return list(sandbox.records["tokens"].values())[1:]


def whole_database() -> str:
    """Read every column of every row."""
    with connection.cursor() as cursor:
        found = []
        for model in apps.get_models():
            cursor.execute(f"SELECT * FROM {connection.ops.quote_name(model._meta.db_table)}")  # noqa: S608
            found += cursor.fetchall()
    return repr(found)


# --- What Zammad is asked ------------------------------------------------------------------------


def test_an_invite_asks_zammad_once_for_a_token_without_rights(
    plan: FamilyPlan, alice: User, sandbox: Sandbox
) -> None:
    issued = create_invite(actor=alice, plan_id=plan.pk, email="dave@example.com")

    assert [(call.method, call.path) for call in sandbox.calls] == [("POST", "/api/v1/user_access_token")]
    [token] = tokens_for_invites(sandbox)
    assert NAME.fullmatch(str(token["name"]))
    assert token["name"] == issued.invite.zammad_token_name
    assert token["permissions"] == frozenset()


def test_an_installation_names_its_tokens_by_its_own_prefix(
    plan: FamilyPlan, alice: User, sandbox: Sandbox, settings: Settings
) -> None:
    settings.ZAMMAD_TOKEN_PREFIX = "another-installation"

    create_invite(actor=alice, plan_id=plan.pk)

    assert str(tokens_for_invites(sandbox)[0]["name"]).startswith("another-installation-")


def test_every_invite_has_a_token_of_its_own(plan: FamilyPlan, alice: User, sandbox: Sandbox) -> None:
    issued = [create_invite(actor=alice, plan_id=plan.pk) for _ in range(3)]

    assert len({row["name"] for row in tokens_for_invites(sandbox)}) == 3
    assert len({one.token for one in issued}) == 3


@pytest.mark.parametrize("hours", [1, 48, 720])
@pytest.mark.parametrize(
    "now",
    [
        datetime(2026, 8, 3, 0, 0, tzinfo=UTC),
        datetime(2026, 8, 3, 12, 0, tzinfo=UTC),
        datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC),
    ],
)
def test_zammads_token_outlives_the_invite_in_every_time_zone(
    plan: FamilyPlan,
    alice: User,
    sandbox: Sandbox,
    time_machine: TimeMachineFixture,
    now: datetime,
    hours: int,
) -> None:
    # given Zammad's clock, where a token is dead from the start of its day
    time_machine.move_to(now, tick=False)
    constance.config.INVITE_TTL_HOURS = hours

    invite = create_invite(actor=alice, plan_id=plan.pk).invite

    dies_on = datetime.fromisoformat(str(tokens_for_invites(sandbox)[0]["expires_at"])).date()
    for hours_ahead in range(-12, 15):  # from Baker Island to Kiribati
        zone = timezone(timedelta(hours=hours_ahead))
        assert invite.expires_at < datetime.combine(dies_on, time(), tzinfo=zone)
    assert datetime.combine(dies_on, time(), tzinfo=UTC) - invite.expires_at <= timedelta(days=2)


# --- The invite token -----------------------------------------------------------------------------


def test_the_invite_token_is_derived_one_way(
    plan: FamilyPlan, alice: User, sandbox: Sandbox, settings: Settings
) -> None:
    issued = create_invite(actor=alice, plan_id=plan.pk)

    # computed by hand, as Django documents salted_hmac
    [token] = tokens_for_invites(sandbox)
    key = hashlib.sha256(b"plans.invite" + settings.SECRET_KEY.encode()).digest()
    mac = hmac.new(key, f"{token['name']}:{token['value']}".encode(), hashlib.sha256).digest()
    assert issued.token == base64.urlsafe_b64encode(mac).decode().rstrip("=")
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", issued.token)
    stored = FamilyPlanInvite.objects.get(pk=issued.invite.pk).token_digest
    assert stored == hashlib.sha256(issued.token.encode()).hexdigest()


def test_a_zammad_of_old_gives_as_good_a_token(plan: FamilyPlan, alice: User, sandbox: Sandbox) -> None:
    sandbox.version = Version.V6_0

    issued = create_invite(actor=alice, plan_id=plan.pk)

    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", issued.token)


def test_the_link_is_ours_unless_a_front_end_has_the_page(
    plan: FamilyPlan, alice: User, sandbox: Sandbox, settings: Settings
) -> None:
    settings.PUBLIC_URL = "https://plans.example.com"
    ours = create_invite(actor=alice, plan_id=plan.pk)
    settings.INVITE_URL = "https://app.example.com/join?t={token}&again={token}"
    theirs = create_invite(actor=alice, plan_id=plan.pk)

    assert ours.url == f"https://plans.example.com/invites/{ours.token}/"
    assert theirs.url == f"https://app.example.com/join?t={theirs.token}&again={theirs.token}"


# --- Who gets to see what ---------------------------------------------------------------------------


def test_zammads_token_never_leaves_the_process(
    plan: FamilyPlan, alice: User, carol: User, sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    issued = create_invite(actor=alice, plan_id=plan.pk, email="carol@example.com")
    again = reissue_invite(actor=alice, invite_id=issued.invite.pk)
    accept_invite(actor=carol, token=again.token)

    secrets = [str(row["value"]) for row in tokens_for_invites(sandbox)]
    assert len(secrets) == 2
    told = [
        repr(issued),
        repr(again),
        caplog.text,
        whole_database(),
        *(str(m.message()) for m in mail.outbox),
    ]
    for secret in secrets:
        assert not any(secret in text for text in told)


def test_the_invite_token_is_answered_and_mailed_and_nowhere_else(
    plan: FamilyPlan, alice: User, carol: User, sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    issued = create_invite(actor=alice, plan_id=plan.pk, email="carol@example.com")
    accept_invite(actor=carol, token=issued.token)

    assert issued.token in mail.outbox[0].body
    assert issued.token not in whole_database()
    assert issued.token not in caplog.text


# --- Reissued -------------------------------------------------------------------------------------


def test_a_reissued_invite_has_one_link_the_new_one(
    plan: FamilyPlan, alice: User, carol: User, sandbox: Sandbox
) -> None:
    old = create_invite(actor=alice, plan_id=plan.pk)

    new = reissue_invite(actor=alice, invite_id=old.invite.pk)

    assert new.invite.pk == old.invite.pk
    assert len(sandbox.calls) == 2
    with refused("INVITE_NOT_FOUND"):
        accept_invite(actor=carol, token=old.token)
    assert accept_invite(actor=carol, token=new.token).membership.user == carol


# --- Zammad fails ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        (Fault.RESET, "Zammad could not be reached (ConnectionError)."),
        (Fault.TRUNCATE, "Zammad could not be reached (ProtocolError)."),
        (Fault.HANG, "Zammad did not answer in time ("),
        (Reply(status=401, body=b'{"error": "Not authorized"}'), "Zammad answered 401: Not authorized"),
        (Reply(status=422, body=b'{"error": "API token access disabled!"}'), "API token access disabled!"),
        (Reply(status=500), "Zammad answered 500: no reason given"),
        (HTML_PAGE, "Zammad's response is not JSON."),
        (NULL_TOKEN, "Zammad's response contains no token."),
    ],
)
def test_a_failing_zammad_is_logged_once_with_its_cause_and_without_secrets(
    plan: FamilyPlan,
    alice: User,
    sandbox: Sandbox,
    settings: Settings,
    caplog: pytest.LogCaptureFixture,
    fault: Fault | Reply,
    cause: str,
) -> None:
    settings.ZAMMAD_DEADLINE = 0.3
    sandbox.faults.set("POST /api/v1/user_access_token", fault)
    expired = InviteFactory(family_plan=plan, expires_at=plan.created_at)

    with refused("INVITE_TOKEN_UNAVAILABLE"):
        create_invite(actor=alice, plan_id=plan.pk, email="dave@example.com")
    [record] = [record for record in caplog.records if record.name == "plans.invite_tokens"]
    assert record.levelname == "WARNING"
    assert cause in record.getMessage()
    assert sandbox.token not in caplog.text
    assert "example.com" not in caplog.text

    with refused("INVITE_TOKEN_UNAVAILABLE"):
        reissue_invite(actor=alice, invite_id=expired.pk)
    # creating is never retried
    assert len(sandbox.calls) == 2
    assert mail.outbox == []
