"""The mails about plans."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from django.core.mail import EmailMultiAlternatives
from django.template.loader import render_to_string
from django.utils.translation import gettext as _

from plans.outside import outside_world

if TYPE_CHECKING:
    from plans.models import FamilyPlanInvite

logger = logging.getLogger(__name__)


def mail_invitation(invite: FamilyPlanInvite, *, url: str, inviter: str) -> FamilyPlanInvite.MailStatus:
    """Mail an invite's link to its address; a failure is told, not raised: the invite stands."""
    context = {"invite": invite, "url": url, "inviter": inviter}
    message = EmailMultiAlternatives(
        # Fixed words: whoever invites chooses names, and a subject is read before anything else.
        subject=_("You are invited to a family plan"),
        body=render_to_string("plans/mail/invitation.txt", context),
        to=[invite.email],
    )
    message.attach_alternative(render_to_string("plans/mail/invitation.html", context), "text/html")
    try:
        with outside_world():
            message.send()
    except Exception as error:  # noqa: BLE001  # whatever a mail backend raises
        # Only its kind: the text of an error holds the address that was refused.
        logger.warning("The mail of invite %s failed: %s", invite.pk, type(error).__name__)
        return invite.MailStatus.FAILED
    return invite.MailStatus.SENT
