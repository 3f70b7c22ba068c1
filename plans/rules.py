"""What plans allow: the look-ups scoped to who asks, the rules, and the refusals they raise."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

from allauth.account.models import EmailAddress
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import BigAutoField, CharField, DateTimeField
from django.utils.translation import gettext_lazy as _

from plans.models import (
    DAY,
    FamilyPlan,
    FamilyPlanInvite,
    Membership,
    PlanEvent,
    digest_of,
    may_act_for_others,
    may_read_all_plans,
    verified_addresses,
)
from plans.prepared import MAX_KEY, Parameter, Prepared
from plans.settings import PlanSettings
from zammad.addresses import MAX_SPELLINGS, spellings, validated_address

if TYPE_CHECKING:
    from django.contrib.auth.models import User
    from django.utils.functional import _StrPromise

    from plans.models import FamilyPlanInviteQuerySet, FamilyPlanQuerySet, Viewer
    from plans.people import Person


class Refusal(ValidationError):
    """A rule of plans says no: the message is safe to show, the code is stable.

    The docstrings of refusals are read by API users: when it comes, and what to do about it.
    """

    code: str
    text: _StrPromise

    def __init__(self) -> None:
        super().__init__(self.text, code=self.code)


class NotAuthenticated(PermissionDenied):
    """Nobody is signed in. Sign in, and send the session token."""

    code = "NOT_AUTHENTICATED"

    def __init__(self) -> None:
        super().__init__(_("Sign in first."))


class NotPermitted(PermissionDenied):
    """One sees what it is about, but may not do this. Do not offer it to this person."""

    code = "PERMISSION_DENIED"

    def __init__(self) -> None:
        super().__init__(_("You may not do this."))


class InvalidInput(ValidationError):
    """A value is not what its field takes; `field` names it. Show the message beside that field."""

    code = "INVALID_INPUT"

    def __init__(self, field: str, error: ValidationError) -> None:
        messages = [ValidationError(message, code=self.code) for message in error.messages]
        super().__init__({field: messages})


class PlanNotFound(Refusal):
    """There is no such plan, or none that one may see. Ask `viewer` for one's plan again."""

    code = "PLAN_NOT_FOUND"
    text = _("There is no such plan.")


class PlanFull(Refusal):
    """Every seat is taken or, for a new invite, held by an open one. The owner has to make room."""

    code = "PLAN_FULL"
    text = _("Every seat of this plan is taken.")


class PlanClosed(Refusal):
    """The plan has ended, for good. Stop offering it."""

    code = "PLAN_CLOSED"
    text = _("This plan is closed.")


class PlanNotEmpty(Refusal):
    """Somebody but the owner is in the plan. Detach them first, or transfer the ownership."""

    code = "PLAN_NOT_EMPTY"
    text = _("This plan still has members.")


class UserNotFound(Refusal):
    """No active person has verified the address. They sign up and verify it first."""

    code = "USER_NOT_FOUND"
    text = _("Nobody here has verified this address.")


class InvitesPaused(Refusal):
    """Staff switched invites off for all plans. Try another day; open invites can be accepted."""

    code = "INVITES_PAUSED"
    text = _("Invites are paused at the moment.")


class InviteTokenUnavailable(Refusal):
    """Zammad gave no token in time, and nothing happened. Try again in a minute, a few times at most."""

    code = "INVITE_TOKEN_UNAVAILABLE"
    text = _("The invite could not be made just now. Try again in a moment.")


class InviteLimitReached(Refusal):
    """The plan, or its owner over all plans, has reached the invites of 24 hours. Try again tomorrow."""

    code = "INVITE_LIMIT_REACHED"
    text = _("All invites of today have been made. Try again tomorrow.")


class PlanLimitReached(Refusal):
    """The person has made as many plans of their own in 24 hours as they may. Try again tomorrow."""

    code = "PLAN_LIMIT_REACHED"
    text = _("You have made as many plans today as you may. Try again tomorrow.")


class InviteNotFound(Refusal):
    """There is no such invite, no longer by this token, or none that one may see. Ask for a new link."""

    code = "INVITE_NOT_FOUND"
    text = _("There is no such invite.")


class InviteExpired(Refusal):
    """The invite's time is over, or somebody ended it. Ask the owner to reissue it."""

    code = "INVITE_EXPIRED"
    text = _("This invite has expired. Ask for a new one.")


class InviteAlreadyUsed(Refusal):
    """Somebody has the seat by this invite. A new invite is needed."""

    code = "INVITE_ALREADY_USED"
    text = _("This invite has been used.")


class InviteEmailMismatch(Refusal):
    """The invite is for an address that the person has not verified. Sign in with it, or verify it."""

    code = "INVITE_EMAIL_MISMATCH"
    text = _("This invite is for another address. Sign in with that one, or verify it.")


class AlreadyInPlan(Refusal):
    """The person has a seat already, and can have one only. They leave that plan first."""

    code = "ALREADY_IN_PLAN"
    text = _("This person is in a plan already.")


class AlreadyInvited(Refusal):
    """The address has an open invite to this plan. Reissue that one, or revoke it first."""

    code = "ALREADY_INVITED"
    text = _("This address has an open invite to this plan.")


class MembershipNotFound(Refusal):
    """There is no such membership, or none that one may see. Ask for the plan's members again."""

    code = "MEMBERSHIP_NOT_FOUND"
    text = _("There is no such member.")


class OwnerCannotBeDetached(Refusal):
    """The membership is the owner's. Transfer the ownership, or close the plan."""

    code = "OWNER_CANNOT_BE_DETACHED"
    text = _("The owner cannot be detached. Transfer the ownership or close the plan.")


# --- What is asked of the database at every turn ------------------------------------------

PLAN = Parameter("plan", BigAutoField())
PERSON = Parameter("person", Membership._meta.get_field("user"))
INVITE = Parameter("invite", BigAutoField())
DIGEST = Parameter("digest", CharField())
NOW = Parameter("now", DateTimeField())
SINCE = Parameter("since", DateTimeField())
ADDRESS = Parameter("address", CharField())
SPELLINGS = [Parameter(f"spelling{n}", CharField()) for n in range(MAX_SPELLINGS)]


def plan_and_role() -> FamilyPlanQuerySet:
    return FamilyPlan.objects.with_role_of(PERSON).filter(pk=PLAN)


def plan_and_room() -> FamilyPlanQuerySet:
    return plan_and_role().with_settings().with_room(besides=INVITE, person=PERSON, now=NOW, since=SINCE)


PLAN_AND_ROLE = Prepared(plan_and_role)
PLAN_WITH_ROOM = Prepared(plan_and_room)
PLAN_WITH_ROOM_FOR_ADDRESS = Prepared(
    lambda: plan_and_room().with_address(ADDRESS, spelt=SPELLINGS, besides=INVITE, now=NOW)
)


def invite_with_members() -> FamilyPlanInviteQuerySet:
    return FamilyPlanInvite.objects.with_members_of_plan().filter(token_digest=DIGEST)


INVITE_OF_TOKEN = Prepared(lambda: invite_with_members().select_related("family_plan"))
LOCKED_INVITE_OF_TOKEN = Prepared(lambda: invite_with_members().select_for_update())


# --- Who may be looked up ---------------------------------------------------------------


def signed_in(actor: Viewer) -> User:
    """Narrow the viewer to a person.

    :raises NotAuthenticated:
    """
    if not actor.is_authenticated:
        raise NotAuthenticated
    return actor


def normal_address(email: str | None, *, field: str) -> str:
    """Return an address in the form we compare; none is empty.

    A blank one is refused: an invite that a client's slip leaves open to everybody is no favour.

    :raises InvalidInput:
    """
    if email is None:
        return ""
    try:
        return validated_address(email)
    except ValidationError as error:
        raise InvalidInput(field, error) from error


def owns_address(person: User, address: str) -> bool:
    """Tell whether a person has verified an address that `normal_address` returned."""
    return not spellings(address).isdisjoint(verified_addresses(person))


def owner_of_address(address: str) -> User:
    """Find the active person who has verified an address.

    :raises UserNotFound:
    """
    found = EmailAddress.objects.filter(email__in=spellings(address), verified=True, user__is_active=True)
    email_address = found.select_related("user").first()
    if email_address is None:
        raise UserNotFound
    owner: User = email_address.user
    return owner


def invite_of_token(token: str, *, lock: bool = False) -> FamilyPlanInvite:
    """Find the invite that a token opens, whoever holds it.

    :raises InviteNotFound:
    """
    found = LOCKED_INVITE_OF_TOKEN if lock else INVITE_OF_TOKEN
    invite = found.first(digest=digest_of(token))
    if invite is None:
        raise InviteNotFound
    return invite


def managed_plan(person: User, plan_id: int) -> FamilyPlan:
    """Find a plan that the person owns, or among all if they may act for others.

    :raises PlanNotFound:
    :raises NotPermitted:
    """
    return _managed(person, PLAN_AND_ROLE.first(person=person.pk, plan=min(plan_id, MAX_KEY)))


def plan_with_room(person: User, invite: FamilyPlanInvite, *, now: datetime.datetime) -> FamilyPlan:
    """Find a plan as `managed_plan` does, with all that `check_invitable` asks, and the settings.

    :raises PlanNotFound:
    :raises NotPermitted:
    """
    asked = {
        "person": person.pk,
        "plan": min(invite.family_plan_id, MAX_KEY),
        "invite": invite.pk or 0,
        "now": now,
        "since": now - DAY,
    }
    if not invite.email:
        return _managed(person, PLAN_WITH_ROOM.first(**asked))
    spelt = sorted(spellings(invite.email))
    spelt += spelt[:1] * (len(SPELLINGS) - len(spelt))
    asked |= {"address": invite.email} | {f"spelling{n}": each for n, each in enumerate(spelt)}
    return _managed(person, PLAN_WITH_ROOM_FOR_ADDRESS.first(**asked))


def _managed(person: User, plan: FamilyPlan | None) -> FamilyPlan:
    """Hold what was found of a plan against who asks.

    One look tells an owner both that they see the plan and that they own it: between two, a
    plan that closes meanwhile would be seen and then forbidden.
    """
    if plan and plan.is_owned_now:
        return plan
    if plan is None or (plan.role_now is None and not may_read_all_plans(person)):
        raise PlanNotFound
    if not may_act_for_others(person):
        raise NotPermitted
    return plan


def visible_invite(person: User, invite_id: int, *, lock: bool = False) -> FamilyPlanInvite:
    """Find an invite among those the person may see.

    :raises InviteNotFound:
    """
    invites = FamilyPlanInvite.objects.visible_to(person)
    invites = invites.select_for_update(of=["self"]) if lock else invites.select_related("family_plan")
    invite = invites.filter(pk=invite_id).first()
    if invite is None:
        raise InviteNotFound
    return invite


def visible_membership(person: User, membership_id: int) -> Membership:
    """Find a membership among those the person may see.

    :raises MembershipNotFound:
    """
    memberships = Membership.objects.visible_to(person).select_related("user")
    membership = memberships.filter(pk=membership_id).first()
    if membership is None:
        raise MembershipNotFound
    return membership


# --- What is allowed -------------------------------------------------------------------


def check_manages(person: User, plan: FamilyPlan) -> None:
    """Hold that a person owns a plan or may act for others.

    :raises NotPermitted:
    """
    if not plan.has_owner(person) and not may_act_for_others(person):
        raise NotPermitted


def check_invitable(invite: FamilyPlanInvite, *, plan: FamilyPlan, plan_settings: PlanSettings) -> None:
    """Hold that a new or known invite may be sent out, with what `plan_with_room` told.

    :raises InviteAlreadyUsed:
    :raises PlanClosed:
    :raises InvitesPaused:
    :raises AlreadyInPlan:
    :raises AlreadyInvited:
    :raises PlanFull:
    :raises InviteLimitReached:
    """
    if invite.user_id is not None:
        raise InviteAlreadyUsed
    if plan.closed_at:
        raise PlanClosed
    if not plan_settings.invites_enabled:
        raise InvitesPaused
    if plan.address_sits_now:
        raise AlreadyInPlan
    if plan.address_invited_now:
        raise AlreadyInvited
    if plan.seats_taken_now >= plan.limit_in_force(plan_settings):
        raise PlanFull
    issued = max(plan.issued_now, plan.issued_by_owner_now if plan.is_owned_now else 0)
    if issued >= plan_settings.invites_per_day:
        raise InviteLimitReached


def may_make_another_plan(person: User, *, plan_settings: PlanSettings, now: datetime.datetime) -> bool:
    """Tell whether a person has a plan of their own left for today, whatever else they may do."""
    made = PlanEvent.objects.filter(kind=PlanEvent.Kind.PLAN_CREATED, at__gt=now - DAY)
    return made.counted_for(person.pk).count() < plan_settings.plans_per_day


def check_acceptable(invite: FamilyPlanInvite, *, person: Person, limit: int, now: datetime.datetime) -> None:
    """Hold that a person may take the invite's seat now, or has taken it before.

    :raises InviteAlreadyUsed:
    :raises InviteExpired:
    :raises InviteEmailMismatch:
    :raises AlreadyInPlan:
    :raises PlanFull:
    """
    if invite.user_id == person.user.pk:
        return
    match invite.status(now=now):
        case FamilyPlanInvite.Status.USED:
            raise InviteAlreadyUsed
        case FamilyPlanInvite.Status.EXPIRED:
            raise InviteExpired
    if invite.email and spellings(invite.email).isdisjoint(person.addresses):
        raise InviteEmailMismatch
    if person.seat:
        raise AlreadyInPlan
    if invite.members_now >= limit:
        raise PlanFull
