"""Pull all users of Zammad: the first time, and to repair what webhooks lost."""

import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import Error as DatabaseFailure
from django.utils import timezone
from tqdm import tqdm

from zammad.client import ZammadError, get_patient_client
from zammad.services import ImportSummary, UsersNotListed, import_users


class Command(BaseCommand):
    help = "Import all users of Zammad, and link them to people. Safe to repeat and to run from cron."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--start-page", type=int, default=1, help="Go on where an import was cut.")
        parser.add_argument("--per-page", type=int, default=500, help="Users asked for at once (1 to 1000).")
        parser.add_argument("--dry-run", action="store_true", help="Count, and write nothing.")

    def handle(self, *args: Any, **options: Any) -> None:
        per_page = options["per_page"]
        if options["start_page"] < 1 or not 1 <= per_page <= 1000:
            raise CommandError("Pages start at 1 and hold 1 to 1000 users.")
        next_page = options["start_page"]
        on_terminal = self.stdout.isatty() and sys.stderr.isatty()

        with tqdm(unit=" users", disable=not on_terminal) as bar:

            def after_page(page: int, summary: ImportSummary) -> None:
                nonlocal next_page
                next_page = page + 1
                bar.update(summary.read - bar.n)
                if not on_terminal:
                    self.stdout.write(f"Page {page}: {summary}")
                    self.stdout.flush()

            try:
                summary = import_users(
                    client=get_patient_client(),
                    now=timezone.now(),
                    start_page=options["start_page"],
                    per_page=per_page,
                    dry_run=options["dry_run"],
                    after_page=after_page,
                )
            except UsersNotListed as error:
                raise CommandError(str(error)) from error
            except (ZammadError, DatabaseFailure, KeyboardInterrupt) as cut:
                # The text of a database's error may quote a user.
                told = str(cut) if isinstance(cut, ZammadError) else f"Cut short ({type(cut).__name__})."
                go_on = f"Go on with --start-page {next_page} --per-page {per_page}."
                raise CommandError(f"{told} {go_on}") from cut
        done = "Would import" if options["dry_run"] else "Imported"
        self.stdout.write(self.style.SUCCESS(f"{done}: {summary}."))
