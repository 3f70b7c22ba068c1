"""The journeys of people through plans: create, invite, accept, detach, transfer, close.

Every change of a plan's seats happens under the row lock of that plan. Locks are taken in
one order, so that no two journeys can wait for each other: plan, then invite, then person.
No HTTP or mail call is made while a transaction is open; who is told is read in it.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.db import transaction
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
)
from plans.rules import (
    AlreadyInPlan,
    InvalidInput,
    InviteAlreadyUsed,
    NotAuthenticated,
    NotPermitted,
    OwnerCannotBeDetached,
    PlanClosed,
    PlanNotEmpty,
    Refusal,
    UserNotFound,
    check_acceptable,
    check_invitable,
    check_manages,
    invite_of_token,
    managed_plan,
    normal_address,
    owner_of_address,
    owns_address,
    signed_in,
    visible_invite,
    visible_membership,
)
from plans.settings import PlanSettings
from zammad.services import link_waiting_user

if TYPE_CHECKING:
    from django.contrib.auth.models import User

    from plans.models import Viewer

Kind = PlanEvent.Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedInvite:
    """An invite with its token, which is known at this moment only."""

    invite: FamilyPlanInvite
    token: str
    url: str


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
    """
    now = timezone.now()
    person = signed_in(actor)
    address = normal_address(owner_email, field="owner_email")
    for_another = address != "" and not owns_address(person, address)
    if not person.has_perm("plans.add_familyplan") and (
        for_another or not PlanSettings.current().self_service_plans
    ):
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
        plan.save()
        Membership.objects.create(user=owner, family_plan=plan, role=Membership.Role.OWNER, joined_at=now)
        _record(plan, Kind.PLAN_CREATED, actor=person, subject=owner, at=now)
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
    plan = managed_plan(person, plan_id)
    invite = FamilyPlanInvite(
        family_plan=plan, created_by=person, email=normal_address(email, field="email"), created_at=now
    )
    check_invitable(invite, plan=plan, plan_settings=PlanSettings.current(), now=now)
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
    check_manages(person, invite.family_plan)
    check_invitable(invite, plan=invite.family_plan, plan_settings=PlanSettings.current(), now=now)
    return _issue(invite, actor=person, kind=Kind.INVITE_REISSUED, now=now)


def _issue(
    invite: FamilyPlanInvite, *, actor: User, kind: PlanEvent.Kind, now: datetime.datetime
) -> IssuedInvite:
    """Fetch a token for a new or known invite, then write it under the plan's lock.

    What no longer fits is refused; the token left in Zammad is powerless, held by nobody,
    and removed by reconcile_invites.
    """
    token_name, token = fetch_invite_token(expires_at=now + PlanSettings.current().invite_ttl)
    with _locked_plan(invite.family_plan_id) as (plan, now):
        # What was seen before Zammad was asked may be out of sight by now.
        if invite.pk:
            invite = visible_invite(actor, invite.pk, lock=True)
            check_manages(actor, plan)
        else:
            managed_plan(actor, plan.pk)
        plan_settings = PlanSettings.current()
        check_invitable(invite, plan=plan, plan_settings=plan_settings, now=now)
        invite.token_digest = digest_of(token)
        invite.zammad_token_name = token_name
        invite.expires_at = now + plan_settings.invite_ttl
        invite.mail_status = FamilyPlanInvite.MailStatus.NONE
        invite.save()
        _record(plan, kind, actor=actor, invite=invite, at=now)
    url = invite_url(token)
    if invite.email:
        invite.mail_status = mail_invitation(invite, url=url, inviter=actor, now=now)
        FamilyPlanInvite.objects.filter(pk=invite.pk, token_digest=invite.token_digest).update(
            mail_status=invite.mail_status
        )
    return IssuedInvite(invite=invite, token=token, url=url)


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
    owner = plan.owner()
    refusal = None
    try:
        check_acceptable(invite, person=person, plan=plan, now=now)
    except Refusal as error:
        refusal = error
    return InvitePreview(
        plan_name=plan.name,
        owner_name=display_name(owner) if owner else "",
        expires_at=invite.expires_at,
        status=invite.status(now=now),
        refusal=refusal,
    )


def accept_invite(*, actor: Viewer, token: str) -> Membership:
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
    plan_id = invite_of_token(token).family_plan_id
    with _locked_plan(plan_id) as (plan, now):
        invite = invite_of_token(token, lock=True)
        if _locked_person(person.pk) is None:
            raise NotAuthenticated
        check_acceptable(invite, person=person, plan=plan, now=now)
        if invite.user_id is not None:
            return Membership.objects.select_related("user", "family_plan").get(user=person)
        membership = Membership.objects.create(user=person, family_plan=plan, joined_at=now)
        invite.user = person
        invite.save(update_fields=["user"])
        _record(plan, Kind.INVITE_ACCEPTED, actor=person, subject=person, invite=invite, at=now)
        link_waiting_user(user=person)
        owner = plan.owner()
    tell_of_joining(plan=plan, member=person, owner=owner)
    return membership


def detach_member(*, actor: Viewer, membership_id: int) -> Detachment:
    """End a membership; the invite it came by is unused again, and expired.

    :raises NotAuthenticated:
    :raises MembershipNotFound:
    :raises NotPermitted:
    :raises OwnerCannotBeDetached:
    """
    person = signed_in(actor)
    plan_id = visible_membership(person, membership_id).family_plan_id
    with _locked_plan(plan_id) as (plan, now):
        membership = visible_membership(person, membership_id)
        leaves = membership.user_id == person.pk
        if not leaves:
            check_manages(person, plan)
        if membership.is_owner:
            raise OwnerCannotBeDetached
        invite = _end_membership(membership, now=now)
        kind = Kind.MEMBER_LEFT if leaves else Kind.MEMBER_DETACHED
        _record(plan, kind, actor=person, subject=membership.user, invite=invite, at=now)
        owner = plan.owner()
    tell_of_leaving(plan=plan, member=membership.user, owner=owner)
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
        former_owner = plan.owner()
        plan.memberships.filter(role=Membership.Role.OWNER).update(role=Membership.Role.MEMBER)
        membership.role = Membership.Role.OWNER
        membership.save(update_fields=["role"])
        _record(plan, Kind.OWNERSHIP_TRANSFERRED, actor=person, subject=membership.user, at=now)
    tell_of_transfer(plan=plan, owner=membership.user, former_owner=former_owner)
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
    with _locked_plan(managed_plan(person, plan_id).pk) as (plan, now):
        managed_plan(person, plan_id)
        if plan.closed_at:
            raise PlanClosed
        if plan.memberships.filter(role=Membership.Role.MEMBER).exists():
            raise PlanNotEmpty
        ended = list(plan.memberships.select_related("user"))
        for membership in ended:
            _end_membership(membership, now=now)
        plan.invites.open(now=now).update(expires_at=now)
        plan.closed_at = now
        plan.save(update_fields=["closed_at"])
        _record(plan, Kind.PLAN_CLOSED, actor=person, at=now)
    for membership in ended:
        tell_of_leaving(plan=plan, member=membership.user, owner=None)
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
def _locked_plan(plan_id: int) -> Iterator[tuple[FamilyPlan, datetime.datetime]]:
    """Open a transaction that holds the plan's row, and read the clock in it.

    A clock read before the wait for the lock would let an accept pass the very revocation
    that it waited for. Durable: when the service returns, what it answers is committed.
    """
    with transaction.atomic(durable=True):
        plan = FamilyPlan.objects.select_for_update().get(pk=plan_id)
        yield plan, timezone.now()


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
) -> None:
    PlanEvent.objects.create(family_plan=plan, kind=kind, actor=actor, subject=subject, invite=invite, at=at)


def _end_membership(membership: Membership, *, now: datetime.datetime) -> FamilyPlanInvite | None:
    """Free a seat and the invite it was taken with; the old link, still out there, is dead."""
    invite = FamilyPlanInvite.objects.select_for_update().filter(user_id=membership.user_id).first()
    membership.delete()
    if invite:
        invite.user = None
        invite.expires_at = now
        invite.save(update_fields=["user", "expires_at"])
    return invite
