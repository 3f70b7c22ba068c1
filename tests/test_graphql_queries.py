"""What each query returns, to the letter, and that what you may not see is null."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import constance
import pytest
from django.contrib.auth.models import Permission, User
from time_machine import TimeMachineFixture

from plans.models import FamilyPlan, FamilyPlanInvite, Membership, PlanEvent
from tests.api import answer, ask, node_id, to_base64
from tests.factories import InviteFactory, OwnerFactory, UserFactory, ZammadUserFactory
from tests.refusals import unchanged

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 8, 3, 12, tzinfo=UTC)
TOKEN = "t" * 43


@pytest.fixture(autouse=True)
def _noon(time_machine: TimeMachineFixture) -> None:
    time_machine.move_to(NOON, tick=False)


def grant(person: User, *codenames: str) -> User:
    """Give a person rights, and forget their cached rights."""
    person.user_permissions.add(*Permission.objects.filter(codename__in=codenames))
    return User.objects.get(pk=person.pk)


# --- viewer --------------------------------------------------------------------------------------

VIEWER = """{ viewer {
    id email displayName canCreatePlan
    membership { id role joinedAt user { id } zammadUserId }
    plan { id name }
} }"""


def test_a_viewer_who_is_signed_out_is_null() -> None:
    assert ask(None, VIEWER) is None


def test_a_viewer_sees_themselves_and_their_plan(bob: User, plan: FamilyPlan) -> None:
    seat = Membership.objects.get(user=bob)

    assert ask(bob, VIEWER) == {
        "id": node_id(bob),
        "email": "bob@example.com",
        "displayName": "Bob Baker",
        "canCreatePlan": False,
        "membership": {
            "id": node_id(seat),
            "role": "MEMBER",
            "joinedAt": "2026-08-03T12:00:00+00:00",
            "user": {"id": node_id(bob)},
            "zammadUserId": None,
        },
        "plan": {"id": node_id(plan), "name": "The Archers"},
    }


def test_a_viewer_without_a_plan_has_nulls(carol: User) -> None:
    assert ask(carol, VIEWER) == {
        "id": node_id(carol),
        "email": "carol@example.com",
        "displayName": "Carol Carver",
        "canCreatePlan": False,
        "membership": None,
        "plan": None,
    }


def test_a_person_without_a_name_is_called_by_the_address_up_to_the_at() -> None:
    dave = UserFactory(email="dave@example.com", first_name="", last_name="")

    assert ask(dave, "{ viewer { displayName } }") == {"displayName": "dave"}


def test_a_plan_can_be_created_by_self_service_or_by_right_and_by_nobody_who_has_one(
    alice: User, carol: User, plan: FamilyPlan
) -> None:
    query = "{ viewer { canCreatePlan } }"
    assert ask(carol, query) == {"canCreatePlan": False}

    constance.config.SELF_SERVICE_PLANS = True
    assert ask(carol, query) == {"canCreatePlan": True}
    assert ask(alice, query) == {"canCreatePlan": False}

    constance.config.SELF_SERVICE_PLANS = False
    assert ask(grant(carol, "add_familyplan"), query) == {"canCreatePlan": True}


# --- plan ----------------------------------------------------------------------------------------

PLAN = """query ($id: ID!) { plan(id: $id) {
    id name userLimit seatsTaken seatsAvailable createdAt closedAt
    owner { id displayName email }
    members { role user { displayName email } }
    invites { edges { node { email status isUsed expiresAt createdAt mailStatus
        createdBy { displayName } user { displayName } } } }
    events { edges { node { kind at actor { displayName } subject { displayName } invite { status } } } }
} }"""


def test_an_owner_sees_all_of_their_plan(alice: User, bob: User, plan: FamilyPlan) -> None:
    InviteFactory(family_plan=plan, created_by=alice, email="dora@example.com")
    InviteFactory(family_plan=plan, created_by=None, expires_at=NOON)
    used = FamilyPlanInvite.objects.get(user=bob)
    PlanEvent.objects.create(
        family_plan=plan, kind="INVITE_ACCEPTED", actor=bob, subject=bob, invite=used, at=NOON
    )

    seen = ask(alice, PLAN, id=node_id(plan))

    times = {"expiresAt": "2026-08-05T12:00:00+00:00", "createdAt": "2026-08-03T12:00:00+00:00"}
    by_alice = {"createdBy": {"displayName": "Alice Archer"}, "mailStatus": "NONE"}
    assert seen == {
        "id": node_id(plan),
        "name": "The Archers",
        "userLimit": 5,
        "seatsTaken": 3,
        "seatsAvailable": 2,
        "createdAt": "2026-08-03T12:00:00+00:00",
        "closedAt": None,
        "owner": {"id": node_id(alice), "displayName": "Alice Archer", "email": "alice@example.com"},
        "members": [
            {"role": "OWNER", "user": {"displayName": "Alice Archer", "email": "alice@example.com"}},
            {"role": "MEMBER", "user": {"displayName": "Bob Baker", "email": "bob@example.com"}},
        ],
        "invites": {
            "edges": [
                {
                    "node": {
                        "email": None,
                        "status": "EXPIRED",
                        "isUsed": False,
                        "expiresAt": "2026-08-03T12:00:00+00:00",
                        "createdAt": "2026-08-03T12:00:00+00:00",
                        "createdBy": None,
                        "mailStatus": "NONE",
                        "user": None,
                    }
                },
                {
                    "node": {
                        "email": "dora@example.com",
                        "status": "OPEN",
                        "isUsed": False,
                        "user": None,
                        **times,
                        **by_alice,
                    }
                },
                {
                    "node": {
                        "email": None,
                        "status": "USED",
                        "isUsed": True,
                        "user": {"displayName": "Bob Baker"},
                        **times,
                        **by_alice,
                    }
                },
            ]
        },
        "events": {
            "edges": [
                {
                    "node": {
                        "kind": "INVITE_ACCEPTED",
                        "at": "2026-08-03T12:00:00+00:00",
                        "actor": {"displayName": "Bob Baker"},
                        "subject": {"displayName": "Bob Baker"},
                        "invite": {"status": "USED"},
                    }
                }
            ]
        },
    }


def test_a_member_sees_the_people_but_no_addresses_invites_or_history(bob: User, plan: FamilyPlan) -> None:
    seen = ask(bob, PLAN, id=node_id(plan))

    assert seen["owner"]["email"] is None
    assert [member["user"] for member in seen["members"]] == [
        {"displayName": "Alice Archer", "email": None},
        {"displayName": "Bob Baker", "email": "bob@example.com"},
    ]
    assert seen["invites"] is None
    assert seen["events"] is None
    assert (seen["name"], seen["seatsTaken"], seen["seatsAvailable"]) == ("The Archers", 2, 3)


@pytest.mark.parametrize("who", ["nobody", "carol", "clerk"])
def test_a_plan_of_others_is_null(who: str, carol: User, plan: FamilyPlan) -> None:
    viewers = {"nobody": None, "carol": carol, "clerk": UserFactory(is_staff=True)}

    assert ask(viewers[who], PLAN, id=node_id(plan)) is None


@pytest.mark.parametrize("right", ["view_familyplan", "change_familyplan"])
def test_a_right_opens_every_plan(right: str, carol: User, plan: FamilyPlan) -> None:
    assert ask(grant(carol, right), PLAN, id=node_id(plan))["name"] == "The Archers"


def test_a_limit_of_the_plans_own_wins_over_the_setting(alice: User, plan: FamilyPlan) -> None:
    query = "query ($id: ID!) { plan(id: $id) { userLimit seatsTaken seatsAvailable } }"
    constance.config.USER_LIMIT = 3
    assert ask(alice, query, id=node_id(plan)) == {"userLimit": 3, "seatsTaken": 2, "seatsAvailable": 1}

    plan.user_limit = 1
    plan.save()

    # Lowered below the seats taken: nobody is removed, and nothing is negative.
    assert ask(alice, query, id=node_id(plan)) == {"userLimit": 1, "seatsTaken": 2, "seatsAvailable": 0}


def test_an_invite_frees_its_seat_at_the_instant_it_expires(
    alice: User, plan: FamilyPlan, time_machine: TimeMachineFixture
) -> None:
    InviteFactory(family_plan=plan, expires_at=NOON + timedelta(hours=1))
    query = """query ($id: ID!) { plan(id: $id) {
        seatsTaken invites(first: 1) { edges { node { status } } } } }"""

    def seen_at(when: datetime) -> tuple[int, str]:
        time_machine.move_to(when, tick=False)
        found = ask(alice, query, id=node_id(plan))
        return found["seatsTaken"], found["invites"]["edges"][0]["node"]["status"]

    assert seen_at(NOON + timedelta(hours=1, microseconds=-1)) == (3, "OPEN")
    assert seen_at(NOON + timedelta(hours=1)) == (2, "EXPIRED")


def test_a_closed_plan_is_still_there_for_staff(support: User) -> None:
    plan = FamilyPlan.objects.create(name="Gone", closed_at=NOON)

    seen = ask(support, PLAN, id=node_id(plan))

    assert seen["closedAt"] == "2026-08-03T12:00:00+00:00"
    assert (seen["owner"], seen["members"], seen["seatsTaken"]) == (None, [], 0)
    assert seen["seatsAvailable"] == 0


ODD_IDS = [
    "",
    "x",
    "1",
    "FamilyPlan:1",
    "====",
    "\ud800",
    "\0",
    "\u202e",
    "RmFtaWx5UGxhbjo",  # padding is missing
    to_base64("FamilyPlan"),
    to_base64("FamilyPlan:"),
    to_base64("FamilyPlan:-1"),
    to_base64("FamilyPlan:0"),
    to_base64("FamilyPlan:1e3"),
    to_base64("FamilyPlan:one"),
    to_base64("FamilyPlan: 1"),
    to_base64("FamilyPlan:\u0661"),  # a digit of another script
    to_base64("FamilyPlan:1:1"),
    to_base64("FamilyPlan:9223372036854775807"),
    to_base64("FamilyPlan:9223372036854775808"),
    to_base64("FamilyPlan:9999999999999999999"),
    to_base64("FamilyPlan:" + "9" * 4_000),
    to_base64("FamilyPlan:" + "9" * 10_000),
    to_base64("Nothing:1"),
    to_base64("ZammadUser:1"),
    to_base64("Query:1"),
]


@pytest.mark.parametrize("field", ["plan", "node"])
@pytest.mark.parametrize("odd", ODD_IDS, ids=range(len(ODD_IDS)))
def test_an_odd_id_answers_as_one_that_is_not_there(
    field: str, odd: str, support: User, plan: FamilyPlan
) -> None:
    query = f"query ($id: ID!) {{ {field}(id: $id) {{ id }} }}"

    assert answer(support, query, id=odd) == {"data": {field: None}}
    assert answer(None, query, id=odd) == {"data": {field: None}}


def test_a_plan_has_one_id_only(alice: User, plan: FamilyPlan) -> None:
    forgiven = [f"0{plan.pk}", f"+{plan.pk}", f" {plan.pk}", f"{plan.pk} ", f"{plan.pk}.0"]
    true_id = node_id(plan)

    for other in (true_id + "!", " " + true_id, *(to_base64(f"FamilyPlan:{key}") for key in forgiven)):
        assert ask(alice, "query ($id: ID!) { plan(id: $id) { id } }", id=other) is None
    assert ask(alice, "query ($id: ID!) { plan(id: $id) { id } }", id=true_id) == {"id": true_id}


def test_an_id_of_another_type_answers_as_one_that_is_not_there(alice: User, plan: FamilyPlan) -> None:
    for other in ("Membership", "User", "FamilyPlanInvite", "PlanEvent", "familyplan", "FamilyPlan "):
        assert ask(alice, "query ($id: ID!) { plan(id: $id) { id } }", id=node_id(plan, other)) is None


# --- plans ---------------------------------------------------------------------------------------

NAMES = """query ($filters: PlanFilters) { plans(filters: $filters) { edges { node { name } } } }"""


def names(viewer: User | None, **filters: object) -> list[str]:
    found = ask(viewer, NAMES, filters=filters or None)
    return [edge["node"]["name"] for edge in found["edges"]]


@pytest.fixture
def bakers(db: None) -> FamilyPlan:
    """Another plan, with another owner."""
    plan: FamilyPlan = OwnerFactory(
        user__email="Dora@Example.com", family_plan__name="Bakers & sons"
    ).family_plan
    return plan


def test_plans_are_ones_own_and_for_staff_all(
    alice: User, bob: User, carol: User, support: User, plan: FamilyPlan, bakers: FamilyPlan
) -> None:
    assert names(None) == []
    assert names(carol) == []
    assert names(UserFactory(is_staff=True)) == []
    assert names(alice) == ["The Archers"]
    assert names(bob) == ["The Archers"]
    assert names(support) == ["The Archers", "Bakers & sons"]


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({"name": "ARCH"}, ["The Archers"]),
        ({"name": "e"}, ["The Archers", "Bakers & sons"]),
        ({"name": "%"}, []),
        ({"name": "_"}, []),
        ({"name": None, "ownerEmail": None}, ["The Archers", "Bakers & sons"]),
        ({"name": "", "ownerEmail": ""}, ["The Archers", "Bakers & sons"]),
        ({"ownerEmail": "alice@example.com"}, ["The Archers"]),
        ({"ownerEmail": "DORA@example.COM"}, ["Bakers & sons"]),
        ({"ownerEmail": "bob@example.com"}, []),
        ({"ownerEmail": "example.com"}, []),
        ({"ownerEmail": "alice@example.com", "name": "baker"}, []),
    ],
)
def test_staff_find_plans_by_name_and_by_the_owners_address(
    filters: dict[str, Any], found: list[str], support: User, plan: FamilyPlan, bakers: FamilyPlan
) -> None:
    assert names(support, **filters) == found


def test_a_member_cannot_guess_the_owners_address(alice: User, bob: User, plan: FamilyPlan) -> None:
    assert names(bob, ownerEmail="alice@example.com") == []
    assert names(bob, name="arch") == ["The Archers"]
    assert names(alice, ownerEmail="alice@example.com") == ["The Archers"]
    assert names(alice, ownerEmail="dora@example.com") == []


def test_an_address_nobody_has_verified_finds_no_plan(support: User) -> None:
    OwnerFactory(user=UserFactory(email="eve@example.com", verified=False))

    assert names(support, ownerEmail="eve@example.com") == []


# --- invite --------------------------------------------------------------------------------------

PREVIEW = "query ($token: String!) { invite(token: $token) { planName ownerName expiresAt status } }"


def test_the_holder_of_a_token_sees_what_it_leads_to(carol: User, plan: FamilyPlan) -> None:
    InviteFactory(family_plan=plan, token=TOKEN)

    with unchanged():
        assert ask(carol, PREVIEW, token=TOKEN) == {
            "planName": "The Archers",
            "ownerName": "Alice Archer",
            "expiresAt": "2026-08-05T12:00:00+00:00",
            "status": "OPEN",
        }


def test_a_token_that_is_used_or_expired_still_says_so(bob: User, carol: User, plan: FamilyPlan) -> None:
    invite = InviteFactory(family_plan=plan, token=TOKEN, expires_at=NOON)
    assert ask(carol, PREVIEW, token=TOKEN)["status"] == "EXPIRED"

    FamilyPlanInvite.objects.filter(user=bob).delete()
    FamilyPlanInvite.objects.filter(pk=invite.pk).update(user=bob)
    assert ask(carol, PREVIEW, token=TOKEN)["status"] == "USED"


def test_a_token_tells_nothing_to_who_is_signed_out(plan: FamilyPlan) -> None:
    InviteFactory(family_plan=plan, token=TOKEN)

    assert ask(None, PREVIEW, token=TOKEN) is None


@pytest.mark.parametrize("token", ["", "x", "\0", "\ud800", "T" * 43, "t" * 42, "t" * 43 + " ", "x" * 50_000])
def test_an_unknown_token_is_null(token: str, carol: User, plan: FamilyPlan) -> None:
    InviteFactory(family_plan=plan, token=TOKEN)

    assert ask(carol, PREVIEW, token=token) is None


# --- planByZammadUser ----------------------------------------------------------------------------

BY_ZAMMAD = """query ($id: Int!) { planByZammadUser(zammadUserId: $id) { name members { zammadUserId } } }"""


@pytest.fixture
def linked(bob: User, plan: FamilyPlan) -> None:
    """Bob, who is Zammad's user 57."""
    ZammadUserFactory(zammad_id=57, email="bob@example.com", user=bob)
    ZammadUserFactory(zammad_id=58, email="nobody@example.com")


@pytest.mark.usefixtures("linked")
def test_staff_find_the_plan_of_a_zammad_user(support: User) -> None:
    assert ask(support, BY_ZAMMAD, id=57) == {
        "name": "The Archers",
        "members": [{"zammadUserId": None}, {"zammadUserId": 57}],
    }


@pytest.mark.usefixtures("linked")
@pytest.mark.parametrize("zammad_id", [58, 59, 0, -1, 1, 2**31 - 1, -(2**31)])
def test_a_zammad_user_without_a_plan_has_none(zammad_id: int, support: User) -> None:
    assert ask(support, BY_ZAMMAD, id=zammad_id) is None


@pytest.mark.usefixtures("linked")
@pytest.mark.parametrize("rights", [[], ["view_familyplan", "change_familyplan"], ["view_zammaduser"]])
def test_a_plan_by_zammad_user_needs_both_rights(rights: list[str], alice: User, bob: User) -> None:
    assert ask(grant(UserFactory(is_staff=True), *rights), BY_ZAMMAD, id=57) is None
    assert ask(alice, BY_ZAMMAD, id=57) is None
    assert ask(bob, BY_ZAMMAD, id=57) is None
    assert ask(None, BY_ZAMMAD, id=57) is None


@pytest.mark.usefixtures("linked")
@pytest.mark.parametrize("zammad_id", [2**31, 10**30, 1.5, "57", True])
def test_a_zammad_user_id_is_an_int(zammad_id: object, support: User) -> None:
    body = answer(support, BY_ZAMMAD, id=zammad_id)

    assert "data" not in body
    assert "$id" in body["errors"][0]["message"]


ZAMMAD = """query ($id: ID!) { node(id: $id) { ... on Membership { zammadUserId zammadUser {
    zammadId email firstname lastname organization phone mobile vip active updatedAt syncedAt } } } }"""


def test_zammads_data_is_for_the_person_and_staff(
    alice: User, bob: User, support: User, plan: FamilyPlan
) -> None:
    ZammadUserFactory(
        zammad_id=57,
        email="bob@example.com",
        firstname="Robert",
        lastname="Baker",
        organization="Acme",
        phone="+49 30 5550142",
        mobile="",
        vip=True,
        user=bob,
        synced_at=NOON + timedelta(seconds=1),
    )
    seat = node_id(Membership.objects.get(user=bob))
    seen = {
        "zammadUserId": 57,
        "zammadUser": {
            "zammadId": 57,
            "email": "bob@example.com",
            "firstname": "Robert",
            "lastname": "Baker",
            "organization": "Acme",
            "phone": "+49 30 5550142",
            "mobile": "",
            "vip": True,
            "active": True,
            "updatedAt": "2026-08-03T12:00:00+00:00",
            "syncedAt": "2026-08-03T12:00:01+00:00",
        },
    }

    assert ask(bob, ZAMMAD, id=seat) == seen
    assert ask(support, ZAMMAD, id=seat) == seen
    assert ask(alice, ZAMMAD, id=seat) == {"zammadUserId": None, "zammadUser": None}
    reader = grant(UserFactory(), "view_familyplan")
    assert ask(reader, ZAMMAD, id=seat) == {"zammadUserId": None, "zammadUser": None}


# --- node ----------------------------------------------------------------------------------------

NODE = "query ($id: ID!) { node(id: $id) { __typename id } }"


def test_a_node_is_there_for_those_who_may_see_it(
    alice: User, bob: User, carol: User, support: User, plan: FamilyPlan
) -> None:
    event = PlanEvent.objects.create(family_plan=plan, kind="PLAN_CREATED", actor=alice, subject=alice)
    clerk = UserFactory(is_staff=True)
    rows = {
        plan: {alice, bob, support},
        Membership.objects.get(user=alice): {alice, bob, support},
        FamilyPlanInvite.objects.get(user=bob): {alice, support},
        event: {alice, support},
        alice: {alice, bob, support},
        carol: {carol, support},
    }

    for row, allowed in rows.items():
        for viewer in (None, alice, bob, carol, clerk, support):
            found = {"__typename": type(row).__name__, "id": node_id(row)} if viewer in allowed else None
            assert ask(viewer, NODE, id=node_id(row)) == found, (row, viewer)


@pytest.mark.parametrize("query", ["plan(id: null)", "node", "invite(token: 5)", "plans(first: 1.5)"])
def test_an_argument_of_the_wrong_type_is_told_before_anything_runs(query: str, support: User) -> None:
    body = answer(support, f"{{ {query} {{ __typename }} }}")

    assert "data" not in body
    assert body["errors"][0]["message"]


# --- Odd strings ---------------------------------------------------------------------------------

ODD_TEXTS = [
    "\0",
    "a\0b",
    "\ud800",
    "\udfff\ud800",
    "\U0001f46a",
    "\u202eevil",
    "\u0645\u0631\u062d\u0628\u0627",
    "\ufffe",
    "\x7f\x1b[31m",
    "'; DROP TABLE plans_familyplan; --",
    "%s %(name)s {0} \\",
    "x" * 90_000,
    " ",
]


@pytest.mark.parametrize(
    "query",
    [
        "query ($text: String!) { plans(filters: {name: $text}) { edges { cursor } } }",
        "query ($text: String!) { plans(filters: {ownerEmail: $text}) { edges { cursor } } }",
        "query ($text: String!) { plans(after: $text) { edges { cursor } } }",
        "query ($text: String!) { plans(before: $text) { edges { cursor } } }",
        "query ($text: String!) { invite(token: $text) { status } }",
        "query ($text: ID!) { plan(id: $text) { id } }",
        "query ($text: ID!) { node(id: $text) { id } }",
        "query ($text: String!) { viewer { plan { invites(after: $text) { edges { cursor } } } } }",
        "query ($text: String!) { viewer { plan { events(after: $text) { edges { cursor } } } } }",
    ],
)
@pytest.mark.parametrize("who", ["alice", "support"])
def test_an_odd_string_breaks_nothing(
    query: str, who: str, alice: User, support: User, plan: FamilyPlan
) -> None:
    viewer = {"alice": alice, "support": support}[who]
    takes_cursor = "after" in query or "before" in query

    for text in ODD_TEXTS:
        body = answer(viewer, query, text=text)

        codes = [error["extensions"]["code"] for error in body.get("errors", [])]
        refused = takes_cursor and (who == "alice" or "viewer" not in query)
        assert codes == (["INVALID_INPUT"] if refused else []), text
