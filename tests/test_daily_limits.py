"""What one person may do in a day, over all their plans: invites as owner, and plans of their own."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from importlib import import_module
from types import SimpleNamespace

import constance
import pytest
from django.apps import apps
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test.utils import CaptureQueriesContext
from time_machine import TimeMachineFixture

from plans.models import FamilyPlan, FamilyPlanInvite, Membership, PlanEvent
from plans.reading import Reading
from plans.rules import may_create_plan
from plans.services import close_plan, create_invite, create_plan, detach_member, reissue_invite
from plans.services import transfer_ownership as transfer
from tests.factories import FamilyPlanFactory, InviteFactory, MembershipFactory, OwnerFactory, UserFactory
from tests.refusals import refused, refused_when
from zammad.sandbox import Sandbox

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 8, 3, 12, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture(autouse=True)
def _self_service(db: None) -> None:
    constance.config.SELF_SERVICE_PLANS = True


def start_anew(person: User) -> FamilyPlan:
    """Close the plan of a person, if there is one, and create another."""
    seat = Membership.objects.filter(user=person).first()
    if seat:
        close_plan(actor=person, plan_id=seat.family_plan_id)
    return create_plan(actor=person, name="Another")


# --- Invites that a person issues as owner -----------------------------------------------------------


def test_what_an_owner_issued_in_a_plan_that_is_closed_counts_in_the_next(
    carol: User, sandbox: Sandbox
) -> None:
    constance.config.INVITES_PER_DAY = 3
    plan = start_anew(carol)
    invite = create_invite(actor=carol, plan_id=plan.pk).invite
    reissue_invite(actor=carol, invite_id=invite.pk)

    plan = start_anew(carol)
    invite = create_invite(actor=carol, plan_id=plan.pk).invite

    calls = len(sandbox.calls)
    with refused("INVITE_LIMIT_REACHED"):
        create_invite(actor=carol, plan_id=plan.pk)
    with refused("INVITE_LIMIT_REACHED"):
        reissue_invite(actor=carol, invite_id=invite.pk)
    assert len(sandbox.calls) == calls  # Zammad gets no request


def test_the_limit_is_looked_at_again_under_the_lock(carol: User, sandbox: Sandbox) -> None:
    constance.config.INVITES_PER_DAY = 1
    plan = start_anew(carol)

    def issue_elsewhere() -> None:
        PlanEvent.objects.create(
            family_plan=FamilyPlanFactory(), kind="INVITE_REISSUED", actor=carol, counts_for_actor=True
        )

    with refused_when("INVITE_LIMIT_REACHED", issue_elsewhere):
        create_invite(actor=carol, plan_id=plan.pk)


def test_the_next_day_brings_an_owner_new_invites(
    carol: User, sandbox: Sandbox, time_machine: TimeMachineFixture
) -> None:
    constance.config.INVITES_PER_DAY = 1
    time_machine.move_to(NOON, tick=False)
    create_invite(actor=carol, plan_id=start_anew(carol).pk)
    plan = start_anew(carol)

    time_machine.move_to(NOON + DAY - timedelta(microseconds=1), tick=False)
    with refused("INVITE_LIMIT_REACHED"):
        create_invite(actor=carol, plan_id=plan.pk)
    time_machine.move_to(NOON + DAY, tick=False)

    create_invite(actor=carol, plan_id=plan.pk)


def test_an_owner_takes_along_what_they_issued_and_leaves_none_of_it(
    plan: FamilyPlan, alice: User, bob: User, sandbox: Sandbox
) -> None:
    constance.config.INVITES_PER_DAY = 2
    create_invite(actor=alice, plan_id=plan.pk)
    transfer(actor=alice, membership_id=bob.membership.pk)
    detach_member(actor=alice, membership_id=Membership.objects.get(user=alice).pk)
    anew = start_anew(alice)

    # the plan has one left, and both of them have one
    create_invite(actor=bob, plan_id=plan.pk)
    create_invite(actor=alice, plan_id=anew.pk)

    for person, its_plan in ((bob, plan), (alice, anew)):
        with refused("INVITE_LIMIT_REACHED"):
            create_invite(actor=person, plan_id=its_plan.pk)


def test_what_staff_issue_for_owners_counts_for_neither(support: User, carol: User, sandbox: Sandbox) -> None:
    constance.config.INVITES_PER_DAY = 1
    plans = [OwnerFactory().family_plan for _ in range(3)]
    for plan in plans:
        create_invite(actor=support, plan_id=plan.pk)
    theirs = start_anew(carol)
    create_invite(actor=support, plan_id=theirs.pk)
    anew = start_anew(carol)

    create_invite(actor=carol, plan_id=anew.pk)  # as her first
    own = create_plan(actor=support, name="Of support")
    create_invite(actor=support, plan_id=own.pk)  # as theirs

    for person, plan in ((carol, anew), (support, own), (support, plans[0])):
        with refused("INVITE_LIMIT_REACHED"):
            create_invite(actor=person, plan_id=plan.pk)


def test_staff_are_counted_where_they_are_the_owner(support: User, sandbox: Sandbox) -> None:
    constance.config.INVITES_PER_DAY = 1
    create_invite(actor=support, plan_id=start_anew(support).pk)
    plan = start_anew(support)

    with refused("INVITE_LIMIT_REACHED"):
        create_invite(actor=support, plan_id=plan.pk)
    # and act for others as always
    create_invite(actor=support, plan_id=OwnerFactory().family_plan_id)


def test_what_others_issued_counts_for_nobody_else(carol: User, sandbox: Sandbox) -> None:
    constance.config.INVITES_PER_DAY = 1
    for _ in range(2):
        seat = OwnerFactory()
        create_invite(actor=seat.user, plan_id=seat.family_plan_id)

    create_invite(actor=carol, plan_id=start_anew(carol).pk)


# --- Plans that people create for themselves -------------------------------------------------------


def test_a_person_makes_so_many_plans_in_a_day(carol: User, time_machine: TimeMachineFixture) -> None:
    time_machine.move_to(NOON, tick=False)
    for _ in range(3):
        plan = start_anew(carol)
    close_plan(actor=carol, plan_id=plan.pk)

    time_machine.move_to(NOON + DAY - timedelta(microseconds=1), tick=False)
    assert not may_create_plan(Reading(carol))
    for address in (None, "carol@example.com"):
        with refused("PLAN_LIMIT_REACHED"):
            create_plan(actor=carol, name="The fourth", owner_email=address)

    time_machine.move_to(NOON + DAY, tick=False)
    assert may_create_plan(Reading(carol))
    create_plan(actor=carol, name="Of the next day")


def test_the_setting_is_the_limit(carol: User) -> None:
    constance.config.PLANS_PER_DAY = 1
    close_plan(actor=carol, plan_id=start_anew(carol).pk)

    with refused("PLAN_LIMIT_REACHED"):
        create_plan(actor=carol, name="The second")


def test_plans_that_are_made_by_right_for_others_are_not_counted(support: User) -> None:
    constance.config.PLANS_PER_DAY = 1
    for owner in (UserFactory(), UserFactory()):
        plan = create_plan(actor=support, name="Theirs", owner_email=owner.email)
        close_plan(actor=support, plan_id=plan.pk)
        # nor does it count for its owner
        start_anew(owner)

    start_anew(support)


def test_the_right_to_create_plans_is_no_way_around(carol: User) -> None:
    constance.config.SELF_SERVICE_PLANS = False
    constance.config.PLANS_PER_DAY = 1
    carol.user_permissions.add(Permission.objects.get(codename="add_familyplan"))
    close_plan(actor=carol, plan_id=start_anew(carol).pk)

    with refused("PLAN_LIMIT_REACHED"):
        create_plan(actor=carol, name="Mine")
    create_plan(actor=carol, name="Another's", owner_email=UserFactory().email)


def test_a_plan_that_somebody_was_given_counts_for_nobody(plan: FamilyPlan, alice: User, bob: User) -> None:
    constance.config.PLANS_PER_DAY = 1
    transfer(actor=alice, membership_id=bob.membership.pk)
    detach_member(actor=alice, membership_id=Membership.objects.get(user=alice).pk)
    InviteFactory(family_plan=plan)
    MembershipFactory(family_plan=plan)

    start_anew(alice)
    assert FamilyPlan.objects.count() == 2


# --- How it is counted ------------------------------------------------------------------------------


@pytest.mark.postgresql
def test_a_person_is_counted_by_an_index_however_much_they_did_for_others(support: User) -> None:
    plan = FamilyPlanFactory()
    PlanEvent.objects.bulk_create(
        PlanEvent(family_plan=plan, kind="INVITE_CREATED", actor=support) for _ in range(2000)
    )
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE plans_planevent")
        counted = PlanEvent.objects.issuing(since=NOON).counted_for(support.pk)
        with CaptureQueriesContext(connection) as captured:
            assert counted.count() == 0
        cursor.execute(f"EXPLAIN {captured.captured_queries[-1]['sql']}")
        explained = "\n".join(line for (line,) in cursor.fetchall())

    assert "events_counted_for_actor" in explained


def test_an_upgrade_counts_the_day_before_it(plan: FamilyPlan, alice: User, bob: User, support: User) -> None:
    # given a history from the previous version
    now = datetime.now(UTC)
    invite = FamilyPlanInvite.objects.earliest("pk")

    def event(kind: str, actor: User | None, hours: float, subject: User | None = None) -> PlanEvent:
        at = now - timedelta(hours=hours)
        return PlanEvent.objects.create(
            family_plan=plan, kind=kind, actor=actor, subject=subject, invite=invite, at=at
        )

    old = [event("PLAN_CREATED", alice, 30, alice), event("INVITE_CREATED", alice, 25)]
    expected = [event("INVITE_CREATED", alice, 5), event("INVITE_REISSUED", alice, 4)]
    by_right = [event("INVITE_CREATED", support, 3.5), event("INVITE_REVOKED", alice, 3.4)]
    transferred = [event("OWNERSHIP_TRANSFERRED", alice, 3, bob)]
    expected += [event("INVITE_CREATED", bob, 2), event("PLAN_CREATED", bob, 1, bob)]
    by_right += [event("PLAN_CREATED", support, 0.5, alice), event("INVITE_CREATED", None, 0.4)]

    migration = import_module("plans.migrations.0005_limits_of_a_person")
    migration.count_the_last_day(apps, SimpleNamespace(connection=connection))

    assert list(PlanEvent.objects.filter(counts_for_actor=True).order_by("pk")) == expected
    assert PlanEvent.objects.count() == len(old + expected + by_right + transferred)
