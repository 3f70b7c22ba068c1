"""Re-encrypt the secrets of second factors with the current SECRET_KEY, before the former key is removed."""

from typing import Any

from cryptography.fernet import InvalidToken
from django.core.management.base import BaseCommand, CommandError

from config.second_factor import reencrypt_secrets


class Command(BaseCommand):
    help = (
        "Re-encrypt the secrets of all second factors with SECRET_KEY. Run this before you remove the "
        "former key from SECRET_KEY_FALLBACKS. Safe to repeat."
    )

    def handle(self, *_args: Any, **_options: Any) -> None:
        try:
            done = reencrypt_secrets()
        except InvalidToken:
            raise CommandError(
                "A second factor was encrypted with a key that is neither in SECRET_KEY nor in "
                "SECRET_KEY_FALLBACKS. Add the key, or reset that second factor."
            ) from None
        self.stdout.write(f"Encrypted {done} second factors and sets of recovery codes.")
