"""Encrypt the secrets of second factors with the present SECRET_KEY, before its predecessor goes."""

from typing import Any

from cryptography.fernet import InvalidToken
from django.core.management.base import BaseCommand, CommandError

from config.second_factor import encrypt_anew


class Command(BaseCommand):
    help = (
        "Encrypt the secrets of all second factors with SECRET_KEY. Run it with the earlier key in "
        "SECRET_KEY_FALLBACKS, before you remove that. Safe to repeat."
    )

    def handle(self, *_args: Any, **_options: Any) -> None:
        try:
            done = encrypt_anew()
        except InvalidToken:
            raise CommandError(
                "A second factor was encrypted with a key that is in neither SECRET_KEY nor "
                "SECRET_KEY_FALLBACKS: add it, or reset that second factor."
            ) from None
        self.stdout.write(f"Encrypted {done} second factors and sets of recovery codes.")
