"""Pull all users of Zammad: the first time, and to repair what webhooks lost."""

import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone
from tqdm import tqdm

from zammad.client import ZammadError, get_client
from zammad.services import ImportSummary, import_users


class Command(BaseCommand):
    help = "Import all users of Zammad, and link them to people. Safe to repeat and to run from cron."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--start-page", type=int, default=1, help="Go on where an import was cut.")
        parser.add_argument("--per-page", type=int, default=500, help="Users asked for at once (1 to 1000).")
        parser.add_argument("--dry-run", action="store_true", help="Count, and write nothing.")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["start_page"] < 1 or not 1 <= options["per_page"] <= 1000:
            raise CommandError("Pages start at 1 and hold 1 to 1000 users.")
        next_page = options["start_page"]
        on_terminal = sys.stderr.isatty()

        with tqdm(unit=" users", disable=not on_terminal) as bar:

            def after_page(page: int, summary: ImportSummary) -> None:
                nonlocal next_page
                next_page = page + 1
                bar.update(summary.read - bar.n)
                if not on_terminal:
                    self.stdout.write(f"Page {page}: {summary}")

            try:
                summary = import_users(
                    client=get_client(),
                    now=timezone.now(),
                    start_page=options["start_page"],
                    per_page=options["per_page"],
                    dry_run=options["dry_run"],
                    after_page=after_page,
                )
            except ZammadError as error:
                raise CommandError(f"{error} Go on with --start-page {next_page}.") from error
        done = "Would import" if options["dry_run"] else "Imported"
        self.stdout.write(self.style.SUCCESS(f"{done}: {summary}."))
