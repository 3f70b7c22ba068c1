"""What the database itself refuses, even from code that goes past the services."""

from datetime import UTC, datetime

import pytest
from django.contrib.auth.models import User
from django.db import IntegrityError, connection, transaction
from django.db.models import Model, ProtectedError

from plans.models import FamilyPlan, FamilyPlanInvite, Membership, PlanEvent
from tests.factories import FamilyPlanFactory, InviteFactory, MembershipFactory, OwnerFactory, UserFactory
from tests.refusals import unchanged

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 8, 3, 12, tzinfo=UTC)


def overwrite(row: Model, column: str, value: datetime | str | int | None) -> None:
    """Write one column past every rule in Python."""
    table, key = row._meta.db_table, row.pk
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f'UPDATE "{table}" SET "{column}" = %s WHERE id = %s', [value, key])  # noqa: S608


def test_every_constraint_of_plans_stands_in_the_database() -> None:
    names: set[str] = set()
    with connection.cursor() as cursor:
        for model in (FamilyPlan, Membership, FamilyPlanInvite):
            names |= set(connection.introspection.get_constraints(cursor, model._meta.db_table))

    assert names >= {
        "plan_name_not_empty",
        "plan_user_limit_in_range",
        "one_owner_per_plan",
        "membership_role_known",
        "invite_email_lower_case",
        "open_invites_of_plan",
    }


# --- Plans -------------------------------------------------------------------------------------


def test_a_plan_needs_a_name_and_nothing_more() -> None:
    FamilyPlan.objects.create(name="The Archers")

    with unchanged(), pytest.raises(IntegrityError), transaction.atomic():
        FamilyPlan.objects.create(name="")
    with unchanged(), pytest.raises(IntegrityError), transaction.atomic():
        FamilyPlan.objects.bulk_create([FamilyPlan(name="fine"), FamilyPlan(name="")])


@pytest.mark.parametrize("limit", [1, 100, None])
def test_a_limit_in_range_is_stored(limit: int | None) -> None:
    plan = FamilyPlan.objects.create(name="The Archers", user_limit=limit)

    plan.refresh_from_db()
    assert plan.user_limit == limit


@pytest.mark.parametrize("limit", [0, -1, 101, 32767])
def test_a_limit_out_of_range_is_not(limit: int) -> None:
    plan = FamilyPlanFactory()

    with unchanged(), pytest.raises(IntegrityError):
        overwrite(plan, "user_limit", limit)


# --- Memberships -------------------------------------------------------------------------------


def test_a_person_is_in_one_plan(plan: FamilyPlan, bob: User) -> None:
    with unchanged(), pytest.raises(IntegrityError), transaction.atomic():
        Membership.objects.create(user=bob, family_plan=FamilyPlanFactory())


def test_a_plan_has_one_owner(plan: FamilyPlan, bob: User) -> None:
    with unchanged(), pytest.raises(IntegrityError), transaction.atomic():
        OwnerFactory(family_plan=plan)
    with unchanged(), pytest.raises(IntegrityError):
        overwrite(bob.membership, "role", "OWNER")


def test_roles_are_two(plan: FamilyPlan, bob: User) -> None:
    with unchanged(), pytest.raises(IntegrityError):
        overwrite(bob.membership, "role", "GUEST")


# --- Invites -----------------------------------------------------------------------------------


@pytest.mark.parametrize("column", ["token_digest", "zammad_token_name"])
def test_no_two_invites_share_a_token(column: str) -> None:
    first, second = InviteFactory.create_batch(2)

    with unchanged(), pytest.raises(IntegrityError):
        overwrite(second, column, getattr(first, column))


def test_a_person_has_used_one_invite(plan: FamilyPlan, bob: User) -> None:
    another = InviteFactory()

    with unchanged(), pytest.raises(IntegrityError):
        overwrite(another, "user_id", bob.pk)


def test_an_invite_is_used_exactly_when_it_has_a_person(plan: FamilyPlan, bob: User) -> None:
    invite = bob.family_plan_invite
    open_invite = InviteFactory()

    stored = dict(FamilyPlanInvite.objects.values_list("pk", "is_used"))
    assert stored == {invite.pk: True, open_invite.pk: False}
    FamilyPlanInvite.objects.filter(pk=invite.pk).update(user=None)
    assert FamilyPlanInvite.objects.get(pk=invite.pk).is_used is False


def test_nobody_writes_that_an_invite_is_used() -> None:
    invite = InviteFactory()

    # SQLite raises another error than PostgreSQL
    with unchanged(), pytest.raises(Exception, match="is_used"):
        overwrite(invite, "is_used", True)


def test_addresses_are_in_lower_case() -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        InviteFactory(family_plan=FamilyPlanFactory(), email="Dave@example.com")

    assert not FamilyPlanInvite.objects.exists()


def test_an_invite_belongs_to_a_plan_and_ends(plan: FamilyPlan, bob: User) -> None:
    for column in ("family_plan_id", "expires_at"):
        with unchanged(), pytest.raises(IntegrityError):
            overwrite(bob.family_plan_invite, column, None)


# --- People who go -----------------------------------------------------------------------------


def test_whoever_holds_a_seat_is_detached_before_they_are_deleted(plan: FamilyPlan, bob: User) -> None:
    with unchanged(), pytest.raises(ProtectedError):
        bob.delete()


def test_whoever_used_an_invite_is_detached_before_they_are_deleted() -> None:
    person = InviteFactory(user=UserFactory()).user

    with unchanged(), pytest.raises(ProtectedError):
        person.delete()


def test_what_only_remembers_a_person_forgets_them(plan: FamilyPlan, carol: User) -> None:
    invite = InviteFactory(family_plan=plan, created_by=carol)
    event = PlanEvent.objects.create(
        family_plan=plan, kind=PlanEvent.Kind.MEMBER_LEFT, actor=carol, subject=carol, invite=invite, at=NOON
    )

    carol.delete()

    invite.refresh_from_db()
    event.refresh_from_db()
    assert (invite.created_by, event.actor, event.subject) == (None, None, None)
    assert (event.kind, event.at, event.invite) == ("MEMBER_LEFT", NOON, invite)


def test_history_outlives_its_invite(plan: FamilyPlan) -> None:
    invite: FamilyPlanInvite = InviteFactory(family_plan=plan)
    event = PlanEvent.objects.create(family_plan=plan, invite=invite)

    invite.delete()

    event.refresh_from_db()
    assert event.invite is None


def test_seats_that_last_hold_their_plan_and_go_with_it() -> None:
    plan = MembershipFactory().family_plan
    InviteFactory(family_plan=plan)

    plan.delete()

    assert not Membership.objects.exists()
    assert not FamilyPlanInvite.objects.exists()
