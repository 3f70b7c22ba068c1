"""Services that change plans: create, invite, accept, detach, transfer, close.

Every change of a plan's seats happens under the row lock of that plan. Locks are taken in one
order, plan, invite, person, so that services cannot deadlock. No HTTP or mail call is made while
a transaction is open; the recipients of mails are read in it. Transactions are durable: what a
service returns is committed.
"""

from __future__ import annotations

import datetime
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
from plans.models import DAY, FamilyPlan, FamilyPlanInvite, Membership, PlanEvent, digest_of, display_name
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
from zammad.transactions import transaction_required

if TYPE_CHECKING:
    from django.contrib.auth.models import User

    from plans.queries import Invite, LockedPlan, Participant
    from plans.visibility import Actor

Kind = PlanEvent.Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedInvite:
    """An invite with its token, which is not stored anywhere."""

    invite: FamilyPlanInvite
    token: str
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceptance:
    """The seat that was taken, and the page to show next."""

    membership: Membership
    plan: LockedPlan
    page: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Detachment:
    """The plan and the freed invite, as the actor sees them: members who left see neither."""

    plan: LockedPlan | None
    invite: Invite | None


@dataclass(frozen=True, slots=True, kw_only=True)
class InvitePreview:
    """What the holder of a token sees before accepting, and the reason why they cannot."""

    plan_name: str
    owner_name: str
    expires_at: datetime.datetime
    status: FamilyPlanInvite.Status
    refusal: Refusal | None


def create_plan(*, actor: Actor, name: str, owner_email: str | None = None) -> FamilyPlan:
    """Create a plan owned by the actor, or, for staff, by the user who has verified an address.

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
        # The owner's row is locked, so plans that they create concurrently are counted one by one.
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
    """Hold a seat for the bearer of the returned token, and mail the link if an address is given.

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
        check_manages_plan(Viewer(person), plan_id)  # a missing right is reported first
        raise
    invite = FamilyPlanInvite(family_plan_id=plan_id, created_by_id=person.pk, email=address, created_at=now)
    return _issue(invite, actor=person, kind=Kind.INVITE_CREATED, now=now)


def reissue_invite(*, actor: Actor, invite_id: int) -> IssuedInvite:
    """Give an unused invite a new token and expiry; the old link stops working.

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
    invite = visible_invite(Viewer(person), invite_id)
    return _issue(invite, actor=person, kind=Kind.INVITE_REISSUED, now=now)


def _issue(
    invite: FamilyPlanInvite, *, actor: User, kind: PlanEvent.Kind, now: datetime.datetime
) -> IssuedInvite:
    """Fetch a token for a new or known invite, then write the invite under the plan's lock.

    If the rules no longer allow it there, it is refused. The token left in Zammad opens nothing,
    nobody holds it, and reconcile_invites removes it.
    """
    plan_settings, _ = _check_issuable(invite, viewer=Viewer(actor), now=now)
    token_name, token = fetch_invite_token(expires_at=now + plan_settings.invite_ttl)
    with transaction.atomic(durable=True):
        plan, now = _lock_plan(invite.family_plan_id)
        viewer = Viewer(actor)
        # The actor may have lost sight of the invite while Zammad answered.
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
    """Check right and rules in one query; return the settings in force, and whether the viewer is the owner.

    The plan's lock also serialises what its owner issues across all plans: a user owns one plan at
    a time and stops owning it under this lock, so the next plan sees everything issued in this one.
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
    """Expire an open invite now; an expired one stays as it is.

    :raises NotAuthenticated:
    :raises InviteNotFound:
    :raises NotPermitted:
    :raises InviteAlreadyUsed:
    """
    person = signed_in(actor)
    plan_id = visible_invite(Viewer(person), invite_id).family_plan_id
    with transaction.atomic(durable=True):
        plan, now = _lock_plan(plan_id)
        viewer = Viewer(person)
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
    """Return what a token is for, and the refusal that accepting it now would meet.

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
    """Seat the actor in the invite's plan; accepting again with the same invite succeeds.

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
    with transaction.atomic(durable=True):
        plan = queries.lock_plan_of_token.first(token_digest=digest)
        if plan is None:
            raise InviteNotFound
        now = timezone.now()
        invite = queries.invite_of_token.first(token_digest=digest, lock=True)
        if invite is None:
            raise InviteNotFound  # reissued concurrently
        plan_settings = PlanSettings.stored(plan.settings)
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
    """End a membership; the invite it came from becomes unused again, and expires.

    :raises NotAuthenticated:
    :raises MembershipNotFound:
    :raises NotPermitted:
    :raises OwnerCannotBeDetached:
    """
    person = signed_in(actor)
    viewer = Viewer(person)
    with transaction.atomic(durable=True):
        plan = queries.lock_plan_of_member.first(membership_id=membership_id, seen_by=person.pk)
        if plan is None and viewer.reads_all_plans:
            plan = queries.lock_plan_of_member.first(membership_id=membership_id, seen_by=None)
        if plan is None:
            raise MembershipNotFound
        now = timezone.now()
        people, owner = queries.participants(plan_id=plan.pk, user_id=person.pk, membership_id=membership_id)
        member = next((each for each in people.values() if each.seat and each.seat.pk == membership_id), None)
        # The membership may have ended, or the actor lost sight of it, while waiting for the lock.
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
    """Make a member the owner of their plan, and the current owner a member.

    :raises NotAuthenticated:
    :raises MembershipNotFound:
    :raises NotPermitted:
    """
    person = signed_in(actor)
    plan_id = visible_membership(Viewer(person), membership_id).family_plan_id
    with transaction.atomic(durable=True):
        plan, now = _lock_plan(plan_id)
        viewer = Viewer(person)
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
    """Close a plan whose only member is its owner; its row and history stay for staff.

    :raises NotAuthenticated:
    :raises PlanNotFound:
    :raises NotPermitted:
    :raises PlanClosed:
    :raises PlanNotEmpty:
    """
    person = signed_in(actor)
    check_manages_plan(Viewer(person), plan_id)
    with transaction.atomic(durable=True):
        plan, now = _lock_plan(plan_id)
        check_manages_plan(Viewer(person), plan_id)
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
    """Return the link of an invite: a page of the front end if INVITE_URL is set, else ours."""
    if settings.INVITE_URL:
        return str(settings.INVITE_URL).replace("{token}", token)
    return public_url(reverse("invite", args=[token]))


def public_url(page: str) -> str:
    """Make a path of ours absolute; return a URL as it is."""
    return f"{settings.PUBLIC_URL}{page}" if page.startswith("/") else page


# --- Under the lock of a plan ----------------------------------------------------------


@transaction_required
def _lock_plan(plan_id: int) -> tuple[LockedPlan, datetime.datetime]:
    """Lock a plan's row, and read the clock afterwards.

    Every service reads the clock under the lock: with the time from before, an accept that waited
    for a revocation would still see an open invite.
    """
    plan = queries.lock_plan.first(plan_id=plan_id)
    if plan is None:
        raise PlanNotFound
    return plan, timezone.now()


@transaction_required
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


@transaction_required
def _end_membership(member: Participant, *, now: datetime.datetime) -> Invite | None:
    """Free a seat and the invite it was taken with, and expire that: its old link may still be around."""
    Membership.objects.filter(user=member.user.pk).delete()
    FamilyPlanInvite.objects.filter(user=member.user.pk).update(user=None, expires_at=now)
    invite = member.user.family_plan_invite
    return invite._replace(user_id=None, expires_at=now) if invite else None
