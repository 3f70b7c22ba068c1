"""Statements compiled once answer what their QuerySets answer, on every database."""

from __future__ import annotations

import datetime
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.db.models import BigAutoField, DateTimeField, F, Model, QuerySet
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from plans.models import FamilyPlan, FamilyPlanInvite, Membership
from plans.prepared import Parameter, Prepared
from tests.factories import InviteFactory, MembershipFactory, ZammadUserFactory

pytestmark = pytest.mark.django_db

PLAN = Parameter("plan", BigAutoField())
NOW = Parameter("now", DateTimeField())
DAY = datetime.timedelta(days=1)


def columns_of(row: Model) -> dict[str, Any]:
    return {field.attname: getattr(row, field.attname) for field in row._meta.concrete_fields}


def test_rows_are_instances_with_every_value_in_its_own_type(alice: User, plan: FamilyPlan) -> None:
    invite = InviteFactory(family_plan=plan, created_by=alice, email="x@example.com")
    prepared = Prepared(lambda: FamilyPlanInvite.objects.filter(family_plan=PLAN, email="x@example.com"))

    [found] = prepared.fetch(plan=plan.pk)

    assert columns_of(found) == columns_of(FamilyPlanInvite.objects.get(pk=invite.pk))
    assert found.expires_at.tzinfo is not None
    assert found.is_used is False


def test_what_is_selected_of_related_rows_costs_no_query_more(alice: User, plan: FamilyPlan) -> None:
    known = ZammadUserFactory(user=alice)
    MembershipFactory(family_plan=plan)

    def rows() -> QuerySet[Membership]:
        return Membership.objects.owner_first().select_related("user__zammad_user", "family_plan")

    prepared = Prepared(lambda: rows().filter(family_plan=PLAN))

    with CaptureQueriesContext(connection) as captured:
        found = prepared.fetch(plan=plan.pk)
        users = [member.user for member in found]
        zammad_users = [getattr(user, "zammad_user", None) for user in users]
        plans = {member.family_plan for member in found}
        assert [user.membership for user in users] == found

    assert len(captured) == 1
    assert found == list(rows().filter(family_plan=plan))
    assert zammad_users == [known, None, None]
    assert plans == {plan}


def test_annotations_and_deferred_columns_are_those_of_the_queryset(plan: FamilyPlan) -> None:
    prepared = Prepared(
        lambda: FamilyPlan.objects.with_seats(now=NOW).annotate(again=F("name")).only("pk").filter(pk=PLAN)
    )

    [found] = prepared.fetch(plan=plan.pk, now=timezone.now())

    assert vars(found).keys() & {"seats_taken_now", "again", "name"} == {"seats_taken_now", "again"}
    assert (found.seats_taken_now, found.again, found.name) == (2, plan.name, plan.name)  # type: ignore[attr-defined]


def test_each_execution_takes_its_own_values_and_compiles_nothing(alice: User, plan: FamilyPlan) -> None:
    InviteFactory(family_plan=plan, created_by=alice, expires_at=timezone.now() + DAY)
    made: list[int] = []

    def rows() -> QuerySet[FamilyPlanInvite]:
        made.append(1)
        return FamilyPlanInvite.objects.open(now=NOW).filter(family_plan=PLAN)

    prepared = Prepared(rows)

    assert len(prepared.fetch(plan=plan.pk, now=timezone.now())) == 1
    assert prepared.fetch(plan=plan.pk, now=timezone.now() + 2 * DAY) == []
    assert prepared.fetch(plan=plan.pk + 1, now=timezone.now()) == []
    assert len(made) == 1


def test_a_value_is_a_value_and_never_a_piece_of_the_statement(alice: User) -> None:
    prepared = Prepared(lambda: User.objects.filter(email=Parameter("email", User._meta.get_field("email"))))

    assert prepared.fetch(email=alice.email) == [alice]
    assert prepared.fetch(email="' OR 1=1 --") == []
    assert prepared.fetch(email="%s") == []


def test_a_missing_value_is_an_error_and_not_a_broader_question(plan: FamilyPlan) -> None:
    prepared = Prepared(lambda: FamilyPlan.objects.filter(pk=PLAN))

    with pytest.raises(KeyError):
        prepared.fetch()


@pytest.mark.django_db(transaction=True)
def test_threads_share_a_statement_and_not_a_connection(plan: FamilyPlan) -> None:
    prepared = Prepared(lambda: FamilyPlan.objects.filter(pk=PLAN))

    def fetch(_: int) -> tuple[list[FamilyPlan], int]:
        try:
            return prepared.fetch(plan=plan.pk), id(connection.connection)
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(fetch, range(8)))

    assert [found for found, _ in answers] == [[plan]] * 8
    assert len({used for _, used in answers}) > 1
