"""Who sees what of plans: the owner more than a member, staff with the right all, strangers nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import constance
import pytest
from django.contrib.auth.models import AnonymousUser, Permission, User

from plans.models import FamilyPlan, Membership, PlanEvent, display_name
from plans.queries import Person
from plans.reading import Reading
from plans.rules import may_create_plan
from plans.visibility import Viewer
from tests.factories import InviteFactory, OwnerFactory, UserFactory, ZammadUserFactory

if TYPE_CHECKING:
    from plans.visibility import Actor

pytestmark = pytest.mark.django_db


@pytest.fixture
def neighbour(plan: FamilyPlan) -> User:
    """The owner of another plan."""
    person: User = OwnerFactory(family_plan__name="The Neighbours").user
    InviteFactory(family_plan=person.membership.family_plan)
    return person


@pytest.fixture
def everybody(
    plan: FamilyPlan, alice: User, bob: User, carol: User, neighbour: User, support: User
) -> dict[str, Viewer]:
    actors: dict[str, Actor] = {
        "stranger": AnonymousUser(),
        "carol": carol,
        "bob": bob,
        "alice": alice,
        "neighbour": neighbour,
        "support": support,
    }
    return {name: Viewer(actor) for name, actor in actors.items()}


def told(everybody: dict[str, Viewer], question: Callable[[Viewer], object]) -> set[str]:
    """List the viewers for whom a query returns something."""
    return {name for name, viewer in everybody.items() if question(viewer)}


def described(person: User) -> Person:
    seat = Membership.objects.filter(user=person).first()
    return Person.of(person, plan_id=seat.family_plan_id if seat else None)


def may_create(viewer: Viewer) -> bool:
    return may_create_plan(Reading(viewer.user))


def test_a_plan_is_seen_by_its_people_and_by_staff(plan: FamilyPlan, everybody: dict[str, Viewer]) -> None:
    member = Membership.objects.filter(family_plan=plan).earliest("pk")

    assert told(everybody, lambda viewer: plan in viewer.plans()) == {"alice", "bob", "support"}
    assert told(everybody, lambda viewer: member in viewer.memberships()) == {"alice", "bob", "support"}


def test_history_is_seen_by_the_owner_and_by_staff(plan: FamilyPlan, everybody: dict[str, Viewer]) -> None:
    event = PlanEvent.objects.create(family_plan=plan, kind=PlanEvent.Kind.PLAN_CREATED)
    invite = plan.invites.get()

    assert told(everybody, lambda viewer: viewer.sees_history_of(plan.pk)) == {"alice", "support"}
    events = told(everybody, lambda viewer: event in viewer.events())
    assert events == {"alice", "support"}
    invites = told(everybody, lambda viewer: invite in viewer.invites())
    assert invites == {"alice", "support"}


def test_a_plan_is_found_by_who_sees_it(plan: FamilyPlan, everybody: dict[str, Viewer]) -> None:
    assert told(everybody, lambda viewer: (found := viewer.plan(plan.pk)) and found.pk == plan.pk) == {
        "alice",
        "bob",
        "support",
    }
    assert told(everybody, lambda viewer: viewer.plan(0)) == set()


def test_an_address_is_seen_by_the_person_the_owner_and_staff(
    bob: User, carol: User, alice: User, everybody: dict[str, Viewer]
) -> None:
    assert told(everybody, lambda viewer: viewer.sees_address_of(described(bob))) == {
        "bob",
        "alice",
        "support",
    }
    assert told(everybody, lambda viewer: viewer.sees_address_of(described(alice))) == {"alice", "support"}
    assert told(everybody, lambda viewer: viewer.sees_address_of(described(carol))) == {"carol", "support"}


def test_zammads_data_is_seen_by_the_person_and_by_staff_with_both_rights(
    bob: User, everybody: dict[str, Viewer]
) -> None:
    reader: User = UserFactory()
    reader.user_permissions.add(Permission.objects.get(codename="view_familyplan"))
    everybody["reader"] = Viewer(reader)
    meddler: User = UserFactory()
    meddler.user_permissions.add(Permission.objects.get(codename="view_zammaduser"))
    everybody["meddler"] = Viewer(meddler)

    ZammadUserFactory(user=bob, email="bob@example.com")

    assert told(everybody, lambda viewer: viewer.sees_zammad_user_of(bob.membership)) == {"bob", "support"}
    assert told(everybody, lambda viewer: viewer.reads_all_plans) == {"support", "reader"}


def test_a_person_sees_no_record_of_an_address_that_is_not_theirs(
    bob: User, everybody: dict[str, Viewer]
) -> None:
    ZammadUserFactory(user=bob, email="former.bob@example.com", link_kind="HAND")

    assert told(everybody, lambda viewer: viewer.sees_zammad_user_of(bob.membership)) == {"support"}


def test_people_are_looked_up_by_those_who_share_their_plan(
    alice: User, bob: User, carol: User, neighbour: User, everybody: dict[str, Viewer]
) -> None:
    people = [alice, bob, carol, neighbour]
    seen = {
        name: {person for person in people if viewer.sees_person(described(person))}
        for name, viewer in everybody.items()
    }

    assert seen == {
        "stranger": set(),
        "carol": {carol},
        "bob": {alice, bob},
        "alice": {alice, bob},
        "neighbour": {neighbour},
        "support": set(people),
    }


def test_plans_are_listed_and_searched_within_what_one_sees(
    plan: FamilyPlan, neighbour: User, everybody: dict[str, Viewer]
) -> None:
    theirs = neighbour.membership.family_plan
    assert set(everybody["support"].plans()) == {plan, theirs}
    assert set(everybody["support"].plans(name="ARCH")) == {plan}
    assert set(everybody["support"].plans(owner_email=neighbour.email.upper())) == {theirs}
    assert set(everybody["support"].plans(name="arch", owner_email=neighbour.email)) == set()
    assert set(everybody["alice"].plans(owner_email="alice@example.com")) == {plan}
    assert set(everybody["alice"].plans(owner_email=neighbour.email)) == set()
    assert set(everybody["bob"].plans(name="arch")) == {plan}
    assert set(everybody["carol"].plans()) == set()


@pytest.mark.parametrize("verified", ["ada@bücher.example", "ada@xn--bcher-kva.example"])
@pytest.mark.parametrize("asked", ["ada@bücher.example", "Ada@xn--bcher-kva.EXAMPLE"])
def test_an_owner_is_found_by_either_spelling_of_their_domain(
    everybody: dict[str, Viewer], verified: str, asked: str
) -> None:
    hers = OwnerFactory(user=UserFactory(email=verified)).family_plan

    assert set(everybody["support"].plans(owner_email=asked)) == {hers}


def test_a_member_cannot_guess_the_owners_address(plan: FamilyPlan, everybody: dict[str, Viewer]) -> None:
    assert not everybody["bob"].plans(owner_email="alice@example.com").exists()
    assert not everybody["stranger"].plans(owner_email="alice@example.com").exists()


@pytest.mark.parametrize("odd", ["nul\0", "half\ud800"])
def test_a_text_that_no_database_holds_matches_nothing(
    plan: FamilyPlan, everybody: dict[str, Viewer], odd: str
) -> None:
    assert not everybody["support"].plans(name=odd).exists()
    assert not everybody["support"].plans(owner_email=odd).exists()


def test_an_unverified_address_finds_no_plan(plan: FamilyPlan, everybody: dict[str, Viewer]) -> None:
    OwnerFactory(user=UserFactory(email="victim@example.com", verified=False))

    assert not everybody["support"].plans(owner_email="victim@example.com").exists()


def test_a_plan_of_ones_own_is_for_who_has_none(everybody: dict[str, Viewer]) -> None:
    assert told(everybody, may_create) == {"support"}

    constance.config.SELF_SERVICE_PLANS = True
    # people who are signed out sign in first
    signed_in = {name: viewer for name, viewer in everybody.items() if name != "stranger"}
    assert told(signed_in, may_create) == {"carol", "support"}


def test_a_person_is_named_by_their_name_or_the_start_of_their_address(alice: User) -> None:
    assert display_name(alice) == "Alice Archer"
    assert display_name(User(email="dave@example.com")) == "dave"
    assert display_name(User(email="dave@example.com", first_name=" ", last_name=" ")) == "dave"


@pytest.mark.parametrize(
    ("local_part", "name"),
    [
        ("dave.dunn", "dave dunn"),
        ("dave_dunn+plans", "dave dunn plans"),
        ("www.evil.example/win", "www evil example win"),
        ("o'neill-7", "o neill 7"),
        ("हिन्दी", "हिन्दी"),
        ("...", "..."),
    ],
)
def test_the_start_of_an_address_is_read_as_its_words(local_part: str, name: str) -> None:
    assert display_name(User(email=f"{local_part}@example.com")) == name


def test_everything_has_a_name_in_admin(plan: FamilyPlan, alice: User, bob: User) -> None:
    invite = plan.invites.get()

    assert [str(plan), str(alice.membership), str(bob.membership), str(invite)] == [
        "The Archers",
        "Alice Archer (Owner)",
        "Bob Baker (Member)",
        f"Invite {invite.pk}",
    ]
    assert str(PlanEvent(kind=PlanEvent.Kind.MEMBER_LEFT)) == "Member Left"


def test_a_plan_is_found_by_the_zammad_id_of_its_people(plan: FamilyPlan, bob: User, carol: User) -> None:
    ZammadUserFactory(zammad_id=57, user=bob)
    ZammadUserFactory(zammad_id=58, user=carol)
    ZammadUserFactory(zammad_id=59)

    found = {number: FamilyPlan.objects.of_zammad_user(number).first() for number in (57, 58, 59, 60, 10**30)}

    assert found == {57: plan, 58: None, 59: None, 60: None, 10**30: None}
