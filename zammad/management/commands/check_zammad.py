"""Check the rights of our token and its owner in Zammad, and the setup of the webhook."""

from typing import Any, Final

from django.conf import settings
from django.core.management.base import CommandError, CommandParser
from django.db import Error as DatabaseFailure
from django.utils.timesince import timesince

from zammad.client import ZammadError, get_patient_client
from zammad.installation import InstallationRefused, Outcome, Step, concern_about_minting
from zammad.management.installing import InstallationCommand
from zammad.models import WebhookDelivery

# Zammad cuts an article at 1,500,000 characters, which take at most about 9 MB in JSON.
LONGEST_DELIVERY: Final = 10 * 1024 * 1024


class Command(InstallationCommand):
    help = (
        "Check that ZAMMAD_API_TOKEN can mint invite tokens and list users and, with --token-from-env, that "
        "the webhook and its triggers are as install_zammad_webhook makes them. Changes nothing."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--token-from-env",
            metavar="NAME",
            help="Check the webhook and its triggers with the token in this environment variable. It needs "
            "admin.webhook and admin.trigger.",
        )
        parser.add_argument("--strict", action="store_true", help="Exit 1 after a warning, too.")

    def handle(self, *args: Any, **options: Any) -> None:
        self._warnings = 0
        try:
            self._check_token()
            self._check_longest_delivery()
            self._report_last_delivery()
            if options["token_from_env"] is not None:
                self._check_installation(options)
        except (InstallationRefused, ZammadError) as error:
            raise CommandError(str(error)) from error
        if options["strict"] and self._warnings:
            raise CommandError(f"Warnings: {self._warnings}. Each is a failure with --strict.")

    def _check_token(self) -> None:
        client = get_patient_client()
        try:
            client.me()
            self.stdout.write("Zammad knows the token.")
            concern = concern_about_minting(client)
            self.stdout.write("It may make invite tokens.")
            lists_users = client.can_list_users()
        except ZammadError as error:
            needed = " Does the token have user_preferences.access_token?" if error.status == 403 else ""
            raise CommandError(f"{error}{needed}") from error
        if lists_users:
            self.stdout.write("It may list users, as import_zammad_users does.")
        else:
            self.warn("The token may not list users: import_zammad_users needs ticket.agent.")
        if concern:
            self.warn(concern)

    def _check_longest_delivery(self) -> None:
        cap = settings.ZAMMAD_WEBHOOK_MAX_BYTES
        if cap < LONGEST_DELIVERY:
            self.warn(
                f"ZAMMAD_WEBHOOK_MAX_BYTES is {cap}. Deliveries of Zammad reach about 9 MB, and those longer "
                f"than this are refused, and lost: set it to {LONGEST_DELIVERY} at least."
            )

    def _report_last_delivery(self) -> None:
        try:
            last = WebhookDelivery.objects.last_received_at()
        except DatabaseFailure as error:
            raise CommandError(f"The database does not answer ({type(error).__name__}).") from error
        if last is None:
            self.stdout.write("No delivery has come yet.")
        else:
            ago = timesince(last, depth=1).replace("\xa0", " ")
            self.stdout.write(f"The last authentic delivery came {ago} ago, at {last:%Y-%m-%d %H:%M:%S} UTC.")

    def _check_installation(self, options: dict[str, Any]) -> None:
        """Compare the webhook and its triggers with what would be installed."""
        client = self.client(options["token_from_env"])
        for step in self.installing(client, options, dry_run=True):
            self._report(step)

    def _report(self, step: Step) -> None:
        if step.outcome is Outcome.CREATED:
            self.warn(f"{step.title} is not there: run install_zammad_webhook.")
        elif not step.differences:
            self.stdout.write(f"{step.title} is as install_zammad_webhook makes it.")
        for difference in step.differences:
            self.warn(f"{step.title}: {difference.describe(repaired=False)}")
        if step.token_set_blindly:
            self.stdout.write(f"{step.title}: Zammad masks its signature_token, which is not comparable.")

    def warn(self, text: str) -> None:
        self._warnings += 1
        super().warn(text)
