"""What allauth's second factor needs of us: encrypted secrets, codes that count once, a way to reset."""

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

SECRETS = ("secret", "seed")  # what the data of an authenticator holds encrypted


def cipher() -> MultiFernet:
    """Encrypt with a key made of SECRET_KEY, and also decrypt with those of SECRET_KEY_FALLBACKS."""
    keys = [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]
    digests = [
        salted_hmac("config.second_factor", "", secret=key, algorithm="sha256").digest() for key in keys
    ]
    return MultiFernet([Fernet(base64.urlsafe_b64encode(digest)) for digest in digests])


class SecondFactorAdapter(DefaultMFAAdapter):
    """Keep secrets encrypted at rest."""

    def encrypt(self, text: str) -> str:
        return cipher().encrypt(text.encode()).decode()

    def decrypt(self, encrypted_text: str) -> str:
        """:raises ValidationError: when it was encrypted with a key that is gone."""
        try:
            return cipher().decrypt(encrypted_text.encode()).decode()
        except InvalidToken:
            logger.error("A second factor cannot be read: SECRET_KEY_FALLBACKS lacks the key of its time")
            message = _("Your second factor cannot be checked any more. Ask support to reset it.")
            raise ValidationError(message, code="second_factor_unreadable") from None


def validate_once(factor: totp.TOTP, code: str) -> bool:
    """Accept a code of an authenticator app that is of now and newer than the last one accepted.

    Under the lock of the row: allauth remembers used codes in the cache, which forgets, and which
    two processes may ask at the same moment.
    """
    with transaction.atomic():
        row = Authenticator.objects.select_for_update().filter(pk=factor.instance.pk).first()
        if row is None:
            return False
        secret = SecondFactorAdapter().decrypt(row.data["secret"])
        for counter in totp.yield_hotp_counters_from_time():
            expected = totp.format_hotp_value(totp.hotp_value(secret, counter))
            if counter > row.data.get("last_counter", 0) and compare_user_code(
                actual=code, expected=expected
            ):
                row.data["last_counter"] = counter
                row.save(update_fields=["data"])
                return True
    return False


totp.TOTP.validate_code = validate_once


def secret_to_set_up(regenerate: bool = False) -> str:
    """Return the secret of an app that is being set up; a session is a row, so it is encrypted there, too."""
    session = current.request.session
    if not regenerate and (kept := session.get(totp.SECRET_SESSION_KEY)):
        return SecondFactorAdapter().decrypt(kept)
    secret: str = totp.generate_totp_secret()
    session[totp.SECRET_SESSION_KEY] = SecondFactorAdapter().encrypt(secret)
    return secret


totp.get_totp_secret = secret_to_set_up


def remember_use(request: HttpRequest, user: User, authenticator: Authenticator, **_signal: Any) -> None:
    """Count setting an app up, which takes a code of it, as having used it in this session."""
    if authenticator.type == Authenticator.Type.TOTP:
        record_authentication(request, user, "mfa", id=authenticator.pk, type=authenticator.type)


def encrypt_anew() -> int:
    """Encrypt every secret with the SECRET_KEY of now, and return how many there were.

    :raises InvalidToken: when one cannot be read; those before it are done.
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
    """Remove a person's second factor, end their sessions, record it, and tell them.

    :returns: False when there was none; then nothing happened.
    """
    with transaction.atomic():
        removed, _by_model = Authenticator.objects.filter(user=person).delete()
        if not removed:
            return False
        # What was signed in with the lost factor ends with it.
        Session.objects.filter(user=person).delete()
        LogEntry.objects.create(
            # The history wants a name; a command has none.
            user_id=(actor or person).pk,
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
