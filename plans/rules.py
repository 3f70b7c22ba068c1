"""The rules of plans, and the refusals that they raise."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

from django.core.exceptions import PermissionDenied, ValidationError
from django.utils.translation import gettext_lazy as _

from plans import queries
from plans.models import DAY, FamilyPlanInvite, Membership
from zammad.addresses import spellings, validated_address

if TYPE_CHECKING:
    from django.contrib.auth.models import User
    from django.utils.functional import _StrPromise

    from plans.queries import InviteOfToken, Participant, PlanRoom
    from plans.reading import Reading
    from plans.settings import PlanSettings
    from plans.visibility import Actor, Viewer


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


# --- Look-ups, each among what the viewer sees ----------------------------------------------


def signed_in(actor: Actor) -> User:
    """Narrow the viewer to a person.

    :raises NotAuthenticated:
    """
    if not actor.is_authenticated:
        raise NotAuthenticated
    return actor


def normal_address(email: str | None, *, field: str) -> str:
    """Return an address in the form we compare, or an empty text for None.

    An empty text is refused: an invite that a client's slip leaves open to everybody is no favour.

    :raises InvalidInput:
    """
    if email is None:
        return ""
    try:
        return validated_address(email)
    except ValidationError as error:
        raise InvalidInput(field, error) from error


def owner_of_address(address: str) -> int:
    """Return the key of the active person who has verified an address.

    :raises UserNotFound:
    """
    user_id = queries.user_with_address(spellings(address))
    if user_id is None:
        raise UserNotFound
    return user_id


def visible_invite(viewer: Viewer, invite_id: int, *, lock: bool = False) -> FamilyPlanInvite:
    """Fetch an invite among those that the viewer sees.

    :raises InviteNotFound:
    """
    invites = viewer.invites().filter(pk=invite_id)
    invites = invites.select_for_update(of=["self"]) if lock else invites.select_related("family_plan")
    invite = invites.first()
    if invite is None:
        raise InviteNotFound
    return invite


def visible_membership(viewer: Viewer, membership_id: int) -> Membership:
    """Fetch a membership among those that the viewer sees.

    :raises MembershipNotFound:
    """
    membership = viewer.memberships().select_related("user").filter(pk=membership_id).first()
    if membership is None:
        raise MembershipNotFound
    return membership


# --- What is allowed -------------------------------------------------------------------


def check_manages(viewer: Viewer, *, role: str | None, missing: type[Refusal]) -> None:
    """Hold that a person owns a plan, or may act for others; `role` is what they are in it now.

    :raises missing: for those who do not see the plan.
    :raises NotPermitted:
    """
    if role == Membership.Role.OWNER:
        return
    if role is None and not viewer.reads_all_plans:
        raise missing
    if not viewer.acts_for_others:
        raise NotPermitted


def check_manages_plan(viewer: Viewer, plan_id: int) -> None:
    """Hold that a person owns a plan that exists, or may act for others.

    :raises PlanNotFound:
    :raises NotPermitted:
    """
    # One query tells that the plan is seen and who owns it: a plan that closed between two would
    # be seen, and then forbidden.
    plan = queries.plan_and_role.first(plan_id=plan_id, user_id=viewer.user_id)
    if plan is None:
        raise PlanNotFound
    check_manages(viewer, role=plan.role, missing=PlanNotFound)


def check_invitable(invite: FamilyPlanInvite, *, room: PlanRoom, plan_settings: PlanSettings) -> None:
    """Hold that a plan can issue an invite, new or known.

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
    if room.closed_at:
        raise PlanClosed
    if not plan_settings.invites_enabled:
        raise InvitesPaused
    if room.address_sits:
        raise AlreadyInPlan
    if room.address_invited:
        raise AlreadyInvited
    if room.seats_taken >= plan_settings.limit_of(room):
        raise PlanFull
    if max(room.issued, room.issued_by_owner if room.is_owned else 0) >= plan_settings.invites_per_day:
        raise InviteLimitReached


def may_create_plan(reading: Reading) -> bool:
    """Tell whether the viewer may create a plan of their own now."""
    viewer = reading.viewer
    if viewer.membership or not viewer.user_id:
        return False
    if not reading.settings.self_service_plans and not viewer.creates_all_plans:
        return False
    return has_plan_left(viewer.user_id, plan_settings=reading.settings, now=reading.now)


def has_plan_left(user_id: int, *, plan_settings: PlanSettings, now: datetime.datetime) -> bool:
    """Tell whether a person has a plan of their own left for today, whatever else they may do."""
    return queries.plans_created_by(user_id, since=now - DAY) < plan_settings.plans_per_day


def check_acceptable(
    invite: InviteOfToken, *, person: Participant, plan_settings: PlanSettings, now: datetime.datetime
) -> None:
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
    if invite.members >= plan_settings.limit_of(invite.family_plan):
        raise PlanFull
