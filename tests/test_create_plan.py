"""Who may create a plan, for whom, and with which name."""

from datetime import UTC, datetime

import constance
import pytest
from allauth.account.models import EmailAddress
from django.contrib.auth.models import AnonymousUser, Permission, User
from time_machine import TimeMachineFixture

from plans import rules, services
from plans.models import FamilyPlan, Membership, PlanEvent
from plans.services import create_plan
from tests.factories import MembershipFactory, OwnerFactory, UserFactory
from tests.questions import owner_of
from tests.refusals import refused

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 8, 3, 12, tzinfo=UTC)


@pytest.fixture
def self_service(db: None) -> None:
    constance.config.SELF_SERVICE_PLANS = True


def grant(person: User, codename: str) -> User:
    """Give a person one right, and forget their cached rights."""
    person.user_permissions.add(Permission.objects.get(codename=codename))
    return User.objects.get(pk=person.pk)


# --- Success -----------------------------------------------------------------------------------


def test_a_plan_begins_with_its_owner_and_its_history(
    carol: User, self_service: None, time_machine: TimeMachineFixture
) -> None:
    time_machine.move_to(NOON, tick=False)

    plan = create_plan(actor=carol, name="  The Carvers ")

    assert FamilyPlan.objects.values().get() == {
        "id": plan.pk,
        "name": "The Carvers",
        "user_limit": None,
        "created_at": NOON,
        "closed_at": None,
    }
    seat = Membership.objects.values("user", "family_plan", "role", "joined_at").get()
    assert seat == {"user": carol.pk, "family_plan": plan.pk, "role": "OWNER", "joined_at": NOON}
    event = PlanEvent.objects.values("family_plan", "kind", "actor", "subject", "invite", "at").get()
    assert event == {
        "family_plan": plan.pk,
        "kind": "PLAN_CREATED",
        "actor": carol.pk,
        "subject": carol.pk,
        "invite": None,
        "at": NOON,
    }


def test_staff_create_a_plan_for_whoever_verified_an_address(support: User, carol: User) -> None:
    plan = create_plan(actor=support, name="The Carvers", owner_email=" Carol@EXAMPLE.com ")

    assert owner_of(plan) == carol
    event = plan.events.get()
    assert (event.kind, event.actor, event.subject) == ("PLAN_CREATED", support, carol)


def test_an_international_address_is_found_as_its_account_holds_it(support: User, carol: User) -> None:
    EmailAddress.objects.filter(user=carol).update(email="carol@xn--bcher-kva.example")

    plan = create_plan(actor=support, name="The Carvers", owner_email="Carol@Bücher.example")

    assert owner_of(plan) == carol


def test_the_right_to_create_plans_is_enough_for_a_plan_of_ones_own(carol: User) -> None:
    plan = create_plan(actor=grant(carol, "add_familyplan"), name="The Carvers")

    assert owner_of(plan) == carol


def test_ones_own_verified_address_means_a_plan_of_ones_own(carol: User, self_service: None) -> None:
    plan = create_plan(actor=carol, name="The Carvers", owner_email="carol@example.com")

    assert owner_of(plan) == carol


@pytest.mark.parametrize("name", ["x", "n" * 80, "Zoë & <b>Söhne</b>", "家族プラン", "😀 plan"])
def test_a_name_is_kept_as_it_was_written(carol: User, self_service: None, name: str) -> None:
    create_plan(actor=carol, name=name)

    assert FamilyPlan.objects.get().name == name


# --- Refusals, in their order --------------------------------------------------------------------


def test_a_stranger_signs_in_first(self_service: None) -> None:
    with refused("NOT_AUTHENTICATED"):
        create_plan(actor=AnonymousUser(), name="", owner_email="nobody")


def test_a_plan_of_ones_own_needs_self_service_or_the_right(carol: User) -> None:
    with refused("PERMISSION_DENIED"):
        create_plan(actor=carol, name="")


@pytest.mark.parametrize("address", ["bob@example.com", "nobody@example.com"])
def test_a_plan_for_another_needs_the_right_also_with_self_service(
    carol: User, bob: User, self_service: None, address: str
) -> None:
    with refused("PERMISSION_DENIED"):
        create_plan(actor=carol, name="The Bakers", owner_email=address)


def test_an_address_that_one_never_verified_is_anothers(self_service: None) -> None:
    mallory = UserFactory(email="victim@example.com", verified=False)

    with refused("PERMISSION_DENIED"):
        create_plan(actor=mallory, name="Mine", owner_email="victim@example.com")


@pytest.mark.parametrize("right", ["view_familyplan", "change_familyplan"])
def test_no_other_right_creates_plans(carol: User, right: str) -> None:
    with refused("PERMISSION_DENIED"):
        create_plan(actor=grant(carol, right), name="The Carvers")


def test_being_staff_alone_creates_no_plan(carol: User) -> None:
    carol.is_staff = True
    carol.save()

    with refused("PERMISSION_DENIED"):
        create_plan(actor=carol, name="The Carvers")


@pytest.mark.parametrize("owner_email", ["", "  "])
def test_a_blank_address_is_a_slip_and_not_oneself(carol: User, self_service: None, owner_email: str) -> None:
    with refused("INVALID_INPUT", field="owner_email"):
        create_plan(actor=carol, name="The Carvers", owner_email=owner_email)


@pytest.mark.parametrize(
    "name",
    [
        "",
        " \t ",
        "n" * 81,
        "two\nlines",
        "two\u2028lines",
        "NUL\0",
        "bell\a",
        "half \ud800",
        "right\u202eot tfel",
        "see https://evil.example",
        "evil.example/win",
        "ask bob@evil.example",
        "\u200b\u200b",
        "\u3164",
        "\u2800 \u00ad",
    ],
)
def test_a_name_is_one_short_line_without_tricks(carol: User, self_service: None, name: str) -> None:
    with refused("INVALID_INPUT", field="name"):
        create_plan(actor=carol, name=name)


@pytest.mark.parametrize(
    "address",
    [
        "nobody",
        "a@b",
        "two@example.com, three@example.com",
        "line@example.com\nBcc: other@example.com",
        "nul\0@example.com",
        "half\ud800@example.com",
        f"{'l' * 64}@{'d' * 60}.{'d' * 60}.{'d' * 60}.example.com",
    ],
)
def test_an_address_is_an_address(support: User, address: str) -> None:
    with refused("INVALID_INPUT", field="owner_email"):
        create_plan(actor=support, name="The Carvers", owner_email=address)


def test_a_name_is_read_before_an_address_is_looked_up(support: User) -> None:
    with refused("INVALID_INPUT", field="name"):
        create_plan(actor=support, name="", owner_email="nobody@example.com")


def test_an_unknown_address_owns_nothing(support: User) -> None:
    with refused("USER_NOT_FOUND"):
        create_plan(actor=support, name="The Nobodies", owner_email="nobody@example.com")


def test_an_unverified_address_owns_nothing(support: User, carol: User) -> None:
    EmailAddress.objects.filter(user=carol).update(verified=False)

    with refused("USER_NOT_FOUND"):
        create_plan(actor=support, name="The Carvers", owner_email="carol@example.com")


def test_a_person_whose_account_ended_owns_nothing(support: User, carol: User) -> None:
    User.objects.filter(pk=carol.pk).update(is_active=False)

    with refused("USER_NOT_FOUND"):
        create_plan(actor=support, name="The Carvers", owner_email="carol@example.com")


@pytest.mark.parametrize("seat", [OwnerFactory, MembershipFactory])
def test_nobody_is_in_two_plans(carol: User, self_service: None, seat: type[MembershipFactory]) -> None:
    seat(user=carol)

    with refused("ALREADY_IN_PLAN"):
        create_plan(actor=carol, name="Another")


# --- The world changes before the lock -------------------------------------------------------------


def test_an_account_that_ended_meanwhile_gets_no_plan(carol: User, self_service: None) -> None:
    # carol was signed in when the request began
    User.objects.filter(pk=carol.pk).update(is_active=False)

    with refused("NOT_AUTHENTICATED"):
        create_plan(actor=carol, name="The Carvers")


def test_an_address_that_was_given_up_meanwhile_owns_nothing(
    support: User, carol: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    def given_up(address: str) -> int:
        owner = owner_of_address(address)
        User.objects.filter(pk=carol.pk).update(is_active=False)
        return owner

    owner_of_address = rules.owner_of_address
    monkeypatch.setattr(services, "owner_of_address", given_up)

    with refused("USER_NOT_FOUND"):
        create_plan(actor=support, name="The Carvers", owner_email="carol@example.com")
