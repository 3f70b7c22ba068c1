"""The mails about plans: invitations, and who is told of joining, leaving and a new owner."""

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

DEADLINE = 5.0  # seconds, for all that one journey asks of the mail server

# After these nothing has arrived; after any other failure a mail may have.
NOTHING_ARRIVED = (
    TooManyWaiting,
    ConnectionRefusedError,
    socket.gaierror,
    smtplib.SMTPResponseException,
    smtplib.SMTPRecipientsRefused,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """A mail that is yet to be written: the template plans/mail/<template> says what it says.

    Its subject is fixed words: people choose their names, and a subject is read before anything else.
    """

    address: str
    subject: str
    template: str
    context: Mapping[str, object]


def mail_invitation(
    invite: FamilyPlanInvite, *, url: str, inviter: Named, now: datetime.datetime
) -> FamilyPlanInvite.MailStatus:
    """Mail an invite's link to its address, unless that was mailed enough; a failure is not raised."""
    place = InvitationMail.take_place(invite.email, now=now)
    if place is None:
        logger.info("The mail of invite %s was skipped: its address had enough of them.", invite.pk)
        return FamilyPlanInvite.MailStatus.SKIPPED
    failures = _send(
        Letter(
            address=invite.email,
            subject=_("You are invited to a family plan"),
            template="invitation",
            context={"inviter": _named(inviter), "url": url, "expires_at": invite.expires_at},
        )
    )
    for failure in failures:
        logger.warning("The mail of invite %s failed: %s", invite.pk, _kind(failure))
        if isinstance(failure, NOTHING_ARRIVED):
            place.delete()
    return FamilyPlanInvite.MailStatus.FAILED if failures else FamilyPlanInvite.MailStatus.SENT


def tell_of_joining(*, plan: LockedPlan, member: Participant, owner: Participant | None) -> None:
    """Tell a new member and the plan's owner."""
    _tell(
        plan,
        {"plan": without_links(plan.name), "member": _named(member.user)},
        (member, "joined_to_member", _("You joined a family plan")),
        (owner, "joined_to_owner", _("Somebody joined your family plan")),
    )


def tell_of_leaving(*, plan: LockedPlan, member: Participant, owner: Participant | None) -> None:
    """Tell a former member that the seat ended, and the plan's owner who left."""
    _tell(
        plan,
        {"plan": without_links(plan.name), "member": _named(member.user)},
        (member, "left_to_member", _("Your seat in a family plan has ended")),
        (owner, "left_to_owner", _("Somebody left your family plan")),
    )


def tell_of_transfer(*, plan: LockedPlan, owner: Participant, former_owner: Participant | None) -> None:
    """Tell both owners: whoever lost a plan against their will must learn of it."""
    _tell(
        plan,
        {"plan": without_links(plan.name), "owner": _named(owner.user)},
        (owner, "transferred_to_owner", _("You own a family plan now")),
        (former_owner, "transferred_to_former_owner", _("Your family plan has another owner")),
    )


def _tell(
    plan: LockedPlan, context: Mapping[str, object], *told: tuple[Participant | None, str, str]
) -> None:
    """Write to people by their primary address among those that they verified."""
    letters = [
        Letter(address=person.addresses[-1], subject=subject, template=template, context=context)
        for person, template, subject in told
        if person and person.user.is_active and person.addresses
    ]
    for failure in _send(*letters):
        logger.warning("A mail about plan %s failed: %s", plan.pk, _kind(failure))


def _send(*letters: Letter) -> list[Exception]:
    """Write and send letters over one connection, and list what failed."""
    if not letters:
        return []
    try:
        # An operator's own template may fail, too.
        messages = [_written(letter) for letter in letters]
        with outside_world():
            return within(DEADLINE, lambda: _handed_over(messages))
    except Exception as error:  # noqa: BLE001  # whatever a mail backend raises
        return [error]


def _handed_over(messages: Sequence[EmailMultiAlternatives]) -> list[Exception]:
    """Hand each message to the mail server, whatever became of the one before."""
    failures: list[Exception] = []
    with get_connection() as connection:
        for message in messages:
            try:
                connection.send_messages([message])
            except Exception as error:  # noqa: BLE001  # whatever a mail backend raises
                failures.append(error)
    return failures


def _written(letter: Letter) -> EmailMultiAlternatives:
    template = f"plans/mail/{letter.template}"
    message = EmailMultiAlternatives(
        subject=letter.subject,
        body=render_to_string(f"{template}.txt", {**letter.context}),
        to=[letter.address],
        # RFC 3834: nobody's absence notice answers, nor does a helpdesk open a ticket.
        headers={"Auto-Submitted": "auto-generated"},
    )
    message.attach_alternative(render_to_string(f"{template}.html", {**letter.context}), "text/html")
    return message


def _named(person: Named) -> str:
    return without_links(display_name(person))


def _kind(failure: Exception) -> str:
    """Tell a failure without its text, which holds the address that was refused."""
    return type(failure).__name__
