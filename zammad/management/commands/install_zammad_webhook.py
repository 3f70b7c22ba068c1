"""Install our webhook and its triggers in Zammad, or remove them."""

import os
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.urls import reverse

from zammad.client import ZammadError, get_patient_client
from zammad.installation import (
    DEFAULT_NAME,
    InstallationRefused,
    Outcome,
    concern_about_minting,
    install,
    uninstall,
)


class Command(BaseCommand):
    help = (
        "Create or update the webhook and the triggers (ticket created, ticket updated) that tell us of "
        "users; safe to repeat. Needs a token with admin.webhook and admin.trigger."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--endpoint", help="Where Zammad reaches us. Default: our page below PUBLIC_URL.")
        parser.add_argument(
            "--token-from-env",
            metavar="NAME",
            help="The environment variable that holds the token to install with. Default: ZAMMAD_API_TOKEN.",
        )
        parser.add_argument(
            "--name",
            default=DEFAULT_NAME,
            help="What it is called in Zammad. Several installations at one Zammad need different ones.",
        )
        parser.add_argument("--remove", action="store_true", help="Remove the triggers and the webhook.")
        parser.add_argument(
            "--dry-run", action="store_true", help="Tell what would be done, and change nothing."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        client = get_patient_client(token=self._token(options["token_from_env"]))
        path = reverse("zammad-webhook")
        endpoint = options["endpoint"] or f"{settings.PUBLIC_URL}{path}"
        dry_run = options["dry_run"]
        if options["remove"]:
            steps = uninstall(client=client, name=options["name"], dry_run=dry_run)
        else:
            steps = install(
                client=client,
                name=options["name"],
                endpoint=endpoint,
                signature_token=next(filter(None, settings.ZAMMAD_WEBHOOK_SECRETS), ""),
                dry_run=dry_run,
            )
        if dry_run:
            self.stdout.write("A dry run: this would be done.")
        changed = set_blindly = False
        try:
            for step in steps:
                self.stdout.write(str(step))
                changed |= step.outcome not in {Outcome.UNCHANGED, Outcome.ABSENT}
                set_blindly |= step.token_set_blindly
        except (InstallationRefused, ZammadError) as error:
            raise CommandError(str(error)) from error
        if not changed:
            self.stdout.write("Nothing else had to change." if set_blindly else "Nothing had to change.")
        if options["remove"]:
            return
        if not dry_run:
            self.stdout.write(self.style.SUCCESS(f"Zammad sends webhooks to {endpoint}"))
        if not endpoint.endswith(path):
            self._warn(f"The endpoint does not end in {path}, where they are taken in.")
        self._judge_minting()

    def _token(self, variable: str | None) -> str:
        """:raises CommandError:"""
        if variable is None:
            return ""
        if token := os.environ.get(variable, ""):
            return token
        raise CommandError(f"The environment variable {variable} is empty.")

    def _judge_minting(self) -> None:
        """Warn of the account behind invites, which need not be the one that installs."""
        try:
            if concern := concern_about_minting(get_patient_client()):
                self._warn(concern)
        except ZammadError as error:
            self._warn(f"ZAMMAD_API_TOKEN could not be checked: {error}")

    def _warn(self, text: str) -> None:
        self.stderr.write(self.style.WARNING(f"Warning: {text}"))
