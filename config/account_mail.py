"""The mails about accounts: how many a mailbox gets, and that they tell nobody who has an account.

A request without a sign-in is answered before the mail is sent, and after the same work whether there is
an account, the mail is over its limit, or the mail server is silent. A process that ends sends what it
has taken first; one that is killed loses it, and the person asks for another code.
"""

from __future__ import annotations

import datetime
import logging
import threading
import time
from concurrent.futures import Executor, ThreadPoolExecutor
from contextvars import copy_context
from types import SimpleNamespace
from typing import Any

from allauth.account import app_settings
from allauth.account.adapter import get_adapter
from allauth.account.internal.flows.email_verification_by_code import (
    EMAIL_VERIFICATION_CODE_SESSION_KEY,
    EmailVerificationProcess,
)
from allauth.account.internal.flows.password_reset_by_code import (
    PASSWORD_RESET_VERIFICATION_SESSION_KEY,
    PasswordResetVerificationProcess,
)
from allauth.account.internal.userkit import filter_users_by_email
from allauth.account.models import EmailAddress
from django.conf import settings
from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import AbstractBaseUser
from django.core.mail import EmailMessage
from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import gettext as _

from config.devices import device_of
from config.models import Attempt
from plans.outside import TooManyWaiting, outside_world, within
from plans.quotas import mailbox_of

logger = logging.getLogger(__name__)

DAY = datetime.timedelta(days=1)
# What somebody who is not signed in can cause, to one mailbox; a device of the account has as many again.
MAILS_PER_DAY = 10
# What a signed-in person can cause to addresses that they have not verified yet.
MAILS_PER_DAY_TO_OTHERS = 30
DEADLINE = 5.0  # seconds, for all that one mail asks of the mail server

# allauth writes it to addresses without an account: it is made, as every other, and never sent.
NEVER_SENT = "account/email/unknown_account"

MAY_WAIT = 200  # mails of one process
_waiting = threading.BoundedSemaphore(MAY_WAIT)
_postbox: Executor = ThreadPoolExecutor(max_workers=4, thread_name_prefix="account-mail")


class MailUnavailable(Exception):
    """A mail that a signed-in person asked for could not be handed over; asking again may help."""


# --- Sending --------------------------------------------------------------------------------------


def send(message: EmailMessage) -> bool:
    """Send a mail while the caller waits, and tell whether that worked; a failure is logged."""
    try:
        with outside_world():
            within(DEADLINE, message.send)
    except Exception as error:  # noqa: BLE001  # whatever a mail backend raises
        _log_failure(error)
        return False
    return True


def post(message: EmailMessage) -> None:
    """Send a mail after the answer, which does not wait for it."""
    if not _waiting.acquire(blocking=False):
        _log_failure(TooManyWaiting())
        return
    try:
        # What logs know of the request goes along.
        _postbox.submit(copy_context().run, _deliver, message)
    except RuntimeError as error:  # the process ends
        _waiting.release()
        _log_failure(error)


def _deliver(message: EmailMessage) -> None:
    try:
        within(DEADLINE, message.send)
    except Exception as error:  # noqa: BLE001  # whatever a mail backend raises
        _log_failure(error)
    finally:
        _waiting.release()


def _log_failure(error: Exception) -> None:
    # Only its kind: the text of an error holds the address that was refused.
    logger.warning("A mail about an account failed: %s", type(error).__name__)


# --- Notices: what was changed about an account ------------------------------------------------------


def our_site() -> SimpleNamespace:
    """Name us in allauth's mails; it would take the Host header of a request, which anybody chooses."""
    return SimpleNamespace(name=_("Family Plans"), domain=settings.PUBLIC_URL)


def send_notice(template_prefix: str, *, email: str, **context: Any) -> None:
    """Mail a notice, also where there is no request. A failure undoes nothing."""
    send(get_adapter().render_mail(template_prefix, email, {**context, "current_site": our_site()}))


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


# --- How many, and the same for everybody -----------------------------------------------------------


def may_mail(request: HttpRequest, address: str, user: AbstractBaseUser | None) -> bool:
    """Count a mail with a code, and tell whether it is still within its limit."""
    now = timezone.now()
    if request.user.is_authenticated:
        if EmailAddress.objects.filter(user=request.user, email=address, verified=True).exists():
            return True
        counted, limit = f"mail, asked for by account {request.user.pk}", MAILS_PER_DAY_TO_OTHERS
    else:
        counted, limit = f"mail, to {mailbox_of(address)}", MAILS_PER_DAY
        for owner in [user] if user else filter_users_by_email(address, prefer_verified=True):
            if device := device_of(request, owner):
                counted = f"mail, to account {owner.pk} for device {device}"
    return Attempt.objects.take_place(counted, limit=limit, window=DAY, now=now) is not None


def count_codes() -> None:
    """Let every code of allauth be mailed within the limits, and by the same work."""
    EmailVerificationProcess.generate_code = _generate_verification_code
    EmailVerificationProcess.send = _send_verification_code
    PasswordResetVerificationProcess.send = _send_reset_code


_allauths_verification = EmailVerificationProcess.send
_allauths_verification_code = EmailVerificationProcess.generate_code
_allauths_reset = PasswordResetVerificationProcess.send


def _generate_verification_code(process: Any) -> None:
    process.former = dict(process.request.session.get(EMAIL_VERIFICATION_CODE_SESSION_KEY) or {})
    _allauths_verification_code(process)


def _send_verification_code(process: Any, skip_enumeration_mails: bool = False) -> None:
    request = process.request
    allowed = may_mail(request, process.email, process.user)
    request.withholds_mail = not allowed
    if not process.user and not skip_enumeration_mails:
        make_password(process.email)  # as for the account that would have been made
    _allauths_verification(process, skip_enumeration_mails)
    if not process.user and skip_enumeration_mails:
        get_adapter().send_mail(NEVER_SENT, process.email, {})  # a code is asked for again
    if not allowed:
        _keep_former_code(process, process.former, app_settings.EMAIL_VERIFICATION_BY_CODE_TIMEOUT)


def _send_reset_code(process: Any) -> None:
    request = process.request
    former = dict(request.session.get(PASSWORD_RESET_VERIFICATION_SESSION_KEY) or {})
    allowed = may_mail(request, process.state["email"], process.user)
    request.withholds_mail = not allowed
    _allauths_reset(process)
    if not allowed:
        _keep_former_code(process, former, app_settings.PASSWORD_RESET_BY_CODE_TIMEOUT)


def _keep_former_code(process: Any, former: dict[str, Any], timeout: int) -> None:
    """Let a code that was mailed before count, with the attempts it has left; else let none count."""
    same = all(former.get(name) == process.state.get(name) for name in ("email", "user_id"))
    if same and time.time() - former["at"] <= timeout:
        kept = {name: former[name] for name in ("at", "code", "failed_attempts") if name in former}
        process.state.update(kept)
    else:
        process.state["code"] = ""
