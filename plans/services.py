"""The journeys of people through plans: create, invite, accept, detach, transfer, close.

Every change of a plan's seats happens under the row lock of that plan. Locks are taken in
one order, so that no two journeys can wait for each other: plan, then invite, then person.
No HTTP or mail call is made while a transaction is open; who is told is read in it.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import transaction
from django.urls import reverse
from django.utils import timezone

from plans import queries
from plans.invite_tokens import fetch_invite_token
from plans.mail import mail_invitation, tell_of_joining, tell_of_leaving, tell_of_transfer
from plans.models import (
    DAY,
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
    check_manages_plan,
    has_plan_left,
    normal_address,
    owner_of_address,
    signed_in,
    visible_invite,
    visible_membership,
)
from plans.settings import PlanSettings
from plans.visibility import Viewer
from zammad.addresses import spellings
from zammad.linking import settle_person

if TYPE_CHECKING:
    from django.contrib.auth.models import User

    from plans.queries import Invite, LockedPlan, Participant
    from plans.visibility import Actor

Kind = PlanEvent.Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedInvite:
    """An invite with its token, which is known at this moment only."""

    invite: FamilyPlanInvite
    token: str
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceptance:
    """A seat that was taken, and the page that staff chose to show next."""

    membership: Membership
    plan: LockedPlan
    page: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Detachment:
    """What a detachment leaves for the one who asked: nothing, for a member who left."""

    plan: LockedPlan | None
    invite: Invite | None


@dataclass(frozen=True, slots=True, kw_only=True)
class InvitePreview:
    """What the holder of a token may know before accepting, and what stands in the way."""

    plan_name: str
    owner_name: str
    expires_at: datetime.datetime
    status: FamilyPlanInvite.Status
    refusal: Refusal | None


def create_plan(*, actor: Actor, name: str, owner_email: str | None = None) -> FamilyPlan:
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
    viewer = Viewer(person)
    address = normal_address(owner_email, field="owner_email")
    for_another = address != "" and not viewer.has_address(address)
    plan_settings = PlanSettings.current()
    if not viewer.creates_all_plans and (for_another or not plan_settings.self_service_plans):
        raise NotPermitted
    plan = FamilyPlan(name=name.strip(), created_at=now)
    try:
        plan.full_clean()
    except ValidationError as error:
        raise InvalidInput("name", error) from error
    owner_id = owner_of_address(address) if for_another else person.pk
    with transaction.atomic(durable=True):
        if not queries.lock_person(user_id=owner_id):
            raise UserNotFound if for_another else NotAuthenticated
        if Membership.objects.filter(user=owner_id).exists():
            raise AlreadyInPlan
        # The person's row is held: what they make at once is counted one by one.
        if not for_another and not has_plan_left(owner_id, plan_settings=plan_settings, now=now):
            raise PlanLimitReached
        plan.save()
        Membership.objects.create(
            user_id=owner_id, family_plan=plan, role=Membership.Role.OWNER, joined_at=now
        )
        _record(
            Kind.PLAN_CREATED,
            plan_id=plan.pk,
            actor=person,
            subject_id=owner_id,
            at=now,
            counts_for_actor=not for_another,
        )
    return plan


def create_invite(*, actor: Actor, plan_id: int, email: str | None = None) -> IssuedInvite:
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
    viewer = Viewer(person)
    try:
        address = normal_address(email, field="email")
    except InvalidInput:
        check_manages_plan(viewer, plan_id)  # a missing right is told first
        raise
    invite = FamilyPlanInvite(family_plan_id=plan_id, created_by_id=person.pk, email=address, created_at=now)
    return _issue(invite, actor=person, kind=Kind.INVITE_CREATED, now=now)


def reissue_invite(*, actor: Actor, invite_id: int) -> IssuedInvite:
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
    viewer = Viewer(person)
    invite = visible_invite(viewer, invite_id)
    return _issue(invite, actor=person, kind=Kind.INVITE_REISSUED, now=now)


def _issue(
    invite: FamilyPlanInvite, *, actor: User, kind: PlanEvent.Kind, now: datetime.datetime
) -> IssuedInvite:
    """Fetch a token for a new or known invite, then write it under the plan's lock.

    What no longer fits is refused; the token left in Zammad is powerless, held by nobody,
    and removed by reconcile_invites.
    """
    plan_settings, _ = _check_issuable(invite, viewer=Viewer(actor), now=now)
    token_name, token = fetch_invite_token(expires_at=now + plan_settings.invite_ttl)
    with _locked_plan(invite.family_plan_id, actor) as (plan, viewer, now):
        # What was seen before Zammad was asked may be out of sight by now.
        if invite.pk:
            invite = visible_invite(viewer, invite.pk, lock=True)
        plan_settings, as_owner = _check_issuable(invite, viewer=viewer, now=now)
        invite.token_digest = digest_of(token)
        invite.zammad_token_name = token_name
        invite.expires_at = now + plan_settings.invite_ttl
        invite.mail_status = FamilyPlanInvite.MailStatus.NONE
        invite.save()
        _record(kind, plan_id=plan.pk, actor=actor, invite_id=invite.pk, at=now, counts_for_actor=as_owner)
    url = invite_url(token)
    if invite.email:
        invite.mail_status = mail_invitation(invite, url=url, inviter=actor, now=now)
        FamilyPlanInvite.objects.filter(pk=invite.pk, token_digest=invite.token_digest).update(
            mail_status=invite.mail_status
        )
    return IssuedInvite(invite=invite, token=token, url=url)


def _check_issuable(
    invite: FamilyPlanInvite, *, viewer: Viewer, now: datetime.datetime
) -> tuple[PlanSettings, bool]:
    """Hold right and rules in one query; return the settings in force, and whether the viewer is the owner.

    The plan's lock also serialises what its owner issues over all plans. A person owns one plan at
    a time, and ceases to own it under this very lock: the next plan sees all that this one issued.
    """
    room = queries.plan_and_room.first(
        plan_id=invite.family_plan_id,
        user_id=viewer.user_id,
        invite_id=invite.pk,
        address=invite.email or None,
        spellings=sorted(spellings(invite.email)),
        now=now,
        since=now - DAY,
    )
    if room is None:
        raise PlanNotFound
    check_manages(viewer, role=room.role, missing=PlanNotFound)
    plan_settings = PlanSettings.stored(room.settings)
    check_invitable(invite, room=room, plan_settings=plan_settings)
    return plan_settings, room.is_owned


def revoke_invite(*, actor: Actor, invite_id: int) -> FamilyPlanInvite:
    """Expire an open invite now; one that has expired already stays as it is.

    :raises NotAuthenticated:
    :raises InviteNotFound:
    :raises NotPermitted:
    :raises InviteAlreadyUsed:
    """
    person = signed_in(actor)
    viewer = Viewer(person)
    plan_id = visible_invite(viewer, invite_id).family_plan_id
    with _locked_plan(plan_id, person) as (plan, viewer, now):
        invite = visible_invite(viewer, invite_id)
        check_manages(viewer, role=viewer.role_in(plan.pk), missing=InviteNotFound)
        match invite.status(now=now):
            case FamilyPlanInvite.Status.USED:
                raise InviteAlreadyUsed
            case FamilyPlanInvite.Status.OPEN:
                invite.expires_at = now
                invite.save(update_fields=["expires_at"])
                _record(Kind.INVITE_REVOKED, plan_id=plan.pk, actor=person, invite_id=invite.pk, at=now)
    return invite


def preview_invite(*, actor: Actor, token: str) -> InvitePreview:
    """Show what the token leads to, with the refusal that accepting it would meet now.

    :raises NotAuthenticated:
    :raises InviteNotFound:
    """
    now = timezone.now()
    person = signed_in(actor)
    invite = queries.invite_of_token.first(token_digest=digest_of(token), lock=False)
    if invite is None:
        raise InviteNotFound
    people, owner = queries.participants(plan_id=invite.family_plan.pk, user_id=person.pk)
    if person.pk not in people:
        raise NotAuthenticated  # the account was deleted concurrently
    refusal = None
    try:
        check_acceptable(invite, person=people[person.pk], plan_settings=PlanSettings.current(), now=now)
    except Refusal as error:
        refusal = error
    return InvitePreview(
        plan_name=invite.family_plan.name,
        owner_name=display_name(owner.user) if owner else "",
        expires_at=invite.expires_at,
        status=invite.status(now=now),
        refusal=refusal,
    )


def accept_invite(*, actor: Actor, token: str) -> Acceptance:
    """Seat the actor in the invite's plan; the person who used this very invite succeeds again.

    :raises NotAuthenticated:
    :raises InviteNotFound:
    :raises InviteAlreadyUsed:
    :raises InviteExpired:
    :raises InviteEmailMismatch:
    :raises AlreadyInPlan:
    :raises PlanFull:
    """
    person = signed_in(actor)
    digest = digest_of(token)
    with _locked(lambda: queries.lock_plan_of_token.first(token_digest=digest), InviteNotFound) as (
        plan,
        now,
    ):
        plan_settings = PlanSettings.stored(plan.settings)
        invite = queries.invite_of_token.first(token_digest=digest, lock=True)
        if invite is None:
            raise InviteNotFound
        if not queries.lock_person(user_id=person.pk):
            raise NotAuthenticated
        people, owner = queries.participants(plan_id=plan.pk, user_id=person.pk)
        member = people[person.pk]
        check_acceptable(invite, person=member, plan_settings=plan_settings, now=now)
        if invite.user_id is not None:
            membership = Membership.objects.select_related("user").get(user=person.pk)
            return Acceptance(membership=membership, plan=plan, page=plan_settings.invite_accepted_url)
        membership = Membership.objects.create(user=person, family_plan_id=plan.pk, joined_at=now)
        FamilyPlanInvite.objects.filter(pk=invite.pk).update(user=person.pk)
        _record(
            Kind.INVITE_ACCEPTED,
            plan_id=plan.pk,
            actor=person,
            subject_id=person.pk,
            invite_id=invite.pk,
            at=now,
        )
        settle_person(user_id=person.pk, addresses=member.addresses, now=now)
    if plan_settings.membership_mails:
        tell_of_joining(plan=plan, member=member, owner=owner)
    return Acceptance(membership=membership, plan=plan, page=plan_settings.invite_accepted_url)


def detach_member(*, actor: Actor, membership_id: int) -> Detachment:
    """End a membership; the invite it came by is unused again, and expired.

    :raises NotAuthenticated:
    :raises MembershipNotFound:
    :raises NotPermitted:
    :raises OwnerCannotBeDetached:
    """
    person = signed_in(actor)
    viewer = Viewer(person)

    def lock() -> LockedPlan | None:
        own = queries.lock_plan_of_member.first(membership_id=membership_id, seen_by=person.pk)
        if own is None and viewer.reads_all_plans:
            return queries.lock_plan_of_member.first(membership_id=membership_id, seen_by=None)
        return own

    with _locked(lock, MembershipNotFound) as (plan, now):
        people, owner = queries.participants(plan_id=plan.pk, user_id=person.pk, membership_id=membership_id)
        member = next((each for each in people.values() if each.seat and each.seat.pk == membership_id), None)
        # What was seen before the lock may be out of sight by now.
        if member is None:
            raise MembershipNotFound
        leaves = member.user.pk == person.pk
        if not leaves:
            role = people[person.pk].role_in(plan.pk) if person.pk in people else None
            check_manages(viewer, role=role, missing=MembershipNotFound)
        if member is owner:
            raise OwnerCannotBeDetached
        invite = _end_membership(member, now=now)
        _record(
            Kind.MEMBER_LEFT if leaves else Kind.MEMBER_DETACHED,
            plan_id=plan.pk,
            actor=person,
            subject_id=member.user.pk,
            invite_id=invite.pk if invite else None,
            at=now,
        )
    if PlanSettings.stored(plan.settings).membership_mails:
        tell_of_leaving(plan=plan, member=member, owner=owner)
    return Detachment(plan=None, invite=None) if leaves else Detachment(plan=plan, invite=invite)


def transfer_ownership(*, actor: Actor, membership_id: int) -> LockedPlan:
    """Swap the roles of a plan's owner and one of its members.

    :raises NotAuthenticated:
    :raises MembershipNotFound:
    :raises NotPermitted:
    """
    person = signed_in(actor)
    viewer = Viewer(person)
    plan_id = visible_membership(viewer, membership_id).family_plan_id
    with _locked_plan(plan_id, person) as (plan, viewer, now):
        membership = visible_membership(viewer, membership_id)
        check_manages(viewer, role=viewer.role_in(plan.pk), missing=MembershipNotFound)
        if membership.is_owner:
            return plan
        people, former_owner = queries.participants(
            plan_id=plan.pk, user_id=person.pk, membership_id=membership.pk
        )
        members = Membership.objects.filter(family_plan=plan.pk)
        members.filter(role=Membership.Role.OWNER).update(role=Membership.Role.MEMBER)
        members.filter(pk=membership.pk).update(role=Membership.Role.OWNER)
        _record(
            Kind.OWNERSHIP_TRANSFERRED,
            plan_id=plan.pk,
            actor=person,
            subject_id=membership.user_id,
            at=now,
        )
    tell_of_transfer(plan=plan, owner=people[membership.user_id], former_owner=former_owner)
    return plan


def close_plan(*, actor: Actor, plan_id: int) -> LockedPlan:
    """End a plan that has no members but its owner; its row and history stay for staff.

    :raises NotAuthenticated:
    :raises PlanNotFound:
    :raises NotPermitted:
    :raises PlanClosed:
    :raises PlanNotEmpty:
    """
    person = signed_in(actor)
    viewer = Viewer(person)
    check_manages_plan(viewer, plan_id)
    with _locked_plan(plan_id, person) as (plan, viewer, now):
        check_manages_plan(viewer, plan_id)
        if plan.closed_at:
            raise PlanClosed
        members = Membership.objects.filter(family_plan=plan.pk)
        if members.filter(role=Membership.Role.MEMBER).exists():
            raise PlanNotEmpty
        _, owner = queries.participants(plan_id=plan.pk, user_id=person.pk)
        if owner:
            _end_membership(owner, now=now)
        FamilyPlanInvite.objects.open(now=now).filter(family_plan=plan.pk).update(expires_at=now)
        FamilyPlan.objects.filter(pk=plan.pk).update(closed_at=now)
        _record(Kind.PLAN_CLOSED, plan_id=plan.pk, actor=person, at=now)
    if owner and PlanSettings.stored(plan.settings).membership_mails:
        tell_of_leaving(plan=plan, member=owner, owner=None)
    return plan._replace(closed_at=now)


def invite_url(token: str) -> str:
    """Return the link to hand out: a front end's page where INVITE_URL names one, else ours."""
    if settings.INVITE_URL:
        return str(settings.INVITE_URL).replace("{token}", token)
    return public_url(reverse("invite", args=[token]))


def public_url(page: str) -> str:
    """Make a path of ours absolute; a URL stays as it is."""
    return f"{settings.PUBLIC_URL}{page}" if page.startswith("/") else page


# --- Under the lock of a plan ----------------------------------------------------------


@contextmanager
def _locked(
    lock: Callable[[], LockedPlan | None], missing: type[Refusal]
) -> Iterator[tuple[LockedPlan, datetime.datetime]]:
    """Open a transaction that holds the row of the plan that `lock` returns, and read the clock in it.

    A clock read before the wait for the lock would let an accept pass the very revocation
    that it waited for. Durable: when the service returns, what it answers is committed.
    """
    with transaction.atomic(durable=True):
        plan = lock()
        if plan is None:
            raise missing
        yield plan, timezone.now()


@contextmanager
def _locked_plan(plan_id: int, person: User) -> Iterator[tuple[LockedPlan, Viewer, datetime.datetime]]:
    """Lock a plan by its key, and look at the person anew: the seat may have changed meanwhile."""
    with _locked(lambda: queries.lock_plan.first(plan_id=plan_id), PlanNotFound) as (plan, now):
        yield plan, Viewer(person), now


def _record(
    kind: PlanEvent.Kind,
    *,
    plan_id: int,
    actor: User,
    subject_id: int | None = None,
    invite_id: int | None = None,
    at: datetime.datetime,
    counts_for_actor: bool = False,
) -> None:
    PlanEvent.objects.create(
        family_plan_id=plan_id,
        kind=kind,
        actor=actor,
        subject_id=subject_id,
        invite_id=invite_id,
        at=at,
        counts_for_actor=counts_for_actor,
    )


def _end_membership(member: Participant, *, now: datetime.datetime) -> Invite | None:
    """Free a seat and the invite it was taken with; the old link, still out there, is dead."""
    Membership.objects.filter(user=member.user.pk).delete()
    FamilyPlanInvite.objects.filter(user=member.user.pk).update(user=None, expires_at=now)
    invite = member.user.family_plan_invite
    return invite._replace(user_id=None, expires_at=now) if invite else None
