"""The journeys of people through plans: create, invite, accept, detach, transfer, close.

Every change of a plan's seats happens under the row lock of that plan. Locks are taken in
one order, so that no two journeys can wait for each other: plan, then invite, then person.
No HTTP or mail call is made while a transaction is open; who is told is read in it.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import BigAutoField, CharField
from django.urls import reverse
from django.utils import timezone

from plans.invite_tokens import fetch_invite_token
from plans.mail import mail_invitation, tell_of_joining, tell_of_leaving, tell_of_transfer
from plans.models import (
    FamilyPlan,
    FamilyPlanInvite,
    Membership,
    PlanEvent,
    digest_of,
    display_name,
    may_act_for_others,
    may_read_all_plans,
)
from plans.people import Person, owner_among, read_people
from plans.prepared import MAX_KEY, Parameter, Prepared
from plans.rules import (
    AlreadyInPlan,
    InvalidInput,
    InviteAlreadyUsed,
    InviteNotFound,
    MembershipNotFound,
    NotAuthenticated,
    NotPermitted,
    OwnerCannotBeDetached,
    PlanClosed,
    PlanLimitReached,
    PlanNotEmpty,
    PlanNotFound,
    Refusal,
    UserNotFound,
    check_acceptable,
    check_invitable,
    check_manages,
    invite_of_token,
    managed_plan,
    may_make_another_plan,
    normal_address,
    owner_of_address,
    owns_address,
    plan_with_room,
    signed_in,
    visible_invite,
    visible_membership,
)
from plans.settings import PlanSettings
from zammad.linking import settle_person

if TYPE_CHECKING:
    from django.contrib.auth.models import User

    from plans.models import FamilyPlanQuerySet, Viewer

Kind = PlanEvent.Kind

DIGEST = Parameter("digest", CharField())
MEMBERSHIP = Parameter("membership", BigAutoField())
PERSON = Parameter("person", Membership._meta.get_field("user"))


def lock() -> FamilyPlanQuerySet:
    """Select plans to hold, with the settings that are in force."""
    return FamilyPlan.objects.select_for_update(of=["self"]).with_settings()


PLAN_OF_TOKEN = Prepared(lambda: lock().filter(invites__token_digest=DIGEST))
PLAN_OF_MEMBERSHIP = Prepared(lambda: lock().filter(memberships__pk=MEMBERSHIP))
OWN_PLAN_OF_MEMBERSHIP = Prepared(
    lambda: lock().filter(memberships__pk=MEMBERSHIP).filter(memberships__user=PERSON)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedInvite:
    """An invite with its token, which is known at this moment only."""

    invite: FamilyPlanInvite
    token: str
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceptance:
    """A seat that was taken, and the page that staff chose for whoever took one."""

    membership: Membership
    page: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Detachment:
    """What a detachment leaves for the one who asked: nothing, for a member who left."""

    plan: FamilyPlan | None
    invite: FamilyPlanInvite | None


@dataclass(frozen=True, slots=True, kw_only=True)
class InvitePreview:
    """What the holder of a token may know before accepting, and what stands in the way."""

    plan_name: str
    owner_name: str
    expires_at: datetime.datetime
    status: FamilyPlanInvite.Status
    refusal: Refusal | None


def create_plan(*, actor: Viewer, name: str, owner_email: str | None = None) -> FamilyPlan:
    """Create a plan with its owner: the actor, or for staff whoever verified the address.

    :raises NotAuthenticated:
    :raises NotPermitted:
    :raises InvalidInput:
    :raises UserNotFound:
    :raises AlreadyInPlan:
    :raises PlanLimitReached:
    """
    now = timezone.now()
    person = signed_in(actor)
    address = normal_address(owner_email, field="owner_email")
    for_another = address != "" and not owns_address(person, address)
    plan_settings = PlanSettings.current()
    if not person.has_perm("plans.add_familyplan") and (for_another or not plan_settings.self_service_plans):
        raise NotPermitted
    plan = FamilyPlan(name=name.strip(), created_at=now)
    try:
        plan.full_clean()
    except ValidationError as error:
        raise InvalidInput("name", error) from error
    owner_id = owner_of_address(address).pk if for_another else person.pk
    with transaction.atomic(durable=True):
        owner = _locked_person(owner_id)
        if owner is None:
            raise UserNotFound if for_another else NotAuthenticated
        if Membership.objects.filter(user=owner).exists():
            raise AlreadyInPlan
        # The person's row is held: what they make at once is counted one by one.
        if not for_another and not may_make_another_plan(owner, plan_settings=plan_settings, now=now):
            raise PlanLimitReached
        plan.save()
        Membership.objects.create(user=owner, family_plan=plan, role=Membership.Role.OWNER, joined_at=now)
        _record(
            plan, Kind.PLAN_CREATED, actor=person, subject=owner, at=now, counts_for_actor=not for_another
        )
    return plan


def create_invite(*, actor: Viewer, plan_id: int, email: str | None = None) -> IssuedInvite:
    """Hold a seat for whoever brings the token that is answered, and mail it if asked to.

    :raises NotAuthenticated:
    :raises PlanNotFound:
    :raises NotPermitted:
    :raises InvalidInput:
    :raises PlanClosed:
    :raises InvitesPaused:
    :raises AlreadyInPlan:
    :raises AlreadyInvited:
    :raises PlanFull:
    :raises InviteLimitReached:
    :raises InviteTokenUnavailable:
    """
    now = timezone.now()
    person = signed_in(actor)
    try:
        address = normal_address(email, field="email")
    except InvalidInput:
        managed_plan(person, plan_id)  # who has no right hears that first
        raise
    invite = FamilyPlanInvite(family_plan_id=plan_id, created_by=person, email=address, created_at=now)
    return _issue(invite, actor=person, kind=Kind.INVITE_CREATED, now=now)


def reissue_invite(*, actor: Viewer, invite_id: int) -> IssuedInvite:
    """Give an unused invite a fresh token and expiry; the old link is dead.

    :raises NotAuthenticated:
    :raises InviteNotFound:
    :raises NotPermitted:
    :raises InviteAlreadyUsed:
    :raises PlanClosed:
    :raises InvitesPaused:
    :raises AlreadyInPlan:
    :raises AlreadyInvited:
    :raises PlanFull:
    :raises InviteLimitReached:
    :raises InviteTokenUnavailable:
    """
    now = timezone.now()
    person = signed_in(actor)
    invite = visible_invite(person, invite_id)
    return _issue(invite, actor=person, kind=Kind.INVITE_REISSUED, now=now)


def _issue(
    invite: FamilyPlanInvite, *, actor: User, kind: PlanEvent.Kind, now: datetime.datetime
) -> IssuedInvite:
    """Fetch a token for a new or known invite, then write it under the plan's lock.

    What no longer fits is refused; the token left in Zammad is powerless, held by nobody,
    and removed by reconcile_invites.
    """
    plan_settings, _ = _check_issuable(invite, actor=actor, now=now)
    token_name, token = fetch_invite_token(expires_at=now + plan_settings.invite_ttl)
    with _locked_plan(invite.family_plan_id) as (plan, now):
        # What was seen before Zammad was asked may be out of sight by now.
        if invite.pk:
            invite = visible_invite(actor, invite.pk, lock=True)
        plan_settings, as_owner = _check_issuable(invite, actor=actor, now=now)
        invite.token_digest = digest_of(token)
        invite.zammad_token_name = token_name
        invite.expires_at = now + plan_settings.invite_ttl
        invite.mail_status = FamilyPlanInvite.MailStatus.NONE
        invite.save()
        _record(plan, kind, actor=actor, invite=invite, at=now, counts_for_actor=as_owner)
    url = invite_url(token)
    if invite.email:
        invite.mail_status = mail_invitation(invite, url=url, inviter=actor, now=now)
        FamilyPlanInvite.objects.filter(pk=invite.pk, token_digest=invite.token_digest).update(
            mail_status=invite.mail_status
        )
    return IssuedInvite(invite=invite, token=token, url=url)


def _check_issuable(
    invite: FamilyPlanInvite, *, actor: User, now: datetime.datetime
) -> tuple[PlanSettings, bool]:
    """Hold right and rules in one look; return the settings in force, and whether the actor is the owner.

    The plan's lock also serialises what its owner issues over all plans. A person owns one plan at
    a time, and ceases to own it under this very lock: the next plan sees all that this one issued.
    """
    plan = plan_with_room(actor, invite, now=now)
    plan_settings = PlanSettings.read_with(plan)
    check_invitable(invite, plan=plan, plan_settings=plan_settings)
    return plan_settings, plan.is_owned_now


def revoke_invite(*, actor: Viewer, invite_id: int) -> FamilyPlanInvite:
    """Expire an open invite now; one that has expired already stays as it is.

    :raises NotAuthenticated:
    :raises InviteNotFound:
    :raises NotPermitted:
    :raises InviteAlreadyUsed:
    """
    person = signed_in(actor)
    plan_id = visible_invite(person, invite_id).family_plan_id
    with _locked_plan(plan_id) as (plan, now):
        invite = visible_invite(person, invite_id)
        check_manages(person, plan)
        match invite.status(now=now):
            case FamilyPlanInvite.Status.USED:
                raise InviteAlreadyUsed
            case FamilyPlanInvite.Status.OPEN:
                invite.expires_at = now
                invite.save(update_fields=["expires_at"])
                _record(plan, Kind.INVITE_REVOKED, actor=person, invite=invite, at=now)
    return invite


def preview_invite(*, actor: Viewer, token: str) -> InvitePreview:
    """Show what the token leads to, with the refusal that accepting it would meet now.

    :raises NotAuthenticated:
    :raises InviteNotFound:
    """
    now = timezone.now()
    person = signed_in(actor)
    invite = invite_of_token(token)
    plan = invite.family_plan
    people = read_people(plan, person=person)
    if person.pk not in people:
        raise NotAuthenticated  # the account ended at this moment
    owner = owner_among(people, plan)
    limit = plan.limit_in_force(PlanSettings.current())
    refusal = None
    try:
        check_acceptable(invite, person=people[person.pk], limit=limit, now=now)
    except Refusal as error:
        refusal = error
    return InvitePreview(
        plan_name=plan.name,
        owner_name=display_name(owner.user) if owner else "",
        expires_at=invite.expires_at,
        status=invite.status(now=now),
        refusal=refusal,
    )


def accept_invite(*, actor: Viewer, token: str) -> Acceptance:
    """Seat the actor in the invite's plan. Whoever used this very invite succeeds again.

    :raises NotAuthenticated:
    :raises InviteNotFound:
    :raises InviteAlreadyUsed:
    :raises InviteExpired:
    :raises InviteEmailMismatch:
    :raises AlreadyInPlan:
    :raises PlanFull:
    """
    person = signed_in(actor)
    with _locked(lambda: PLAN_OF_TOKEN.first(digest=digest_of(token)), missing=InviteNotFound) as (plan, now):
        plan_settings = PlanSettings.read_with(plan)
        invite = invite_of_token(token, lock=True)
        if _locked_person(person.pk) is None:
            raise NotAuthenticated
        people = read_people(plan, person=person)
        member, owner = people[person.pk], owner_among(people, plan)
        check_acceptable(invite, person=member, limit=plan.limit_in_force(plan_settings), now=now)
        if invite.user_id is not None:
            membership = Membership.objects.select_related("user", "family_plan").get(user=person)
            return Acceptance(membership=membership, page=plan_settings.invite_accepted_url)
        membership = Membership.objects.create(user=person, family_plan=plan, joined_at=now)
        invite.user = person
        invite.save(update_fields=["user"])
        _record(plan, Kind.INVITE_ACCEPTED, actor=person, subject=person, invite=invite, at=now)
        settle_person(user_id=person.pk, addresses=member.addresses, now=now)
    if plan_settings.membership_mails:
        tell_of_joining(plan=plan, member=member, owner=owner)
    return Acceptance(membership=membership, page=plan_settings.invite_accepted_url)


def detach_member(*, actor: Viewer, membership_id: int) -> Detachment:
    """End a membership; the invite it came by is unused again, and expired.

    :raises NotAuthenticated:
    :raises MembershipNotFound:
    :raises NotPermitted:
    :raises OwnerCannotBeDetached:
    """
    person = signed_in(actor)

    def find() -> FamilyPlan | None:
        asked = {"membership": min(membership_id, MAX_KEY)}
        own = OWN_PLAN_OF_MEMBERSHIP.first(**asked, person=person.pk)
        return own or (PLAN_OF_MEMBERSHIP.first(**asked) if may_read_all_plans(person) else None)

    with _locked(find, missing=MembershipNotFound) as (plan, now):
        plan_settings = PlanSettings.read_with(plan)
        people = read_people(plan, person=person, membership_id=membership_id)
        member = next((each for each in people.values() if each.seat and each.seat.pk == membership_id), None)
        asking, owner = people.get(person.pk), owner_among(people, plan)
        # What was seen before the lock may be out of sight by now.
        if member is None or not ((asking and asking.sits_in(plan)) or may_read_all_plans(person)):
            raise MembershipNotFound
        leaves = member is asking
        if not leaves and asking is not owner and not may_act_for_others(person):
            raise NotPermitted
        if member is owner:
            raise OwnerCannotBeDetached
        invite = _end_membership(member, now=now)
        kind = Kind.MEMBER_LEFT if leaves else Kind.MEMBER_DETACHED
        _record(plan, kind, actor=person, subject=member.user, invite=invite, at=now)
    if plan_settings.membership_mails:
        tell_of_leaving(plan=plan, member=member, owner=owner)
    return Detachment(plan=None, invite=None) if leaves else Detachment(plan=plan, invite=invite)


def transfer_ownership(*, actor: Viewer, membership_id: int) -> FamilyPlan:
    """Swap the roles of a plan's owner and one of its members.

    :raises NotAuthenticated:
    :raises MembershipNotFound:
    :raises NotPermitted:
    """
    person = signed_in(actor)
    plan_id = visible_membership(person, membership_id).family_plan_id
    with _locked_plan(plan_id) as (plan, now):
        membership = visible_membership(person, membership_id)
        check_manages(person, plan)
        if membership.is_owner:
            return plan
        people = read_people(plan, person=person, membership_id=membership.pk)
        plan.memberships.filter(role=Membership.Role.OWNER).update(role=Membership.Role.MEMBER)
        membership.role = Membership.Role.OWNER
        membership.save(update_fields=["role"])
        _record(plan, Kind.OWNERSHIP_TRANSFERRED, actor=person, subject=membership.user, at=now)
    former_owner = owner_among(people, plan)
    tell_of_transfer(plan=plan, owner=people[membership.user_id], former_owner=former_owner)
    return plan


def close_plan(*, actor: Viewer, plan_id: int) -> FamilyPlan:
    """End a plan that has no members but its owner; its row and history stay for staff.

    :raises NotAuthenticated:
    :raises PlanNotFound:
    :raises NotPermitted:
    :raises PlanClosed:
    :raises PlanNotEmpty:
    """
    person = signed_in(actor)
    managed_plan(person, plan_id)
    with _locked_plan(plan_id) as (plan, now):
        managed_plan(person, plan_id)
        if plan.closed_at:
            raise PlanClosed
        if plan.memberships.filter(role=Membership.Role.MEMBER).exists():
            raise PlanNotEmpty
        owner = owner_among(read_people(plan, person=person), plan)
        if owner:
            _end_membership(owner, now=now)
        plan.invites.open(now=now).update(expires_at=now)
        plan.closed_at = now
        plan.save(update_fields=["closed_at"])
        _record(plan, Kind.PLAN_CLOSED, actor=person, at=now)
    if owner and PlanSettings.current().membership_mails:
        tell_of_leaving(plan=plan, member=owner, owner=None)
    return plan


def invite_url(token: str) -> str:
    """Return the link to hand out: a front end's page where INVITE_URL names one, else ours."""
    if settings.INVITE_URL:
        return str(settings.INVITE_URL).replace("{token}", token)
    return public_url(reverse("invite", args=[token]))


def public_url(page: str) -> str:
    """Make a path of ours absolute; a URL stays as it is."""
    return f"{settings.PUBLIC_URL}{page}" if page.startswith("/") else page


# --- Who, what, and under which lock ---------------------------------------------------


@contextmanager
def _locked(
    find: Callable[[], FamilyPlan | None], *, missing: type[Refusal] = PlanNotFound
) -> Iterator[tuple[FamilyPlan, datetime.datetime]]:
    """Open a transaction that holds the row of the plan found, and read the clock in it.

    A clock read before the wait for the lock would let an accept pass the very revocation
    that it waited for. Durable: when the service returns, what it answers is committed.
    """
    with transaction.atomic(durable=True):
        plan = find()
        if plan is None:
            raise missing
        yield plan, timezone.now()


def _locked_plan(plan_id: int) -> AbstractContextManager[tuple[FamilyPlan, datetime.datetime]]:
    return _locked(lambda: FamilyPlan.objects.select_for_update().filter(pk=plan_id).first())


def _locked_person(user_id: int) -> User | None:
    """Hold a person's row, so that two plans cannot seat them at once; None once the account ended."""
    # NO KEY UPDATE: a foreign key to the person, written elsewhere, need not wait.
    people = get_user_model().objects.select_for_update(no_key=True)
    person: User | None = people.filter(pk=user_id, is_active=True).first()
    return person


def _record(
    plan: FamilyPlan,
    kind: PlanEvent.Kind,
    *,
    actor: User,
    subject: User | None = None,
    invite: FamilyPlanInvite | None = None,
    at: datetime.datetime,
    counts_for_actor: bool = False,
) -> None:
    PlanEvent.objects.create(
        family_plan=plan,
        kind=kind,
        actor=actor,
        subject=subject,
        invite=invite,
        at=at,
        counts_for_actor=counts_for_actor,
    )


def _end_membership(member: Person, *, now: datetime.datetime) -> FamilyPlanInvite | None:
    """Free a seat and the invite it was taken with; the old link, still out there, is dead."""
    Membership.objects.filter(user=member.user).delete()
    if member.invite:
        member.invite.user = None
        member.invite.expires_at = now
        member.invite.save(update_fields=["user", "expires_at"])
    return member.invite
