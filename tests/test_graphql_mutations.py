"""What each mutation returns and changes, and that every refusal has its code and changes nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import constance
import pytest
from allauth.account.models import EmailAddress
from django.contrib.auth.models import Permission, User
from pytest_django import Settings
from time_machine import TimeMachineFixture

from plans.models import FamilyPlan, FamilyPlanInvite, Membership, PlanEvent
from tests.api import answer, ask, node_id, refusal_of, to_base64
from tests.factories import InviteFactory, MembershipFactory, OwnerFactory, UserFactory, ZammadUserFactory
from tests.refusals import unchanged
from zammad.sandbox import Reply, Sandbox

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 8, 3, 12, tzinfo=UTC)
TOKEN = "t" * 43
REFUSED = "... on OperationInfo { messages { kind field message code } }"


def mutation(name: str, answers: str) -> str:
    """Write the operation that calls a mutation with its input as the variable."""
    kind = name[0].upper() + name[1:]
    return f"""mutation ($input: {kind}Input!) {{
        {name}(input: $input) {{ __typename {answers} {REFUSED} }} }}"""


CREATE_PLAN = mutation(
    "createPlan", "... on CreatedPlan { plan { id name seatsTaken owner { displayName } members { role } } }"
)
CREATE_INVITE = mutation(
    "createInvite",
    """... on CreatedInvite {
        invite { id email status isUsed mailStatus createdBy { displayName } } token url }""",
)
ACCEPT_INVITE = mutation(
    "acceptInvite",
    """... on AcceptedInvite { membership { id role user { displayName email } zammadUserId }
        plan { name seatsTaken invites { pageInfo { endCursor } } } redirectUrl }""",
)
REISSUE_INVITE = mutation("reissueInvite", "... on CreatedInvite { invite { id status } token url }")
REVOKE_INVITE = mutation("revokeInvite", "... on RevokedInvite { invite { id status isUsed } }")
DETACH_MEMBER = mutation(
    "detachMember",
    """... on DetachedMember { plan { seatsTaken members { user { displayName } } }
        invite { id status isUsed user { id } } }""",
)
TRANSFER_OWNERSHIP = mutation(
    "transferOwnership",
    """... on TransferredOwnership { plan { owner { displayName } members { role user { displayName } }
        invites { pageInfo { endCursor } } } }""",
)
CLOSE_PLAN = mutation("closePlan", "... on ClosedPlan { plan { closedAt seatsTaken owner { id } } }")


@pytest.fixture(autouse=True)
def _sandbox(sandbox: Sandbox) -> None:
    """Give every mutation a Zammad of its own."""


@pytest.fixture
def fullness(plan: FamilyPlan) -> None:
    plan.user_limit = 2
    plan.save()


def grant(person: User, *codenames: str) -> User:
    person.user_permissions.add(*Permission.objects.filter(codename__in=codenames))
    return User.objects.get(pk=person.pk)


def seat(person: User) -> str:
    return node_id(Membership.objects.get(user=person))


def invite_of(person: User) -> FamilyPlanInvite:
    return FamilyPlanInvite.objects.get(user=person)


def check_refused(
    viewer: User | None, operation: str, code: str, *, field: str | None = None, **data: object
) -> None:
    """Check that a mutation is refused with a code, in words, and changes nothing."""
    kinds = {"NOT_AUTHENTICATED": "PERMISSION", "PERMISSION_DENIED": "PERMISSION"}
    with unchanged():
        message = refusal_of(viewer, operation, input=data)
    assert message.pop("message").endswith(".")
    assert message == {"kind": kinds.get(code, "VALIDATION"), "field": field, "code": code}


# --- createPlan ----------------------------------------------------------------------------------


def test_a_plan_is_created_for_oneself(carol: User) -> None:
    constance.config.SELF_SERVICE_PLANS = True

    created = ask(carol, CREATE_PLAN, input={"name": " The Carvers "})

    plan = FamilyPlan.objects.get()
    assert created == {
        "__typename": "CreatedPlan",
        "plan": {
            "id": node_id(plan),
            "name": "The Carvers",
            "seatsTaken": 1,
            "owner": {"displayName": "Carol Carver"},
            "members": [{"role": "OWNER"}],
        },
    }
    assert PlanEvent.objects.get().kind == "PLAN_CREATED"


def test_staff_create_a_plan_for_a_verified_address(carol: User, support: User) -> None:
    created = ask(support, CREATE_PLAN, input={"name": "Hers", "ownerEmail": "CAROL@example.com"})

    assert created["plan"]["owner"] == {"displayName": "Carol Carver"}
    assert Membership.objects.get().user == carol


@pytest.mark.parametrize(
    "name",
    ["", " ", "x" * 81, "a\nb", "a\0b", "\ud800", "a\u202eb", "see http://evil.example", "x" * 90_000],
    ids=range(9),
)
def test_a_plan_has_a_name_on_one_line_without_a_link(name: str, support: User) -> None:
    check_refused(support, CREATE_PLAN, "INVALID_INPUT", field="name", name=name)


@pytest.mark.parametrize("name", ["x" * 80, "\U0001f46a", "\u0645\u0631\u062d\u0628\u0627", "O'Neill & <b>"])
def test_a_plan_may_be_named_in_any_script(name: str, support: User) -> None:
    assert ask(support, CREATE_PLAN, input={"name": name})["plan"]["name"] == name


@pytest.mark.parametrize(
    "address", ["x", "@", "a@b", "a@@example.com", "\ud800@example.com", "a\0@example.com", "x" * 90_000]
)
def test_an_owners_address_is_an_address(address: str, support: User) -> None:
    check_refused(support, CREATE_PLAN, "INVALID_INPUT", field="ownerEmail", name="Plan", ownerEmail=address)


def test_a_plan_for_nobody_who_verified_the_address_is_refused(support: User) -> None:
    UserFactory(email="eve@example.com", verified=False)

    for address in ("eve@example.com", "nobody@example.com"):
        check_refused(support, CREATE_PLAN, "USER_NOT_FOUND", name="Plan", ownerEmail=address)


def test_a_plan_is_refused_without_sign_in_right_or_a_free_person(
    alice: User, carol: User, support: User, plan: FamilyPlan
) -> None:
    check_refused(None, CREATE_PLAN, "NOT_AUTHENTICATED", name="Plan")
    check_refused(carol, CREATE_PLAN, "PERMISSION_DENIED", name="Plan")
    check_refused(UserFactory(is_staff=True), CREATE_PLAN, "PERMISSION_DENIED", name="Plan")
    check_refused(support, CREATE_PLAN, "ALREADY_IN_PLAN", name="Plan", ownerEmail="alice@example.com")

    constance.config.SELF_SERVICE_PLANS = True
    check_refused(alice, CREATE_PLAN, "ALREADY_IN_PLAN", name="Plan")
    check_refused(carol, CREATE_PLAN, "PERMISSION_DENIED", name="Plan", ownerEmail="nobody@example.com")


# --- createInvite --------------------------------------------------------------------------------


def test_an_owner_gets_an_invite_with_its_token_once(
    alice: User, plan: FamilyPlan, sandbox: Sandbox, mailoutbox: list[Any]
) -> None:
    created = ask(alice, CREATE_INVITE, input={"planId": node_id(plan)})

    invite = FamilyPlanInvite.objects.latest("pk")
    token = created["token"]
    assert len(token) == 43
    assert created == {
        "__typename": "CreatedInvite",
        "invite": {
            "id": node_id(invite),
            "email": None,
            "status": "OPEN",
            "isUsed": False,
            "mailStatus": "NONE",
            "createdBy": {"displayName": "Alice Archer"},
        },
        "token": token,
        "url": f"http://127.0.0.1:8000/invites/{token}/",
    }
    assert invite.token_digest == hashlib.sha256(token.encode()).hexdigest()
    assert [call.method for call in sandbox.calls] == ["POST"]
    assert mailoutbox == []


def test_an_invite_to_an_address_is_mailed(
    alice: User, plan: FamilyPlan, mailoutbox: list[Any], settings: Settings
) -> None:
    settings.INVITE_URL = "https://app.example.com/join?t={token}"

    created = ask(alice, CREATE_INVITE, input={"planId": node_id(plan), "email": " Dora@Example.com "})

    assert created["invite"]["email"] == "dora@example.com"
    assert created["invite"]["mailStatus"] == "SENT"
    assert created["url"] == f"https://app.example.com/join?t={created['token']}"
    [mail] = mailoutbox
    assert mail.to == ["dora@example.com"]
    assert created["url"] in mail.body


def test_staff_with_the_right_invite_for_others(support: User, plan: FamilyPlan) -> None:
    created = ask(support, CREATE_INVITE, input={"planId": node_id(plan)})

    assert created["invite"]["status"] == "OPEN"


def test_an_invite_is_for_the_owner_to_create(
    alice: User, bob: User, carol: User, plan: FamilyPlan, sandbox: Sandbox
) -> None:
    reader = grant(UserFactory(), "view_familyplan")

    check_refused(None, CREATE_INVITE, "NOT_AUTHENTICATED", planId=node_id(plan))
    check_refused(carol, CREATE_INVITE, "PLAN_NOT_FOUND", planId=node_id(plan))
    check_refused(bob, CREATE_INVITE, "PERMISSION_DENIED", planId=node_id(plan))
    check_refused(reader, CREATE_INVITE, "PERMISSION_DENIED", planId=node_id(plan))
    for odd in ("", "x", node_id(plan, "Membership"), to_base64("FamilyPlan:999"), "\ud800"):
        check_refused(alice, CREATE_INVITE, "PLAN_NOT_FOUND", planId=odd)
    assert sandbox.calls == []


@pytest.mark.usefixtures("fullness")
def test_no_invite_fits_into_a_full_plan(alice: User, plan: FamilyPlan, sandbox: Sandbox) -> None:
    check_refused(alice, CREATE_INVITE, "PLAN_FULL", planId=node_id(plan))

    assert sandbox.calls == []


def test_no_invite_is_made_while_invites_are_paused(alice: User, plan: FamilyPlan) -> None:
    constance.config.INVITES_ENABLED = False

    check_refused(alice, CREATE_INVITE, "INVITES_PAUSED", planId=node_id(plan))
    unused = InviteFactory(family_plan=plan, created_by=alice)
    check_refused(alice, REISSUE_INVITE, "INVITES_PAUSED", inviteId=node_id(unused))


def test_a_plan_makes_so_many_invites_a_day(alice: User, plan: FamilyPlan) -> None:
    constance.config.INVITES_PER_DAY = 1
    ask(alice, CREATE_INVITE, input={"planId": node_id(plan)})

    check_refused(alice, CREATE_INVITE, "INVITE_LIMIT_REACHED", planId=node_id(plan))
    invite = FamilyPlanInvite.objects.latest("pk")
    check_refused(alice, REISSUE_INVITE, "INVITE_LIMIT_REACHED", inviteId=node_id(invite))


def test_an_address_is_invited_once_and_a_member_never(alice: User, bob: User, plan: FamilyPlan) -> None:
    InviteFactory(family_plan=plan, created_by=alice, email="dora@example.com")

    for email, code in (("DORA@example.com", "ALREADY_INVITED"), ("bob@example.com", "ALREADY_IN_PLAN")):
        check_refused(alice, CREATE_INVITE, code, planId=node_id(plan), email=email)


@pytest.mark.parametrize(
    "email", ["x", "\ud800@example.com", "a\0@example.com", "x" * 90_000, "a@b\r\nBcc: c@d"]
)
def test_an_invite_goes_to_an_address(email: str, alice: User, plan: FamilyPlan) -> None:
    check_refused(alice, CREATE_INVITE, "INVALID_INPUT", field="email", planId=node_id(plan), email=email)


def test_no_invite_is_made_for_a_closed_plan(support: User) -> None:
    plan = FamilyPlan.objects.create(name="Gone", closed_at=NOON)

    check_refused(support, CREATE_INVITE, "PLAN_CLOSED", planId=node_id(plan))
    check_refused(support, CLOSE_PLAN, "PLAN_CLOSED", planId=node_id(plan))


def test_a_failing_zammad_makes_no_invite(alice: User, plan: FamilyPlan, sandbox: Sandbox) -> None:
    sandbox.faults.set("POST /api/v1/user_access_token", Reply(status=500))
    check_refused(alice, CREATE_INVITE, "INVITE_TOKEN_UNAVAILABLE", planId=node_id(plan))

    sandbox.faults.clear()
    assert ask(alice, CREATE_INVITE, input={"planId": node_id(plan)})["invite"]["status"] == "OPEN"


# --- acceptInvite --------------------------------------------------------------------------------


def test_whoever_holds_the_token_joins(carol: User, plan: FamilyPlan) -> None:
    InviteFactory(family_plan=plan, token=TOKEN)
    ZammadUserFactory(zammad_id=60, email="carol@example.com")

    accepted = ask(carol, ACCEPT_INVITE, input={"token": TOKEN})

    assert accepted == {
        "__typename": "AcceptedInvite",
        "membership": {
            "id": seat(carol),
            "role": "MEMBER",
            "user": {"displayName": "Carol Carver", "email": "carol@example.com"},
            "zammadUserId": 60,
        },
        "plan": {"name": "The Archers", "seatsTaken": 3, "invites": None},
        "redirectUrl": "http://127.0.0.1:8000/invites/accepted/",
    }
    assert invite_of(carol).is_used


def test_a_client_that_lost_the_answer_gets_it_again(
    carol: User, plan: FamilyPlan, time_machine: TimeMachineFixture
) -> None:
    InviteFactory(family_plan=plan, token=TOKEN)
    constance.config.INVITE_ACCEPTED_URL = "https://app.example.com/welcome"
    first = ask(carol, ACCEPT_INVITE, input={"token": TOKEN})
    assert first["redirectUrl"] == "https://app.example.com/welcome"

    time_machine.move_to(datetime.now(UTC) + timedelta(days=100))

    with unchanged():
        assert ask(carol, ACCEPT_INVITE, input={"token": TOKEN}) == first


def test_an_invite_that_cannot_be_accepted_says_why(
    alice: User, bob: User, carol: User, plan: FamilyPlan
) -> None:
    invite = InviteFactory(family_plan=plan, token=TOKEN)
    others = [FamilyPlanInvite.objects.filter(pk=invite.pk), FamilyPlan.objects.filter(pk=plan.pk)]

    def refused(code: str, viewer: User | None = carol, token: str = TOKEN) -> None:
        check_refused(viewer, ACCEPT_INVITE, code, token=token)

    refused("NOT_AUTHENTICATED", None)
    for odd in ("", "x", "\ud800", "\0", "x" * 90_000):
        refused("INVITE_NOT_FOUND", token=odd)
    refused("ALREADY_IN_PLAN", alice)
    others[1].update(user_limit=2)
    refused("PLAN_FULL")
    others[1].update(user_limit=None)
    others[0].update(email="dora@example.com")
    refused("INVITE_EMAIL_MISMATCH")
    others[0].update(expires_at=datetime.now(UTC))
    refused("INVITE_EXPIRED")
    others[0].update(user=UserFactory())
    refused("INVITE_ALREADY_USED")


# --- reissueInvite, revokeInvite -------------------------------------------------------------------


def test_a_reissued_invite_has_a_new_link_and_the_old_one_is_dead(
    alice: User, carol: User, plan: FamilyPlan
) -> None:
    invite = InviteFactory(family_plan=plan, token=TOKEN, expires_at=NOON)

    issued = ask(alice, REISSUE_INVITE, input={"inviteId": node_id(invite)})

    assert issued["invite"] == {"id": node_id(invite), "status": "OPEN"}
    assert issued["url"] == f"http://127.0.0.1:8000/invites/{issued['token']}/"
    check_refused(carol, ACCEPT_INVITE, "INVITE_NOT_FOUND", token=TOKEN)
    assert ask(carol, ACCEPT_INVITE, input={"token": issued["token"]})["__typename"] == "AcceptedInvite"


def test_a_revoked_invite_is_expired_in_the_answer_already(alice: User, plan: FamilyPlan) -> None:
    invite = InviteFactory(family_plan=plan, token=TOKEN)
    revoked = {
        "__typename": "RevokedInvite",
        "invite": {"id": node_id(invite), "status": "EXPIRED", "isUsed": False},
    }

    assert ask(alice, REVOKE_INVITE, input={"inviteId": node_id(invite)}) == revoked
    with unchanged():
        assert ask(alice, REVOKE_INVITE, input={"inviteId": node_id(invite)}) == revoked


@pytest.mark.parametrize("operation", [REISSUE_INVITE, REVOKE_INVITE], ids=["reissue", "revoke"])
def test_an_invite_is_found_by_the_owner_and_staff_only(
    operation: str, alice: User, bob: User, carol: User, support: User, plan: FamilyPlan
) -> None:
    invite = InviteFactory(family_plan=plan)
    reader = grant(UserFactory(), "view_familyplan")

    check_refused(None, operation, "NOT_AUTHENTICATED", inviteId=node_id(invite))
    for person in (bob, carol, UserFactory(is_staff=True)):
        check_refused(person, operation, "INVITE_NOT_FOUND", inviteId=node_id(invite))
    check_refused(reader, operation, "PERMISSION_DENIED", inviteId=node_id(invite))
    for odd in ("", "x", node_id(invite, "FamilyPlan"), to_base64("FamilyPlanInvite:999"), "\ud800"):
        check_refused(alice, operation, "INVITE_NOT_FOUND", inviteId=odd)
    for person in (alice, support):
        check_refused(person, operation, "INVITE_ALREADY_USED", inviteId=node_id(invite_of(bob)))


# --- detachMember --------------------------------------------------------------------------------


def test_an_owner_detaches_a_member_and_the_invite_is_unused_and_expired(
    alice: User, bob: User, plan: FamilyPlan
) -> None:
    invite = invite_of(bob)

    detached = ask(alice, DETACH_MEMBER, input={"membershipId": seat(bob)})

    assert detached == {
        "__typename": "DetachedMember",
        "plan": {"seatsTaken": 1, "members": [{"user": {"displayName": "Alice Archer"}}]},
        "invite": {"id": node_id(invite), "status": "EXPIRED", "isUsed": False, "user": None},
    }
    invite.refresh_from_db()
    assert (invite.user, invite.is_used) == (None, False)


def test_a_member_who_came_without_an_invite_leaves_none(
    support: User, carol: User, plan: FamilyPlan
) -> None:
    MembershipFactory(user=carol, family_plan=plan)

    detached = ask(support, DETACH_MEMBER, input={"membershipId": seat(carol)})

    assert detached["invite"] is None
    assert detached["plan"]["seatsTaken"] == 2


def test_a_member_who_leaves_is_shown_nothing(bob: User, plan: FamilyPlan) -> None:
    left = ask(bob, DETACH_MEMBER, input={"membershipId": seat(bob)})

    assert left == {"__typename": "DetachedMember", "plan": None, "invite": None}
    assert PlanEvent.objects.get().kind == "MEMBER_LEFT"
    assert not Membership.objects.filter(user=bob).exists()


def test_a_person_detached_cannot_come_back_by_the_old_link(
    alice: User, carol: User, plan: FamilyPlan
) -> None:
    InviteFactory(family_plan=plan, token=TOKEN)
    ask(carol, ACCEPT_INVITE, input={"token": TOKEN})
    ask(alice, DETACH_MEMBER, input={"membershipId": seat(carol)})

    check_refused(carol, ACCEPT_INVITE, "INVITE_EXPIRED", token=TOKEN)


def test_a_member_is_detached_by_the_owner_or_staff_only(
    alice: User, bob: User, carol: User, support: User, plan: FamilyPlan
) -> None:
    dora = MembershipFactory(family_plan=plan)

    check_refused(None, DETACH_MEMBER, "NOT_AUTHENTICATED", membershipId=node_id(dora))
    check_refused(carol, DETACH_MEMBER, "MEMBERSHIP_NOT_FOUND", membershipId=node_id(dora))
    check_refused(bob, DETACH_MEMBER, "PERMISSION_DENIED", membershipId=node_id(dora))
    for odd in ("", "x", node_id(dora, "User"), to_base64("Membership:999"), "\ud800"):
        check_refused(alice, DETACH_MEMBER, "MEMBERSHIP_NOT_FOUND", membershipId=odd)
    for person in (alice, support):
        check_refused(person, DETACH_MEMBER, "OWNER_CANNOT_BE_DETACHED", membershipId=seat(alice))


# --- transferOwnership, closePlan ------------------------------------------------------------------


def test_an_owner_hands_the_plan_over_and_sees_it_as_a_member_at_once(
    alice: User, bob: User, plan: FamilyPlan
) -> None:
    transferred = ask(alice, TRANSFER_OWNERSHIP, input={"membershipId": seat(bob)})

    assert transferred == {
        "__typename": "TransferredOwnership",
        "plan": {
            "owner": {"displayName": "Bob Baker"},
            "members": [
                {"role": "OWNER", "user": {"displayName": "Bob Baker"}},
                {"role": "MEMBER", "user": {"displayName": "Alice Archer"}},
            ],
            "invites": None,
        },
    }


def test_an_operation_of_two_mutations_answers_each_by_what_holds_after_it(
    alice: User, bob: User, plan: FamilyPlan
) -> None:
    first, second = (InviteFactory(family_plan=plan) for _ in range(2))
    revoke = "revokeInvite(input: {inviteId: $%s}) { ... on RevokedInvite { invite { status } } }"

    body = answer(
        alice,
        f"""mutation ($first: ID!, $second: ID!, $member: ID!) {{
            first: {revoke % "first"}
            second: {revoke % "second"}
            third: transferOwnership(input: {{membershipId: $member}}) {{
                ... on TransferredOwnership {{ plan {{ seatsTaken events {{ edges {{ cursor }} }} }} }} }}
        }}""",
        first=node_id(first),
        second=node_id(second),
        member=seat(bob),
    )

    assert body == {
        "data": {
            "first": {"invite": {"status": "EXPIRED"}},
            "second": {"invite": {"status": "EXPIRED"}},
            "third": {"plan": {"seatsTaken": 2, "events": None}},
        }
    }


def test_ownership_is_the_owners_or_staffs_to_transfer(
    alice: User, bob: User, carol: User, support: User, plan: FamilyPlan
) -> None:
    check_refused(None, TRANSFER_OWNERSHIP, "NOT_AUTHENTICATED", membershipId=seat(bob))
    check_refused(carol, TRANSFER_OWNERSHIP, "MEMBERSHIP_NOT_FOUND", membershipId=seat(bob))
    check_refused(bob, TRANSFER_OWNERSHIP, "PERMISSION_DENIED", membershipId=seat(bob))
    check_refused(alice, TRANSFER_OWNERSHIP, "MEMBERSHIP_NOT_FOUND", membershipId=node_id(plan))

    transferred = ask(support, TRANSFER_OWNERSHIP, input={"membershipId": seat(bob)})

    assert transferred["plan"]["owner"] == {"displayName": "Bob Baker"}


def test_an_owner_closes_a_plan_that_is_empty(
    alice: User, plan: FamilyPlan, time_machine: TimeMachineFixture
) -> None:
    Membership.objects.exclude(user=alice).delete()
    invite = InviteFactory(family_plan=plan)
    time_machine.move_to(datetime.now(UTC).replace(microsecond=0), tick=False)
    now = datetime.now(UTC)

    closed = ask(alice, CLOSE_PLAN, input={"planId": node_id(plan)})

    assert closed == {
        "__typename": "ClosedPlan",
        "plan": {"closedAt": now.isoformat(), "seatsTaken": 0, "owner": None},
    }
    invite.refresh_from_db()
    assert invite.expires_at == now
    assert ask(alice, "{ viewer { plan { id } } }") == {"plan": None}


def test_a_plan_is_the_owners_or_staffs_to_close_and_only_when_empty(
    alice: User, bob: User, carol: User, support: User, plan: FamilyPlan
) -> None:
    check_refused(None, CLOSE_PLAN, "NOT_AUTHENTICATED", planId=node_id(plan))
    check_refused(carol, CLOSE_PLAN, "PLAN_NOT_FOUND", planId=node_id(plan))
    check_refused(bob, CLOSE_PLAN, "PERMISSION_DENIED", planId=node_id(plan))
    check_refused(alice, CLOSE_PLAN, "PLAN_NOT_FOUND", planId=node_id(plan, "User"))
    for person in (alice, support):
        check_refused(person, CLOSE_PLAN, "PLAN_NOT_EMPTY", planId=node_id(plan))


# --- All of them ---------------------------------------------------------------------------------


@pytest.mark.parametrize("viewer_of", [lambda _alice: None, lambda alice: alice], ids=["nobody", "alice"])
def test_the_answer_to_an_unknown_address_says_nothing_about_accounts(
    viewer_of: Callable[[User], User | None], alice: User, plan: FamilyPlan
) -> None:
    OwnerFactory(user__email="taken@example.com")
    EmailAddress.objects.create(user=alice, email="second@example.com", verified=False)
    viewer = viewer_of(alice)

    answers = [
        answer(viewer, CREATE_INVITE, input={"planId": node_id(plan), "email": address})["data"]
        for address in ("taken@example.com", "nobody@example.com", "second@example.com")
    ]

    kinds = {data["createInvite"]["__typename"] for data in answers}
    assert kinds == ({"CreatedInvite"} if viewer else {"OperationInfo"})


def test_an_input_has_no_other_fields(alice: User) -> None:
    body = answer(alice, CLOSE_PLAN, input={"planId": "x", "force": True})

    assert "data" not in body
    assert "force" in body["errors"][0]["message"]


# --- Several in one operation -------------------------------------------------------------------


def test_a_former_owner_sees_no_invites_in_the_payload_that_follows_a_detachment(
    alice: User, bob: User, plan: FamilyPlan
) -> None:
    other = MembershipFactory(family_plan=plan)

    answered = answer(
        alice,
        """mutation ($bob: DetachMemberInput!, $other: TransferOwnershipInput!) {
            detachMember(input: $bob) {
                ... on DetachedMember { plan { seatsTaken invites { edges { node { id } } } } } }
            transferOwnership(input: $other) {
                ... on TransferredOwnership {
                    plan { seatsTaken owner { id } invites { edges { node { id } } } } } } }""",
        bob={"membershipId": node_id(bob.membership)},
        other={"membershipId": node_id(other)},
    )["data"]

    # then each payload holds what was true after its own mutation
    assert answered["detachMember"]["plan"] == {
        "seatsTaken": 2,
        "invites": {"edges": [{"node": {"id": node_id(plan.invites.get())}}]},
    }
    assert answered["transferOwnership"]["plan"] == {
        "seatsTaken": 2,
        "owner": {"id": node_id(other.user)},
        "invites": None,
    }
