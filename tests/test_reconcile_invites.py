"""Tokens in Zammad that no open invite needs are removed, and no others."""

import datetime
import uuid
from io import StringIO

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.utils import timezone

from plans.models import FamilyPlan
from plans.services import create_invite, reissue_invite, revoke_invite
from tests.factories import InviteFactory
from zammad.sandbox import Fault, Sandbox

pytestmark = pytest.mark.django_db

OLD = (timezone.now() - datetime.timedelta(hours=2)).isoformat()


def leave_in_zammad(sandbox: Sandbox, name: str, *, created_at: str = OLD) -> str:
    """Put a token into our account, as a crash before our commit would leave it."""
    record = sandbox.add_token(2, f"value-of-{name}", name=name)
    record["created_at"] = created_at
    return name


def names_in_zammad(sandbox: Sandbox) -> set[str]:
    return {str(token["name"]) for token in sandbox.records["tokens"].values()}


def reconcile(**options: object) -> str:
    told = StringIO()
    call_command("reconcile_invites", stdout=told, **options)
    return told.getvalue().strip()


def test_only_old_tokens_of_ours_without_an_open_invite_are_deleted(
    plan: FamilyPlan, sandbox: Sandbox
) -> None:
    orphan = leave_in_zammad(sandbox, f"family-plan-invite-{uuid.uuid4()}")
    needed = leave_in_zammad(sandbox, InviteFactory(family_plan=plan).zammad_token_name)
    past = InviteFactory(family_plan=plan, expires_at=timezone.now())
    expired = leave_in_zammad(sandbox, past.zammad_token_name)
    used = leave_in_zammad(sandbox, plan.invites.get(is_used=True).zammad_token_name)
    young = leave_in_zammad(
        sandbox, f"family-plan-invite-{uuid.uuid4()}", created_at=timezone.now().isoformat()
    )
    foreign = {
        leave_in_zammad(sandbox, name)
        for name in (
            "Family Plans, by hand",
            "family-plan-invite-",
            "family-plan-invite-of-somebody",
            f"family-plan-invite-{uuid.uuid4()}-2",
            f"other-installation-{uuid.uuid4()}",
            f"x-family-plan-invite-{uuid.uuid4()}",
        )
    }
    before = names_in_zammad(sandbox)

    told = reconcile()

    assert before - names_in_zammad(sandbox) == {orphan, expired, used}
    assert names_in_zammad(sandbox) >= {needed, young, *foreign}
    # The account's own API token is foreign, too.
    assert told == (
        "Deleted 3 tokens. Kept 1 of open invites, 1 younger than an hour, and 7 that are not ours."
    )


def test_it_can_be_repeated(plan: FamilyPlan, sandbox: Sandbox) -> None:
    leave_in_zammad(sandbox, f"family-plan-invite-{uuid.uuid4()}")
    reconcile()
    left = names_in_zammad(sandbox)

    told = reconcile()

    assert names_in_zammad(sandbox) == left
    assert told.startswith("Deleted 0 tokens.")


def test_a_dry_run_deletes_nothing(plan: FamilyPlan, sandbox: Sandbox) -> None:
    orphan = leave_in_zammad(sandbox, f"family-plan-invite-{uuid.uuid4()}")

    told = reconcile(dry_run=True)

    assert orphan in names_in_zammad(sandbox)
    assert told.startswith("Would delete 1 tokens.")
    assert {call.method for call in sandbox.calls} == {"GET"}


def test_what_reissuing_and_revoking_left_behind_is_removed_once_it_is_old(
    plan: FamilyPlan, alice: User, sandbox: Sandbox
) -> None:
    first = create_invite(actor=alice, plan_id=plan.pk).invite
    old_name = first.zammad_token_name
    new_name = reissue_invite(actor=alice, invite_id=first.pk).invite.zammad_token_name
    revoked = create_invite(actor=alice, plan_id=plan.pk).invite
    revoke_invite(actor=alice, invite_id=revoked.pk)
    for token in sandbox.records["tokens"].values():
        token["created_at"] = OLD

    reconcile()

    assert new_name in names_in_zammad(sandbox)
    assert names_in_zammad(sandbox).isdisjoint({old_name, revoked.zammad_token_name})


def test_a_zammad_that_does_not_answer_ends_it_with_the_reason(plan: FamilyPlan, sandbox: Sandbox) -> None:
    orphan = leave_in_zammad(sandbox, f"family-plan-invite-{uuid.uuid4()}")
    sandbox.faults.set("GET /api/v1/user_access_token", Fault.RESET)

    with pytest.raises(CommandError, match="Zammad could not be reached"):
        reconcile()

    assert orphan in names_in_zammad(sandbox)
