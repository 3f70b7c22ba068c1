"""Mails that tell people what was changed about their account: a failure is logged, and undoes nothing."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

from allauth.account.adapter import get_adapter
from allauth.account.models import EmailAddress
from django.conf import settings
from django.http import HttpRequest
from django.utils.translation import gettext as _

from plans.outside import TooManyWaiting, outside_world

logger = logging.getLogger(__name__)


def our_site() -> SimpleNamespace:
    """Name us in allauth's mails; it would take the Host header of a request, which anybody chooses."""
    return SimpleNamespace(name=_("Family Plans"), domain=settings.PUBLIC_URL)


def send_notice(template_prefix: str, *, email: str, **context: Any) -> None:
    """Mail a notice, also where there is no request."""
    message = get_adapter().render_mail(template_prefix, email, {**context, "current_site": our_site()})
    try:
        with outside_world():
            message.send()
    except (OSError, TooManyWaiting) as error:
        logger.warning("A mail about an account failed: %s", type(error).__name__)


def tell_of_verified_address(email_address: EmailAddress, **_signal: Any) -> None:
    """Tell the primary address that another one belongs to the account now."""
    primary = EmailAddress.objects.get_primary(email_address.user)
    if primary is not None and primary.verified and primary.pk != email_address.pk:
        send_notice("account/email/email_added", email=primary.email, added=email_address.email)


def tell_removed_address(request: HttpRequest, email_address: EmailAddress, **_signal: Any) -> None:
    """Tell the address that was removed; allauth itself tells the one that stays."""
    if email_address.verified:
        get_adapter().send_notification_mail(
            "account/email/email_deleted",
            request.user,
            {"deleted_email": email_address.email},
            email=email_address.email,
        )
