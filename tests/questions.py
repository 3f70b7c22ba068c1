"""Queries that tests make about a plan."""

from __future__ import annotations

import datetime

from django.contrib.auth.models import User

from plans.models import FamilyPlan, Membership


def seats_taken(plan: FamilyPlan, *, now: datetime.datetime) -> int:
    return FamilyPlan.objects.with_seats(now=now).get(pk=plan.pk).seats_taken_now


def owner_of(plan: FamilyPlan) -> User | None:
    owner = Membership.objects.filter(family_plan=plan.pk, role=Membership.Role.OWNER).first()
    return owner.user if owner else None
