"""Every code is explained, and a mutation's description names the codes of its refusals."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import constance
import pytest
from django.contrib.auth.models import Permission, User
from django.utils import timezone

from graphql_api.refusals import REFUSALS, codes_as_table, explain
from plans.models import FamilyPlan, FamilyPlanInvite, Membership
from plans.services import close_plan, create_plan
from tests.api import ask, codes_by_mutation, node_id, refusal_of
from tests.factories import InviteFactory, UserFactory
from tests.questions import seats_taken
from tests.refusals import unchanged
from zammad.sandbox import Reply, Sandbox

BASE_DIR = Path(__file__).resolve().parent.parent
PAGE = BASE_DIR / "docs" / "api.md"
WRITE_CODES = BASE_DIR / ".ci" / "write_codes.py"
CODES = {
    *("NOT_AUTHENTICATED", "PERMISSION_DENIED", "INVALID_INPUT"),
    *("PLAN_NOT_FOUND", "PLAN_FULL", "PLAN_CLOSED", "PLAN_NOT_EMPTY", "USER_NOT_FOUND"),
    *("INVITES_PAUSED", "INVITE_TOKEN_UNAVAILABLE", "INVITE_LIMIT_REACHED", "PLAN_LIMIT_REACHED"),
    *("INVITE_NOT_FOUND", "INVITE_EXPIRED", "INVITE_ALREADY_USED", "INVITE_EMAIL_MISMATCH"),
    *("ALREADY_IN_PLAN", "ALREADY_INVITED"),
    *("MEMBERSHIP_NOT_FOUND", "OWNER_CANNOT_BE_DETACHED"),
}
TOKEN = "t" * 43


def test_every_code_says_when_it_comes_and_what_to_do_about_it() -> None:
    assert {refusal.code for refusal in REFUSALS} == CODES
    for refusal in REFUSALS:
        when, remedy = explain(refusal)
        assert re.fullmatch(r"[A-Z][^.|\n]+\.", when), refusal
        assert re.fullmatch(r"[A-Z][^.|\n]+\.", remedy), refusal


def test_the_table_of_codes_is_fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert codes_as_table() in PAGE.read_text(), "run make schema"

    # and `make schema` writes nothing else
    (tmp_path / "docs").mkdir()
    stale = PAGE.read_text().replace(codes_as_table(), "| of yesterday |")
    (tmp_path / "docs" / "api.md").write_text(stale)
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(WRITE_CODES))
    assert (tmp_path / "docs" / "api.md").read_text() == PAGE.read_text()


def test_nothing_starts_without_the_docstrings_that_codes_are_read_from() -> None:
    started = subprocess.run(
        [sys.executable, "-OO", "manage.py", "check"],
        cwd=BASE_DIR,
        env={"PATH": os.defpath, "DEBUG": "true", "ENV_FILE": ""},
        capture_output=True,
        text=True,
        check=False,
    )

    assert started.returncode == 1
    assert started.stderr == (
        "Family Plans cannot start. Run Python without -OO or PYTHONOPTIMIZE=2: "
        "the schema reads its codes from docstrings.\n"
    )


# --- Each mutation with each of its codes ---------------------------------------------------------

NAMED = [(mutation, code) for mutation, codes in codes_by_mutation().items() for code in codes]


class Stage:
    """Alice's plan with Bob and an open invite; the viewer and input of a code, unless it needs others."""

    def __init__(self, mutation: str, plan: FamilyPlan, alice: User, bob: User, carol: User) -> None:
        self.plan, self.alice, self.bob = plan, alice, bob
        self.invite = InviteFactory(family_plan=plan, token=TOKEN)
        self.asking: User | None = carol if mutation in {"createPlan", "acceptInvite"} else alice
        about_bob: dict[str, object] = {"membershipId": node_id(Membership.objects.get(user=bob))}
        inputs: dict[str, dict[str, object]] = {
            "createPlan": {"name": "Plan"},
            "createInvite": {"planId": node_id(plan)},
            "acceptInvite": {"token": TOKEN},
            "reissueInvite": {"inviteId": node_id(self.invite)},
            "revokeInvite": {"inviteId": node_id(self.invite)},
            "detachMember": about_bob,
            "transferOwnership": about_bob,
            "closePlan": {"planId": node_id(plan)},
        }
        self.input = inputs[mutation]

    def staff(self, *rights: str) -> None:
        """Make the viewer a member of staff with these rights."""
        self.asking = UserFactory(is_staff=True)
        self.asking.user_permissions.set(Permission.objects.filter(codename__in=rights))

    def change_invite(self, **values: object) -> None:
        FamilyPlanInvite.objects.filter(pk=self.invite.pk).update(**values)

    def invite_address(self, address: str) -> None:
        """Create or reissue an invite for this address."""
        if "planId" in self.input:
            self.input["email"] = address
        self.change_invite(email=address)

    def arrange(self, code: str, sandbox: Sandbox) -> None:
        """Set up the one obstacle that the code is about."""
        constance.config.SELF_SERVICE_PLANS = code != "PERMISSION_DENIED"
        match code:
            case "NOT_AUTHENTICATED":
                self.asking = None
            case "PERMISSION_DENIED":
                self.staff("view_familyplan")
            case "INVALID_INPUT":
                self.input["name" if "name" in self.input else "email"] = "\0"
            case "PLAN_NOT_FOUND" | "INVITE_NOT_FOUND" | "MEMBERSHIP_NOT_FOUND":
                self.input = dict.fromkeys(self.input, "x")
            case "USER_NOT_FOUND":
                self.staff("add_familyplan")
                self.input["ownerEmail"] = "nobody@example.com"
            case "PLAN_CLOSED":
                self.staff("change_familyplan")
                FamilyPlan.objects.update(closed_at=timezone.now())
            case "PLAN_NOT_EMPTY":
                assert Membership.objects.count() == 2
            case "PLAN_FULL":
                FamilyPlan.objects.update(user_limit=2)
            case "INVITES_PAUSED":
                constance.config.INVITES_ENABLED = False
            case "INVITE_LIMIT_REACHED":
                constance.config.INVITES_PER_DAY = 0
            case "PLAN_LIMIT_REACHED":
                for _ in range(3):
                    assert self.asking
                    close_plan(actor=self.asking, plan_id=create_plan(actor=self.asking, name="Plan").pk)
            case "INVITE_TOKEN_UNAVAILABLE":
                sandbox.faults.set("POST /api/v1/user_access_token", Reply(status=500))
            case "INVITE_EXPIRED":
                self.change_invite(expires_at=timezone.now())
            case "INVITE_ALREADY_USED":
                self.change_invite(user=UserFactory())
            case "INVITE_EMAIL_MISMATCH":
                self.change_invite(email="dora@example.com")
            case "ALREADY_IN_PLAN":
                self.asking = self.alice
                if "token" not in self.input:
                    self.invite_address(self.bob.email)
            case "ALREADY_INVITED":
                InviteFactory(family_plan=self.plan, email="dora@example.com")
                self.invite_address("dora@example.com")
            case "OWNER_CANNOT_BE_DETACHED":
                self.input["membershipId"] = node_id(Membership.objects.get(user=self.alice))
            case _:
                pytest.fail(f"Nothing makes a mutation refuse with {code}.")


def operation_of(mutation: str) -> str:
    kind = mutation[0].upper() + mutation[1:]
    return f"""mutation ($input: {kind}Input!) {{ {mutation}(input: $input) {{
        __typename ... on OperationInfo {{ messages {{ code }} }} }} }}"""


@pytest.mark.parametrize(("mutation", "code"), NAMED)
def test_a_mutation_refuses_with_each_code_that_its_description_names(
    mutation: str, code: str, plan: FamilyPlan, alice: User, bob: User, carol: User, sandbox: Sandbox
) -> None:
    stage = Stage(mutation, plan, alice, bob, carol)
    stage.arrange(code, sandbox)

    with unchanged():
        assert refusal_of(stage.asking, operation_of(mutation), input=stage.input) == {"code": code}


def test_every_code_is_some_mutations() -> None:
    assert {code for _, code in NAMED} == CODES


# --- Repeated -------------------------------------------------------------------------------------

AGAIN = {
    "createPlan": "ALREADY_IN_PLAN",
    "createInvite": "ALREADY_INVITED",
    "detachMember": "MEMBERSHIP_NOT_FOUND",
    "transferOwnership": "PERMISSION_DENIED",
    "closePlan": "PLAN_NOT_FOUND",
    "acceptInvite": "",
    "revokeInvite": "",
}


@pytest.mark.parametrize(("mutation", "code"), AGAIN.items())
def test_a_mutation_that_is_sent_again_changes_nothing_more(
    mutation: str, code: str, plan: FamilyPlan, alice: User, bob: User, carol: User, sandbox: Sandbox
) -> None:
    stage = Stage(mutation, plan, alice, bob, carol)
    constance.config.SELF_SERVICE_PLANS = True
    if mutation == "closePlan":
        Membership.objects.filter(user=bob).delete()
    if mutation == "createInvite":
        stage.input["email"] = "dora@example.com"

    first = ask(stage.asking, operation_of(mutation), input=stage.input)

    assert first["__typename"] != "OperationInfo"
    with unchanged():
        again = ask(stage.asking, operation_of(mutation), input=stage.input)
    assert again == ({"__typename": "OperationInfo", "messages": [{"code": code}]} if code else first)


def test_only_the_last_link_of_an_invite_that_is_reissued_again_opens_it(
    plan: FamilyPlan, alice: User, carol: User, sandbox: Sandbox
) -> None:
    invite = InviteFactory(family_plan=plan)
    operation = (
        "mutation ($id: ID!) { reissueInvite(input: {inviteId: $id}) { ... on CreatedInvite { token } } }"
    )

    first, last = (ask(alice, operation, id=node_id(invite))["token"] for _ in range(2))

    for token, opens in ((first, False), (last, True)):
        preview = ask(carol, "query ($token: String!) { invite(token: $token) { planName } }", token=token)
        assert (preview is not None) == opens
    assert seats_taken(plan, now=timezone.now()) == 3
