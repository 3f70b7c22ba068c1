"""Mails about accounts: send them, limit them, and reveal to nobody whether an address has an account.

Signed-out requests are answered before the mail is sent, and after the same work whether or not there is
an account, the limit is reached or the mail server responds. A process that stops first sends its queue;
one that is killed loses it, and people request another code.
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
# To one mailbox, from all signed-out requests; a known device of the account has its own limit.
MAILS_PER_DAY = 10
# From one signed-in person, to addresses that they have not verified.
MAILS_PER_DAY_TO_OTHERS = 30
DEADLINE = 5.0  # seconds, for the whole delivery of a mail

# allauth's mail to addresses without an account: rendered like every other, but never sent.
NEVER_SENT = "account/email/unknown_account"

MAY_WAIT = 200  # mails in the queue of a process
_waiting = threading.BoundedSemaphore(MAY_WAIT)
_postbox: Executor = ThreadPoolExecutor(max_workers=4, thread_name_prefix="account-mail")


class MailUnavailable(Exception):
    """A mail that a signed-in person requested could not be sent; retry later."""


# --- Sending --------------------------------------------------------------------------------------


def send(message: EmailMessage) -> bool:
    """Send a mail while the caller waits, log failures, and return whether it was sent."""
    try:
        with outside_world():
            within(DEADLINE, message.send)
    except Exception as error:  # noqa: BLE001  # whatever a mail backend raises
        _log_failure(error)
        return False
    return True


def post(message: EmailMessage) -> None:
    """Send a mail in the background."""
    if not _waiting.acquire(blocking=False):
        _log_failure(TooManyWaiting())
        return
    try:
        # The context has the request id for the log.
        _postbox.submit(copy_context().run, _deliver, message)
    except RuntimeError as error:  # the process is stopping
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
    # Only the type: the text may contain the refused address.
    logger.warning("A mail about an account failed: %s", type(error).__name__)


# --- Notices about changes to an account ----------------------------------------------------------


def our_site() -> SimpleNamespace:
    """Name the site in allauth's mails, which would use the Host header, which a client can forge."""
    return SimpleNamespace(name=_("Family Plans"), domain=settings.PUBLIC_URL)


def send_notice(template_prefix: str, *, email: str, **context: Any) -> None:
    """Mail a notice, with or without a request. A failure does not undo the change."""
    send(get_adapter().render_mail(template_prefix, email, {**context, "current_site": our_site()}))


def notify_of_added_address(email_address: EmailAddress, **_signal: Any) -> None:
    """Notify the primary address that another one was added to the account."""
    primary = EmailAddress.objects.get_primary(email_address.user)
    if primary is not None and primary.verified and primary.pk != email_address.pk:
        send_notice("account/email/email_added", email=primary.email, added=email_address.email)


def notify_removed_address(request: HttpRequest, email_address: EmailAddress, **_signal: Any) -> None:
    """Notify the removed address; allauth notifies only the primary one."""
    if email_address.verified:
        get_adapter().send_notification_mail(
            "account/email/email_deleted",
            request.user,
            {"deleted_email": email_address.email},
            email=email_address.email,
        )


# --- Limits, and the same work for every address ----------------------------------------------------


def may_mail(request: HttpRequest, address: str, user: AbstractBaseUser | None) -> bool:
    """Count a mail with a code, and return whether it is within its limit."""
    now = timezone.now()
    if request.user.is_authenticated:
        if EmailAddress.objects.filter(user=request.user, email=address, verified=True).exists():
            return True
        counter, limit = f"mail, asked for by account {request.user.pk}", MAILS_PER_DAY_TO_OTHERS
    else:
        counter, limit = f"mail, to {mailbox_of(address)}", MAILS_PER_DAY
        for owner in [user] if user else filter_users_by_email(address, prefer_verified=True):
            if device := device_of(request, owner):
                counter = f"mail, to account {owner.pk} for device {device}"
    return Attempt.objects.take_place(counter, limit=limit, window=DAY, now=now) is not None


def limit_codes() -> None:
    """Have allauth mail codes within the limits, and with the same work for every address."""
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
        make_password(process.email)  # as if the account were created
    _allauths_verification(process, skip_enumeration_mails)
    if not process.user and skip_enumeration_mails:
        get_adapter().send_mail(NEVER_SENT, process.email, {})  # another code was requested
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
    """Keep the last mailed code valid, with its remaining attempts; if there is none, accept no code."""
    same = all(former.get(name) == process.state.get(name) for name in ("email", "user_id"))
    if same and time.time() - former["at"] <= timeout:
        names = ("at", "code", "failed_attempts")
        process.state.update({name: former[name] for name in names if name in former})
    else:
        process.state["code"] = ""
