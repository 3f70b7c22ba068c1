"""The benchmarks' data set is what the services would have written, and you can go on from it."""

import pytest
from django.contrib.auth.models import User
from django.test import Client

from plans.models import FamilyPlan, PlanEvent
from plans.services import create_plan
from tests.api import post
from tests.benchmarks.dataset import PASSWORD, DataSet, fill, invite_token, session_token
from tests.production import check_promises
from zammad.models import ZammadUser

pytestmark = [pytest.mark.django_db, pytest.mark.postgresql]

PLAN = """{ viewer { plan { name userLimit seatsTaken seatsAvailable owner { email }
    members { role zammadUserId } invites(status: OPEN) { edges { node { email mailStatus } } } } } }"""
ACCEPT = """mutation ($token: String!) { acceptInvite(input: {token: $token}) {
    ... on AcceptedInvite { plan { seatsTaken } membership { zammadUserId } }
    ... on OperationInfo { messages { code } } } }"""


def test_a_journey_goes_on_from_a_data_set() -> None:
    data = DataSet(plans=20, sessions=30)
    fill(data)
    assert FamilyPlan.objects.count() == 20
    assert PlanEvent.objects.count() == 20 * (1 + 4 * 2 + 3)
    check_promises()

    owner = post(Client(), PLAN, **{"X-Session-Token": session_token(data.owner(20))})
    assert owner.json()["data"]["viewer"]["plan"] == {
        "name": "Plan 20",
        "userLimit": 9,
        "seatsTaken": 8,
        "seatsAvailable": 1,
        "owner": {"email": "person69@example.com"},
        "members": [{"role": "OWNER", "zammadUserId": 1096}, *[{"role": "MEMBER", "zammadUserId": None}] * 4],
        "invites": {
            "edges": [
                {"node": {"email": "invited041@example.com", "mailStatus": "SENT"}},
                {"node": {"email": "invited931@example.com", "mailStatus": "SENT"}},
                {"node": {"email": None, "mailStatus": "NONE"}},
            ]
        },
    }

    guest = {"X-Session-Token": session_token(data.guest(30))}
    accepted = post(Client(), ACCEPT, {"token": invite_token(data.open_invite(20))}, **guest)
    assert accepted.json()["data"]["acceptInvite"] == {
        "plan": {"seatsTaken": 8},
        "membership": {"zammadUserId": 1130},
    }
    check_promises()


def test_people_of_a_data_set_sign_in_by_password_and_others_come_after_them() -> None:
    data = DataSet(plans=2, members=1, sessions=3)
    fill(data)

    body = {"email": "person2@example.com", "password": PASSWORD}
    signed_in = Client().post("/_allauth/app/v1/auth/login", body, content_type="application/json")
    assert signed_in.status_code == 200
    assert User.objects.create(username="newcomer").pk == data.superuser + 1

    admin = User.objects.create_superuser("admin")
    guest = User.objects.get(pk=data.guest(1))
    plan = create_plan(actor=admin, name="The next", owner_email=guest.email)
    assert (plan.pk, ZammadUser.objects.get(user=None, zammad_id=1003).email) == (3, guest.email)


def test_a_database_with_people_in_it_stays_as_it_is(alice: User) -> None:
    with pytest.raises(SystemExit, match="name an empty one"):
        fill(DataSet(plans=1))
    assert list(User.objects.all()) == [alice]
