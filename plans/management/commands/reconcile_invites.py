"""Delete the tokens in Zammad that no open invite needs."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from plans.invite_tokens import reconcile_invites
from zammad.client import ZammadError


class Command(BaseCommand):
    help = (
        "Delete our tokens in Zammad whose invites are used, expired or were never written. "
        "Safe to repeat and to run from cron."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="Count, and delete nothing.")

    def handle(self, *_args: Any, **options: Any) -> None:
        try:
            done = reconcile_invites(dry_run=options["dry_run"])
        except ZammadError as error:
            raise CommandError(str(error)) from error
        verb = "Would delete" if options["dry_run"] else "Deleted"
        self.stdout.write(
            f"{verb} {done.deleted} tokens. Kept {done.needed} of open invites, {done.young} younger "
            f"than an hour, and {done.foreign} that are not ours."
        )
