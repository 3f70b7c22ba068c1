"""The rules of plans, and the refusals they raise."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

from allauth.account.models import EmailAddress
from django.core.exceptions import PermissionDenied, ValidationError
from django.utils.translation import gettext_lazy as _

from plans import queries
from plans.models import DAY, FamilyPlanInvite, Membership, PlanEvent
from zammad.addresses import spellings, validated_address

if TYPE_CHECKING:
    from django.contrib.auth.models import User
    from django.utils.functional import _StrPromise

    from plans.queries import InviteOfToken, Participant, PlanRoom
    from plans.reading import Reading
    from plans.settings import PlanSettings
    from plans.visibility import Actor, Viewer


class Refusal(ValidationError):
    """A rule of plans is broken. The message is safe to show, and the code is stable.

    API users read the docstring of each refusal: when it comes, and what to do about it.
    """

    code: str
    text: _StrPromise

    def __init__(self) -> None:
        super().__init__(self.text, code=self.code)


class NotAuthenticated(PermissionDenied):
    """You are not signed in. Sign in, and send the session token."""

    code = "NOT_AUTHENTICATED"

    def __init__(self) -> None:
        super().__init__(_("Sign in first."))


class NotPermitted(PermissionDenied):
    """You can see what this concerns, but may not do it. Do not offer the action."""

    code = "PERMISSION_DENIED"

    def __init__(self) -> None:
        super().__init__(_("You may not do this."))


class InvalidInput(ValidationError):
    """A value is not valid for its field, named by `field`. Show the message next to that field."""

    code = "INVALID_INPUT"

    def __init__(self, field: str, error: ValidationError) -> None:
        messages = [ValidationError(message, code=self.code) for message in error.messages]
        super().__init__({field: messages})


class PlanNotFound(Refusal):
    """There is no such plan, or you cannot see it. Fetch your plan from `viewer` again."""

    code = "PLAN_NOT_FOUND"
    text = _("There is no such plan.")


class PlanFull(Refusal):
    """Every seat is taken or, for a new invite, held by an open one. The owner has to free a seat."""

    code = "PLAN_FULL"
    text = _("Every seat of this plan is taken.")


class PlanClosed(Refusal):
    """The plan has been closed for good. Stop offering it."""

    code = "PLAN_CLOSED"
    text = _("This plan is closed.")


class PlanNotEmpty(Refusal):
    """The plan has members other than its owner. Detach them first, or transfer the ownership."""

    code = "PLAN_NOT_EMPTY"
    text = _("This plan still has members.")


class UserNotFound(Refusal):
    """No active user has verified the address. Its holder has to sign up and verify it first."""

    code = "USER_NOT_FOUND"
    text = _("No user has verified this address.")


class InvitesPaused(Refusal):
    """Staff have paused invites for all plans. Try again another day; open invites can still be accepted."""

    code = "INVITES_PAUSED"
    text = _("Invites are paused at the moment.")


class InviteTokenUnavailable(Refusal):
    """Zammad issued no token in time, and nothing has changed. Retry in a minute, a few times at most."""

    code = "INVITE_TOKEN_UNAVAILABLE"
    text = _("The invite could not be created just now. Try again in a moment.")


class InviteLimitReached(Refusal):
    """The plan, or its owner in all plans, has reached the 24-hour limit of invites. Try again tomorrow."""

    code = "INVITE_LIMIT_REACHED"
    text = _("You have reached the daily limit for invites. Try again tomorrow.")


class PlanLimitReached(Refusal):
    """You have created as many plans of your own in 24 hours as you may. Try again tomorrow."""

    code = "PLAN_LIMIT_REACHED"
    text = _("You have reached the daily limit for new plans. Try again tomorrow.")


class InviteNotFound(Refusal):
    """There is no such invite, its link was replaced, or you cannot see it. Ask for a new link."""

    code = "INVITE_NOT_FOUND"
    text = _("There is no such invite.")


class InviteExpired(Refusal):
    """The invite has expired or was ended early. Ask the owner to reissue it."""

    code = "INVITE_EXPIRED"
    text = _("This invite has expired. Ask for a new one.")


class InviteAlreadyUsed(Refusal):
    """Somebody has already taken the seat with this invite. Ask for a new one."""

    code = "INVITE_ALREADY_USED"
    text = _("This invite has already been used.")


class InviteEmailMismatch(Refusal):
    """The invite is for an address that you have not verified. Sign in with that address, or verify it."""

    code = "INVITE_EMAIL_MISMATCH"
    text = _("This invite is for another address. Sign in with that address, or verify it.")


class AlreadyInPlan(Refusal):
    """You or the person you named has a seat, and may have only one. Leave that plan, or ask them to."""

    code = "ALREADY_IN_PLAN"
    text = _("This person is already in a plan.")


class AlreadyInvited(Refusal):
    """The address already has an open invite to this plan. Reissue that invite, or revoke it first."""

    code = "ALREADY_INVITED"
    text = _("This address already has an open invite to this plan.")


class MembershipNotFound(Refusal):
    """There is no such membership, or you cannot see it. Fetch the plan's members again."""

    code = "MEMBERSHIP_NOT_FOUND"
    text = _("There is no such member.")


class OwnerCannotBeDetached(Refusal):
    """The membership is the owner's. Transfer the ownership, or close the plan."""

    code = "OWNER_CANNOT_BE_DETACHED"
    text = _("The owner cannot be detached. Transfer the ownership or close the plan.")


# --- Look-ups, limited to what the viewer sees ----------------------------------------------


def signed_in(actor: Actor) -> User:
    """Return the signed-in user.

    :raises NotAuthenticated:
    """
    if not actor.is_authenticated:
        raise NotAuthenticated
    return actor


def normal_address(email: str | None, *, field: str) -> str:
    """Return an address in the form we compare, or an empty string for None.

    An empty string is refused: a client's mistake must not open an invite to everybody.

    :raises InvalidInput:
    """
    if email is None:
        return ""
    try:
        return validated_address(email)
    except ValidationError as error:
        raise InvalidInput(field, error) from error


def owner_of_address(address: str) -> int:
    """Return the primary key of the active user who has verified an address.

    :raises UserNotFound:
    """
    verified = EmailAddress.objects.filter(email__in=spellings(address), verified=True, user__is_active=True)
    user_id: int | None = verified.order_by("pk").values_list("user", flat=True).first()
    if user_id is None:
        raise UserNotFound
    return user_id


def visible_invite(viewer: Viewer, invite_id: int, *, lock: bool = False) -> FamilyPlanInvite:
    """Fetch an invite that the viewer sees.

    :raises InviteNotFound:
    """
    invites = viewer.invites().filter(pk=invite_id)
    invites = invites.select_for_update(of=["self"]) if lock else invites.select_related("family_plan")
    invite = invites.first()
    if invite is None:
        raise InviteNotFound
    return invite


def visible_membership(viewer: Viewer, membership_id: int) -> Membership:
    """Fetch a membership that the viewer sees.

    :raises MembershipNotFound:
    """
    membership = viewer.memberships().select_related("user").filter(pk=membership_id).first()
    if membership is None:
        raise MembershipNotFound
    return membership


# --- What is allowed -------------------------------------------------------------------


def check_manages(viewer: Viewer, *, role: str | None, missing: type[Refusal]) -> None:
    """Check that the viewer, whose role in a plan is given, owns it or may act for others.

    :raises missing: if the viewer does not see the plan.
    :raises NotPermitted:
    """
    if role == Membership.Role.OWNER:
        return
    if role is None and not viewer.reads_all_plans:
        raise missing
    if not viewer.acts_for_others:
        raise NotPermitted


def check_manages_plan(viewer: Viewer, plan_id: int) -> None:
    """Check that a plan exists, and that the viewer owns it or may act for others.

    :raises PlanNotFound:
    :raises NotPermitted:
    """
    # One query, not two: a plan that closed in between would be visible first, and then forbidden.
    plan = queries.plan_and_role.first(plan_id=plan_id, user_id=viewer.user_id)
    if plan is None:
        raise PlanNotFound
    check_manages(viewer, role=plan.role, missing=PlanNotFound)


def check_invitable(invite: FamilyPlanInvite, *, room: PlanRoom, plan_settings: PlanSettings) -> None:
    """Check that a plan can issue a new invite or reissue a known one.

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
    """Return whether the viewer may create a plan of their own now."""
    viewer = reading.viewer
    if viewer.membership or not viewer.user_id:
        return False
    if not reading.settings.self_service_plans and not viewer.creates_all_plans:
        return False
    return has_plan_left(viewer.user_id, plan_settings=reading.settings, now=reading.now)


def has_plan_left(user_id: int, *, plan_settings: PlanSettings, now: datetime.datetime) -> bool:
    """Return whether a user is below the daily limit for plans of their own."""
    created = PlanEvent.objects.filter(kind=PlanEvent.Kind.PLAN_CREATED, at__gt=now - DAY)
    return created.counted_for(user_id).count() < plan_settings.plans_per_day


def check_acceptable(
    invite: InviteOfToken, *, person: Participant, plan_settings: PlanSettings, now: datetime.datetime
) -> None:
    """Check that a person may take the invite's seat now, or has already taken it.

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
