"""The base of the commands about our webhook and its triggers."""

import os
from collections.abc import Iterator
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.urls import reverse

from zammad.client import ZammadClient, get_patient_client
from zammad.installation import DEFAULT_NAME, Step, install


class InstallationCommand(BaseCommand):
    """A command about the webhook and triggers of one name."""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--endpoint", help="The URL for deliveries. Default: our own below PUBLIC_URL.")
        parser.add_argument(
            "--name",
            default=DEFAULT_NAME,
            help="The name in Zammad. Several installations with one Zammad need different names.",
        )

    def client(self, variable: str | None) -> ZammadClient:
        """Return a client with the token from an environment variable, or else from the settings."""
        if variable is None:
            return get_patient_client()
        if token := os.environ.get(variable, ""):
            return get_patient_client(token=token)
        raise CommandError(f"The environment variable {variable} is empty.")

    def endpoint(self, options: dict[str, Any]) -> str:
        return options["endpoint"] or f"{settings.PUBLIC_URL}{reverse('zammad-webhook')}"

    def installing(self, client: ZammadClient, options: dict[str, Any], *, dry_run: bool) -> Iterator[Step]:
        return install(
            client=client,
            name=options["name"],
            endpoint=self.endpoint(options),
            signature_token=next(filter(None, settings.ZAMMAD_WEBHOOK_SECRETS), ""),
            dry_run=dry_run,
        )

    def warn(self, text: str) -> None:
        self.stderr.write(self.style.WARNING(f"Warning: {text}"))
