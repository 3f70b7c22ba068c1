"""Delete old deliveries, refusals and addresses in invites, and abandoned sign-ups."""

import datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from plans.retention import prune

MAX_DAYS = 36_500


class Command(BaseCommand):
    help = (
        "Delete receipts of webhook deliveries and counts of refusals, and blank the addresses in used "
        "and expired invites, that are older than some days. Also delete accounts that signed up more "
        "than a week ago, were never verified and hold nothing. Safe to repeat and to run from cron."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--older-than", type=int, required=True, metavar="DAYS")
        parser.add_argument("--dry-run", action="store_true", help="Count, and change nothing.")

    def handle(self, *_args: Any, **options: Any) -> None:
        days = options["older_than"]
        # Not 0: the events of the last day count towards rate limits.
        if not 1 <= days <= MAX_DAYS:
            raise CommandError(f"--older-than takes 1 to {MAX_DAYS} days.")
        dry_run = options["dry_run"]
        done = prune(older_than=datetime.timedelta(days=days), dry_run=dry_run)
        delete, blank = ("Would delete", "would blank") if dry_run else ("Deleted", "blanked")
        self.stdout.write(
            f"{delete} {done.deliveries} deliveries and {done.refusals} counts of refusals, "
            f"and {blank} the addresses of {done.addresses} invites. "
            f"{delete} {done.accounts} accounts that were never verified."
        )
