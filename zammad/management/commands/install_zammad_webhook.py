"""Install our webhook and its triggers in Zammad, or remove them."""

from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.urls import reverse

from zammad.client import ZammadError, get_patient_client
from zammad.installation import InstallationRefused, Outcome, concern_about_minting, uninstall
from zammad.management.installing import InstallationCommand


class Command(InstallationCommand):
    help = (
        "Create or repair the webhook and the triggers (ticket created, ticket updated) that send us users; "
        "safe to repeat. Needs a token with admin.webhook and admin.trigger."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--token-from-env",
            metavar="NAME",
            help="The environment variable with the token to install with. Default: ZAMMAD_API_TOKEN.",
        )
        parser.add_argument("--remove", action="store_true", help="Remove the triggers and the webhook.")
        parser.add_argument("--dry-run", action="store_true", help="Show the changes without making them.")

    def handle(self, *args: Any, **options: Any) -> None:
        client = self.client(options["token_from_env"])
        dry_run = options["dry_run"]
        if options["remove"]:
            steps = uninstall(client=client, name=options["name"], dry_run=dry_run)
        else:
            steps = self.installing(client, options, dry_run=dry_run)
        if dry_run:
            self.stdout.write("A dry run: this would be done.")
        changed = set_blindly = False
        try:
            for step in steps:
                self.stdout.write(str(step))
                for difference in step.differences:
                    self.stdout.write(f"  {difference.describe(repaired=not dry_run)}")
                changed |= step.outcome not in {Outcome.UNCHANGED, Outcome.ABSENT}
                set_blindly |= step.token_set_blindly
        except (InstallationRefused, ZammadError) as error:
            raise CommandError(str(error)) from error
        if not changed:
            self.stdout.write("Nothing else had to change." if set_blindly else "Nothing had to change.")
        if options["remove"]:
            return
        endpoint, path = self.endpoint(options), reverse("zammad-webhook")
        if not dry_run:
            self.stdout.write(self.style.SUCCESS(f"Zammad sends webhooks to {endpoint}"))
        if not endpoint.endswith(path):
            self.warn(f"The endpoint does not end in {path}, where they are received.")
        self._check_minting()

    def _check_minting(self) -> None:
        """Warn about the account that mints invite tokens, which may differ from the one that installs."""
        try:
            if concern := concern_about_minting(get_patient_client()):
                self.warn(concern)
        except ZammadError as error:
            self.warn(f"ZAMMAD_API_TOKEN could not be checked: {error}")
