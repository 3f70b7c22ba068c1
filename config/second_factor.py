"""Additions to allauth's second factor: encrypted secrets, codes that are accepted once, and a reset."""

from __future__ import annotations

import base64
import logging
from typing import Any

from allauth.account.internal.flows.login import record_authentication
from allauth.account.models import EmailAddress
from allauth.core import context as current
from allauth.core.internal.cryptokit import compare_user_code
from allauth.mfa.adapter import DefaultMFAAdapter
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal import auth as totp
from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import User
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import ValidationError
from django.db import transaction
from django.http import HttpRequest
from django.utils.crypto import salted_hmac
from django.utils.translation import gettext as _

from config.account_mail import send_notice
from config.models import Session

logger = logging.getLogger(__name__)

SECRETS = ("secret", "seed")  # the encrypted values in an authenticator's data


def cipher() -> MultiFernet:
    """Encrypt with a key derived from SECRET_KEY; decrypt with those of SECRET_KEY_FALLBACKS, too."""
    keys = [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]
    digests = [
        salted_hmac("config.second_factor", "", secret=key, algorithm="sha256").digest() for key in keys
    ]
    return MultiFernet([Fernet(base64.urlsafe_b64encode(digest)) for digest in digests])


class SecondFactorAdapter(DefaultMFAAdapter):
    def encrypt(self, text: str) -> str:
        return cipher().encrypt(text.encode()).decode()

    def decrypt(self, encrypted_text: str) -> str:
        """:raises ValidationError: if the key is no longer configured."""
        try:
            return cipher().decrypt(encrypted_text.encode()).decode()
        except InvalidToken:
            logger.error("A second factor cannot be decrypted: SECRET_KEY_FALLBACKS lacks its key")
            message = _("Your second factor can no longer be checked. Ask support to reset it.")
            raise ValidationError(message, code="second_factor_unreadable") from None


def validate_once(factor: totp.TOTP, code: str) -> bool:
    """Accept a current code of an authenticator app if it is newer than the last accepted one.

    Lock the row: allauth records used codes in the cache, which drops entries and has no lock.
    """
    with transaction.atomic():
        row = Authenticator.objects.select_for_update().filter(pk=factor.instance.pk).first()
        if row is None:
            return False
        secret = SecondFactorAdapter().decrypt(row.data["secret"])
        for counter in totp.yield_hotp_counters_from_time():
            expected = totp.format_hotp_value(totp.hotp_value(secret, counter))
            is_newer = counter > row.data.get("last_counter", 0)
            if is_newer and compare_user_code(actual=code, expected=expected):
                row.data["last_counter"] = counter
                row.save(update_fields=["data"])
                return True
    return False


totp.TOTP.validate_code = validate_once


def secret_to_set_up(regenerate: bool = False) -> str:
    """Return the secret of an app that is being set up, which the session keeps encrypted."""
    session = current.request.session
    if not regenerate and (encrypted := session.get(totp.SECRET_SESSION_KEY)):
        return SecondFactorAdapter().decrypt(encrypted)
    secret: str = totp.generate_totp_secret()
    session[totp.SECRET_SESSION_KEY] = SecondFactorAdapter().encrypt(secret)
    return secret


totp.get_totp_secret = secret_to_set_up


def remember_use(request: HttpRequest, user: User, authenticator: Authenticator, **_signal: Any) -> None:
    """Record an app as used in this session when it is set up, which requires one of its codes."""
    if authenticator.type == Authenticator.Type.TOTP:
        record_authentication(request, user, "mfa", id=authenticator.pk, type=authenticator.type)


def reencrypt_secrets() -> int:
    """Re-encrypt every secret with the current SECRET_KEY, and return the number of authenticators.

    :raises InvalidToken: if one cannot be decrypted; those before it are done.
    """
    done = 0
    for pk in list(Authenticator.objects.order_by("pk").values_list("pk", flat=True)):
        with transaction.atomic():
            row = Authenticator.objects.select_for_update().filter(pk=pk).first()
            if row is None:
                continue
            for name in SECRETS:
                if name in row.data:
                    row.data[name] = cipher().rotate(row.data[name].encode()).decode()
            row.save(update_fields=["data"])
            done += 1
    return done


def reset_second_factor(*, person: User, actor: User | None) -> bool:
    """Remove a person's second factor, end their sessions, record it, and notify them.

    :returns: False if there was none; then nothing is changed.
    """
    with transaction.atomic():
        removed, _by_model = Authenticator.objects.filter(user=person).delete()
        if not removed:
            return False
        # Also those that were signed in with the lost factor.
        Session.objects.filter(user=person).delete()
        LogEntry.objects.create(
            user_id=(actor or person).pk,  # required, but a command has no user
            content_type=ContentType.objects.get_for_model(User),
            object_id=str(person.pk),
            object_repr=str(person)[:200],
            action_flag=CHANGE,
            change_message="Second factor reset."
            if actor
            else "Second factor reset by the command reset_second_factor.",
        )
    address = EmailAddress.objects.get_primary_email(person) or person.email
    send_notice("account/email/second_factor_reset", person=person, email=address)
    return True
