"""Mails about plans: invitations, and notices of joining, leaving and a change of owner."""

from __future__ import annotations

import logging
import smtplib
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.core.mail import EmailMultiAlternatives, get_connection
from django.template.loader import render_to_string
from django.utils.translation import gettext as _

from plans.links import without_links
from plans.models import FamilyPlanInvite, InvitationMail, display_name
from plans.outside import TooManyWaiting, outside_world, within

if TYPE_CHECKING:
    import datetime

    from plans.models import Named
    from plans.queries import LockedPlan, Participant

logger = logging.getLogger(__name__)

DEADLINE = 5.0  # seconds, for all mails of one service call

# After these no mail has arrived; after any other failure it may have.
NOTHING_ARRIVED = (
    TooManyWaiting,
    ConnectionRefusedError,
    socket.gaierror,
    smtplib.SMTPResponseException,
    smtplib.SMTPRecipientsRefused,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """A mail to be rendered from the templates plans/mail/<template>.html and .txt.

    Its subject is fixed: names are chosen by people, and a subject is read before anything else.
    """

    address: str
    subject: str
    template: str
    context: Mapping[str, object]


def mail_invitation(
    invite: FamilyPlanInvite, *, url: str, inviter: Named, now: datetime.datetime
) -> FamilyPlanInvite.MailStatus:
    """Mail an invite's link to its address within the daily limit; failures are not raised."""
    place = InvitationMail.take_place(invite.email, now=now)
    if place is None:
        logger.info("The mail of invite %s was skipped: its address has reached the daily limit.", invite.pk)
        return FamilyPlanInvite.MailStatus.SKIPPED
    failures = _send(
        Letter(
            address=invite.email,
            subject=_("You are invited to a family plan"),
            template="invitation",
            context={"inviter": _name_of(inviter), "url": url, "expires_at": invite.expires_at},
        )
    )
    for failure in failures:
        logger.warning("The mail of invite %s failed: %s", invite.pk, _kind(failure))
        if isinstance(failure, NOTHING_ARRIVED):
            place.delete()
    return FamilyPlanInvite.MailStatus.FAILED if failures else FamilyPlanInvite.MailStatus.SENT


def tell_of_joining(*, plan: LockedPlan, member: Participant, owner: Participant | None) -> None:
    """Mail a new member and the plan's owner."""
    _tell(
        plan,
        {"plan": without_links(plan.name), "member": _name_of(member.user)},
        (member, "joined_to_member", _("You joined a family plan")),
        (owner, "joined_to_owner", _("Somebody joined your family plan")),
    )


def tell_of_leaving(*, plan: LockedPlan, member: Participant, owner: Participant | None) -> None:
    """Mail a former member, and the plan's owner."""
    _tell(
        plan,
        {"plan": without_links(plan.name), "member": _name_of(member.user)},
        (member, "left_to_member", _("Your seat in a family plan has ended")),
        (owner, "left_to_owner", _("Somebody left your family plan")),
    )


def tell_of_transfer(*, plan: LockedPlan, owner: Participant, former_owner: Participant | None) -> None:
    """Mail both owners: one who lost a plan against their will must learn about it."""
    _tell(
        plan,
        {"plan": without_links(plan.name), "owner": _name_of(owner.user)},
        (owner, "transferred_to_owner", _("You own a family plan now")),
        (former_owner, "transferred_to_former_owner", _("Your family plan has another owner")),
    )


def _tell(
    plan: LockedPlan, context: Mapping[str, object], *recipients: tuple[Participant | None, str, str]
) -> None:
    """Mail people at their primary verified address."""
    letters = [
        Letter(address=person.addresses[-1], subject=subject, template=template, context=context)
        for person, template, subject in recipients
        if person and person.user.is_active and person.addresses
    ]
    for failure in _send(*letters):
        logger.warning("A mail about plan %s failed: %s", plan.pk, _kind(failure))


def _send(*letters: Letter) -> list[Exception]:
    """Render and send letters over one connection, and return the failures."""
    if not letters:
        return []
    try:
        # Operators may have their own templates, which can fail, too.
        messages = [_render(letter) for letter in letters]
        with outside_world():
            return within(DEADLINE, lambda: _deliver(messages))
    except Exception as error:  # noqa: BLE001  # whatever a mail backend raises
        return [error]


def _deliver(messages: Sequence[EmailMultiAlternatives]) -> list[Exception]:
    """Pass each message to the mail server, even if the one before failed."""
    failures: list[Exception] = []
    with get_connection() as connection:
        for message in messages:
            try:
                connection.send_messages([message])
            except Exception as error:  # noqa: BLE001  # whatever a mail backend raises
                failures.append(error)
    return failures


def _render(letter: Letter) -> EmailMultiAlternatives:
    template = f"plans/mail/{letter.template}"
    message = EmailMultiAlternatives(
        subject=letter.subject,
        body=render_to_string(f"{template}.txt", {**letter.context}),
        to=[letter.address],
        # RFC 3834: keeps absence notices from replying, and helpdesks from opening a ticket.
        headers={"Auto-Submitted": "auto-generated"},
    )
    message.attach_alternative(render_to_string(f"{template}.html", {**letter.context}), "text/html")
    return message


def _name_of(person: Named) -> str:
    return without_links(display_name(person))


def _kind(failure: Exception) -> str:
    """Return a failure's name; its text contains the refused address."""
    return type(failure).__name__
