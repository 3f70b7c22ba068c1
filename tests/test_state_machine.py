"""Services called in random order, compared with a small model written from the design, not the code.

After each step the whole database must be what the model says. The usual budget is small and
always the same; to search longer, with other journeys each time:
HYPOTHESIS_PROFILE=thorough .venv/bin/pytest tests/test_state_machine.py
"""

from __future__ import annotations

import os
import uuid
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any, TypeVar
from unittest import mock

import constance
import pytest
import time_machine
from constance.models import Constance
from django.contrib.auth.models import AnonymousUser, Permission, User
from django.core.exceptions import PermissionDenied, ValidationError
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from plans import services
from plans.models import FamilyPlan, FamilyPlanInvite, Membership, PlanEvent
from tests.factories import UserFactory
from tests.refusals import reasons
from zammad.client import ZammadClient, ZammadUnreachable

NO_CHECKS = [HealthCheck.too_slow, HealthCheck.filter_too_much]
BUDGETS = {
    "default": settings(
        max_examples=30,
        stateful_step_count=30,
        derandomize=True,
        deadline=None,
        suppress_health_check=NO_CHECKS,
    ),
    "thorough": settings(
        max_examples=1500,
        stateful_step_count=60,
        deadline=None,
        database=None,
        suppress_health_check=NO_CHECKS,
    ),
}
START = datetime(2026, 8, 3, 12, tzinfo=UTC)
OK = "OK"
Item = TypeVar("Item")
STRANGER, STAFF, OWNER = -3, -2, -1  # OWNER: the current owner of the plan that a step is about


@dataclass
class Plan:
    """What a plan is, in the words of the design."""

    id: int
    people: list[int]  # the owner first
    closed: bool = False
    own_limit: int | None = None
    issued_at: list[datetime] = field(default_factory=list)
    history: list[str] = field(default_factory=list)


@dataclass(eq=False)
class Invite:
    id: int
    plan: Plan
    email_of: int | None
    token: str
    expires_at: datetime
    user: int | None = None


def pick(items: list[Item], which: int) -> Item:
    return items[-1 - which % len(items)]


class PlansMachine(RuleBasedStateMachine):
    people = st.integers(0, 4)
    actors = st.sampled_from([OWNER, OWNER, OWNER, OWNER, OWNER, STAFF, 0, 1, 2, 3, 4, STRANGER])
    which = st.integers(0, 5)  # among plans, invites, links, members: 0 is the newest

    def __init__(self) -> None:
        super().__init__()
        self.cast = list(User.objects.filter(is_staff=False).order_by("pk"))
        self.staff = User.objects.get(is_staff=True)
        self.all_plans: list[Plan] = []
        self.all_invites: list[Invite] = []
        self.links: list[str] = ["", "x" * 43]  # every link there ever was, and two that never were
        self.memberships: dict[int, int] = {}  # the newest membership of each person, current or ended
        self.issued_at: dict[int, list[datetime]] = defaultdict(list)  # by each person as owner
        self.made_at: dict[int, list[datetime]] = defaultdict(list)  # plans created for themselves
        self.limit, self.hours, self.per_day, self.plans_per_day = 5, 48, 20, 3
        self.enabled, self.self_service = True, False
        self.zammad_works = True
        # Zammad over HTTP is tested elsewhere: here it would only be slow.
        self.patch = mock.patch.object(ZammadClient, "create_access_token", self.create_access_token)
        self.patch.start()
        self.travel = time_machine.travel(START, tick=False)
        self.clock = self.travel.start()
        self.create_plan(STAFF, 0)
        for person in (1, 2):
            self.create_invite(OWNER, 0, None)
            self.accept_invite(person, 0)
        self.create_invite(OWNER, 0, 3)

    def teardown(self) -> None:
        self.travel.stop()
        self.patch.stop()
        FamilyPlan.objects.all().delete()
        Constance.objects.all().delete()

    def create_access_token(self, *, name: str, expires_on: date) -> str:
        if not self.zammad_works:
            raise ZammadUnreachable("Zammad could not be reached.")
        return uuid.uuid4().hex * 2

    # --- What the design says ---------------------------------------------------------------

    @property
    def now(self) -> datetime:
        return datetime.now(UTC)

    def owner_or(self, who: int, plan: Plan | None) -> int:
        """Return the person, or for OWNER the plan's current owner."""
        if who != OWNER:
            return who
        return plan.people[0] if plan and plan.people else STAFF

    def actor(self, who: int) -> User | AnonymousUser:
        if who == STRANGER:
            return AnonymousUser()
        return self.staff if who == STAFF else self.cast[who]

    def plan_of(self, person: int) -> Plan | None:
        found = [plan for plan in self.all_plans if person in plan.people]
        assert len(found) <= 1
        return found[0] if found else None

    def limit_of(self, plan: Plan) -> int:
        return plan.own_limit or self.limit

    def open_invites(self, plan: Plan) -> list[Invite]:
        return [
            invite
            for invite in self.all_invites
            if invite.plan is plan and invite.user is None and invite.expires_at > self.now
        ]

    def manages(self, who: int, plan: Plan) -> bool:
        return who == STAFF or plan.people[:1] == [who]

    def of_the_last_day(self, moments: list[datetime]) -> int:
        return sum(at > self.now - timedelta(hours=24) for at in moments)

    def note_issued(self, who: int, plan: Plan) -> None:
        plan.issued_at.append(self.now)
        if plan.people[0] == who:
            self.issued_at[who].append(self.now)

    def cannot_issue(self, who: int, plan: Plan, email_of: int | None, *, but: Invite | None = None) -> str:
        others = [invite for invite in self.open_invites(plan) if invite is not but]
        if plan.closed:
            return "PLAN_CLOSED"
        if not self.enabled:
            return "INVITES_PAUSED"
        if email_of is not None and email_of in plan.people:
            return "ALREADY_IN_PLAN"
        if email_of is not None and any(invite.email_of == email_of for invite in others):
            return "ALREADY_INVITED"
        if len(plan.people) + len(others) >= self.limit_of(plan):
            return "PLAN_FULL"
        if self.of_the_last_day(plan.issued_at) >= self.per_day:
            return "INVITE_LIMIT_REACHED"
        if plan.people[0] == who and self.of_the_last_day(self.issued_at[who]) >= self.per_day:
            return "INVITE_LIMIT_REACHED"
        if not self.zammad_works:
            return "INVITE_TOKEN_UNAVAILABLE"
        return OK

    def ends(self, journey: Callable[[], object], expected: str) -> bool:
        """Check that a step ends as the model expects, and return whether it succeeds."""
        try:
            journey()
        except (ValidationError, PermissionDenied) as refusal:
            [(_, code)] = reasons(refusal)
        else:
            code = OK
        assert code == expected
        return code == OK

    # --- The world --------------------------------------------------------------------------

    @rule(hours=st.sampled_from([1, 23, 24, 47, 48]), microseconds=st.sampled_from([0, 1, -1]))
    def time_passes(self, hours: int, microseconds: int) -> None:
        self.clock.shift(timedelta(hours=hours, microseconds=microseconds))

    @rule(
        limit=st.integers(1, 7),
        hours=st.sampled_from([1, 48, 720]),
        per_day=st.sampled_from([0, 2, 20, 20]),
        plans_per_day=st.sampled_from([1, 3, 3]),
    )
    def staff_change_numbers(self, limit: int, hours: int, per_day: int, plans_per_day: int) -> None:
        self.limit = constance.config.USER_LIMIT = limit
        self.hours = constance.config.INVITE_TTL_HOURS = hours
        self.per_day = constance.config.INVITES_PER_DAY = per_day
        self.plans_per_day = constance.config.PLANS_PER_DAY = plans_per_day

    @rule(enabled=st.integers(0, 3), self_service=st.booleans(), works=st.integers(0, 3))
    def switches_are_flipped(self, enabled: int, self_service: bool, works: int) -> None:
        self.enabled = constance.config.INVITES_ENABLED = enabled > 0
        self.self_service = constance.config.SELF_SERVICE_PLANS = self_service
        self.zammad_works = works > 0

    @rule(which=which, limit=st.none() | st.integers(1, 7))
    def staff_change_the_limit_of_one_plan(self, which: int, limit: int | None) -> None:
        plan = pick(self.all_plans, which)
        FamilyPlan.objects.filter(pk=plan.id).update(user_limit=limit)
        plan.own_limit = limit

    # --- The journeys -----------------------------------------------------------------------

    @rule(who=actors, owner=people)
    def create_plan(self, who: int, owner: int) -> None:
        who = owner if who == OWNER else who
        for_another = who != owner
        expected = OK
        if who == STRANGER:
            expected = "NOT_AUTHENTICATED"
        elif who != STAFF and (for_another or not self.self_service):
            expected = "PERMISSION_DENIED"
        elif self.plan_of(owner):
            expected = "ALREADY_IN_PLAN"
        elif who == owner and self.of_the_last_day(self.made_at[owner]) >= self.plans_per_day:
            expected = "PLAN_LIMIT_REACHED"

        def journey() -> None:
            made.append(
                services.create_plan(
                    actor=self.actor(who), name="A plan", owner_email=self.cast[owner].email.upper()
                )
            )

        made: list[FamilyPlan] = []
        if self.ends(journey, expected):
            plan = Plan(id=made[0].pk, people=[owner], history=["PLAN_CREATED"])
            self.all_plans.append(plan)
            if who == owner:
                self.made_at[owner].append(self.now)
            self.memberships[owner] = Membership.objects.get(user=self.cast[owner]).pk

    @rule(who=actors, which=which, email_of=st.none() | people)
    def create_invite(self, who: int, which: int, email_of: int | None) -> None:
        plan = pick(self.all_plans, which)
        who = self.owner_or(who, plan)
        if who == STRANGER:
            expected = "NOT_AUTHENTICATED"
        elif who != STAFF and who not in plan.people:
            expected = "PLAN_NOT_FOUND"
        elif not self.manages(who, plan):
            expected = "PERMISSION_DENIED"
        else:
            expected = self.cannot_issue(who, plan, email_of)

        def journey() -> None:
            email = None if email_of is None else self.cast[email_of].email
            made.append(services.create_invite(actor=self.actor(who), plan_id=plan.id, email=email))

        made: list[services.IssuedInvite] = []
        if self.ends(journey, expected):
            self.note_issued(who, plan)
            plan.history.append("INVITE_CREATED")
            self.links.append(made[0].token)
            invite = Invite(
                id=made[0].invite.pk,
                plan=plan,
                email_of=email_of,
                token=made[0].token,
                expires_at=self.now + timedelta(hours=self.hours),
            )
            self.all_invites.append(invite)

    @precondition(lambda self: self.all_invites)
    @rule(who=actors, which=which)
    def reissue_invite(self, who: int, which: int) -> None:
        invite = pick(self.all_invites, which)
        plan = invite.plan
        who = self.owner_or(who, plan)
        if who == STRANGER:
            expected = "NOT_AUTHENTICATED"
        elif not self.manages(who, plan):
            expected = "INVITE_NOT_FOUND"
        elif invite.user is not None:
            expected = "INVITE_ALREADY_USED"
        else:
            expected = self.cannot_issue(who, plan, invite.email_of, but=invite)

        def journey() -> None:
            made.append(services.reissue_invite(actor=self.actor(who), invite_id=invite.id))

        made: list[services.IssuedInvite] = []
        if self.ends(journey, expected):
            assert made[0].token != invite.token
            self.note_issued(who, plan)
            plan.history.append("INVITE_REISSUED")
            invite.token = made[0].token
            self.links.append(invite.token)
            invite.expires_at = self.now + timedelta(hours=self.hours)

    @precondition(lambda self: self.all_invites)
    @rule(who=actors, which=which)
    def revoke_invite(self, who: int, which: int) -> None:
        invite = pick(self.all_invites, which)
        who = self.owner_or(who, invite.plan)
        if who == STRANGER:
            expected = "NOT_AUTHENTICATED"
        elif not self.manages(who, invite.plan):
            expected = "INVITE_NOT_FOUND"
        elif invite.user is not None:
            expected = "INVITE_ALREADY_USED"
        else:
            expected = OK
        was_open = invite.expires_at > self.now
        actor = self.actor(who)
        if self.ends(lambda: services.revoke_invite(actor=actor, invite_id=invite.id), expected) and was_open:
            invite.expires_at = self.now
            invite.plan.history.append("INVITE_REVOKED")

    def accept(self, who: int, token: str) -> None:
        found = [invite for invite in self.all_invites if invite.token == token]
        if who == STRANGER:
            expected = "NOT_AUTHENTICATED"
        elif not found:
            expected = "INVITE_NOT_FOUND"
        elif found[0].user == who:
            expected = OK
        elif found[0].user is not None:
            expected = "INVITE_ALREADY_USED"
        elif found[0].expires_at <= self.now:
            expected = "INVITE_EXPIRED"
        elif found[0].email_of not in {None, who}:
            expected = "INVITE_EMAIL_MISMATCH"
        elif self.plan_of(who):
            expected = "ALREADY_IN_PLAN"
        elif len(found[0].plan.people) >= self.limit_of(found[0].plan):
            expected = "PLAN_FULL"
        else:
            expected = OK
        actor = self.actor(who)
        if not self.ends(lambda: services.accept_invite(actor=actor, token=token), expected):
            return
        [invite] = found
        if invite.user is None:
            invite.user = who
            invite.plan.people.append(who)
            invite.plan.history.append("INVITE_ACCEPTED")
            self.memberships[who] = Membership.objects.get(user=self.cast[who]).pk

    @precondition(lambda self: self.all_invites)
    @rule(who=people, which=which)
    def accept_invite(self, who: int, which: int) -> None:
        self.accept(who, pick(self.all_invites, which).token)

    @precondition(lambda self: self.all_invites)
    @rule(which=which)
    def the_one_who_was_invited_accepts(self, which: int) -> None:
        invite = pick(self.all_invites, which)
        free = [person for person in range(5) if not self.plan_of(person)] or [0]
        self.accept(free[0] if invite.email_of is None else invite.email_of, invite.token)

    @rule(who=st.sampled_from([0, 1, 2, 3, 4, STRANGER]), which=st.integers(0, 15))
    def accept_by_a_link_that_may_be_old(self, who: int, which: int) -> None:
        self.accept(who, pick(self.links, which))

    def may_reach(self, who: int, person: int) -> str:
        """Return the code with which an actor is refused a person's membership, if any."""
        plan = self.plan_of(person)
        if who == STRANGER:
            return "NOT_AUTHENTICATED"
        if plan is None or (who != STAFF and who not in plan.people):
            return "MEMBERSHIP_NOT_FOUND"
        return OK if self.manages(who, plan) else "PERMISSION_DENIED"

    @rule(who=actors, which=which)
    def detach_member(self, who: int, which: int) -> None:
        person = pick(list(self.memberships), which)
        plan = self.plan_of(person)
        who = self.owner_or(who, plan)
        expected = self.may_reach(who, person)
        if expected == "PERMISSION_DENIED" and who == person:
            expected = OK
        if plan and expected == OK and plan.people[0] == person:
            expected = "OWNER_CANNOT_BE_DETACHED"
        membership_id, actor = self.memberships[person], self.actor(who)
        journey = partial(services.detach_member, actor=actor, membership_id=membership_id)
        if self.ends(journey, expected) and plan:
            plan.people.remove(person)
            plan.history.append("MEMBER_LEFT" if who == person else "MEMBER_DETACHED")
            self.free_invite_of(person)

    def free_invite_of(self, person: int) -> None:
        for invite in self.all_invites:
            if invite.user == person:
                invite.user, invite.expires_at = None, self.now

    @rule(who=actors, which=which)
    def transfer_ownership(self, who: int, which: int) -> None:
        person = pick(list(self.memberships), which)
        plan = self.plan_of(person)
        who = self.owner_or(who, plan)
        expected = self.may_reach(who, person)
        membership_id, actor = self.memberships[person], self.actor(who)
        journey = partial(services.transfer_ownership, actor=actor, membership_id=membership_id)
        if self.ends(journey, expected) and plan and plan.people[0] != person:
            plan.people.remove(person)
            plan.people.insert(0, person)
            plan.history.append("OWNERSHIP_TRANSFERRED")

    @rule(who=actors, which=which)
    def close_plan(self, who: int, which: int) -> None:
        plan = pick(self.all_plans, which)
        who = self.owner_or(who, plan)
        if who == STRANGER:
            expected = "NOT_AUTHENTICATED"
        elif who != STAFF and who not in plan.people:
            expected = "PLAN_NOT_FOUND"
        elif not self.manages(who, plan):
            expected = "PERMISSION_DENIED"
        elif plan.closed:
            expected = "PLAN_CLOSED"
        elif len(plan.people) > 1:
            expected = "PLAN_NOT_EMPTY"
        else:
            expected = OK
        actor = self.actor(who)
        if self.ends(lambda: services.close_plan(actor=actor, plan_id=plan.id), expected):
            self.free_invite_of(plan.people.pop())
            for invite in self.open_invites(plan):
                invite.expires_at = self.now
            plan.closed = True
            plan.history.append("PLAN_CLOSED")

    # --- What holds after each step -----------------------------------------------------------

    @invariant()
    def the_database_is_what_the_model_says(self) -> None:
        key = {person.pk: number for number, person in enumerate(self.cast)}
        seats = {
            (plan_id, key[user_id], role)
            for plan_id, user_id, role in Membership.objects.values_list("family_plan", "user", "role")
        }
        assert seats == {
            (plan.id, person, "OWNER" if person == plan.people[0] else "MEMBER")
            for plan in self.all_plans
            for person in plan.people
        }
        invites = {
            pk: (plan_id, key.get(user_id or 0), is_used, expires_at)
            for pk, plan_id, user_id, is_used, expires_at in FamilyPlanInvite.objects.values_list(
                "pk", "family_plan", "user", "is_used", "expires_at"
            )
        }
        assert invites == {
            invite.id: (invite.plan.id, invite.user, invite.user is not None, invite.expires_at)
            for invite in self.all_invites
        }

    @invariant()
    def seats_are_counted_by_the_clock(self) -> None:
        plans: Any = FamilyPlan.objects.with_seats(now=self.now)
        counted = {
            plan_id: (taken, closed_at is not None)
            for plan_id, taken, closed_at in plans.values_list("pk", "seats_taken_now", "closed_at")
        }
        assert counted == {
            plan.id: (len(plan.people) + len(self.open_invites(plan)), plan.closed) for plan in self.all_plans
        }

    @invariant()
    def whoever_used_an_invite_is_in_its_plan(self) -> None:
        for invite in FamilyPlanInvite.objects.exclude(user=None).select_related("user__membership"):
            assert invite.user is not None
            assert invite.user.membership.family_plan_id == invite.family_plan_id

    @invariant()
    def history_tells_every_step_once(self) -> None:
        told: dict[int, list[str]] = {plan.id: [] for plan in self.all_plans}
        for plan_id, kind in PlanEvent.objects.order_by("pk").values_list("family_plan", "kind"):
            told[plan_id].append(kind)
        assert told == {plan.id: plan.history for plan in self.all_plans}


@pytest.mark.django_db
def test_any_order_of_journeys_leads_where_the_design_says() -> None:
    UserFactory.create_batch(5)
    staff: User = UserFactory(is_staff=True)
    staff.user_permissions.set(Permission.objects.filter(codename__endswith="_familyplan"))

    run_state_machine_as_test(PlansMachine, settings=BUDGETS[os.environ.get("HYPOTHESIS_PROFILE", "default")])
