"""Import users from Zammad: all of them at first, later those whose webhooks were lost or never sent."""

import re
from argparse import ArgumentTypeError
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import Error as DatabaseFailure
from django.utils import timezone

from zammad.client import ZammadError, get_patient_client
from zammad.services import ImportImpossible, ImportSummary, import_users

UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}


def window(text: str) -> timedelta:
    """Parse a time such as 90m, 1h or 7d."""
    match = re.fullmatch(r"([0-9]{1,5})([mhd])", text, re.ASCII)
    time = int(match[1]) * UNITS[match[2]] if match else timedelta(0)
    if not timedelta(minutes=1) <= time <= timedelta(days=30):
        raise ArgumentTypeError("give a whole number with m, h or d: 1m to 30d")
    return time


class Command(BaseCommand):
    help = "Import users from Zammad, and link them to people. Safe to repeat and to run from cron."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--start-page", type=int, default=1, help="Continue an interrupted import.")
        parser.add_argument("--per-page", type=int, default=500, help="Users per request (1 to 1000).")
        parser.add_argument(
            "--changed-within",
            type=window,
            metavar="TIME",
            help="Only users changed in this time, such as 1h: a whole number with m, h or d (1m to 30d).",
        )
        parser.add_argument("--dry-run", action="store_true", help="Count, and write nothing.")

    def handle(self, *args: Any, **options: Any) -> None:
        per_page = options["per_page"]
        if options["start_page"] < 1 or not 1 <= per_page <= 1000:
            raise CommandError("Pages start at 1 and hold 1 to 1000 users.")
        changed_within = options["changed_within"]
        if changed_within and options["start_page"] != 1:
            raise CommandError("--start-page is for the whole import: --changed-within starts at page 1.")
        next_page = options["start_page"]

        def after_page(page: int, summary: ImportSummary) -> None:
            nonlocal next_page
            next_page = page + 1
            self.stdout.write(f"Page {page}: {summary}")
            self.stdout.flush()

        try:
            summary = import_users(
                client=get_patient_client(),
                now=timezone.now(),
                start_page=options["start_page"],
                per_page=per_page,
                changed_within=changed_within,
                dry_run=options["dry_run"],
                after_page=after_page,
            )
        except ImportImpossible as error:
            raise CommandError(str(error)) from error
        except (ZammadError, DatabaseFailure, KeyboardInterrupt) as cut:
            # The message of a database error may quote a user.
            problem = str(cut) if isinstance(cut, ZammadError) else f"Cut short ({type(cut).__name__})."
            go_on = (
                "Run it again; what was read is stored."
                if changed_within
                else f"Go on with --start-page {next_page} --per-page {per_page}."
            )
            raise CommandError(f"{problem} {go_on}") from cut
        done = "Would import" if options["dry_run"] else "Imported"
        if changed_within:
            done = f"{summary.read} read, {summary.changed} changed. {done}"
        self.stdout.write(self.style.SUCCESS(f"{done}: {summary}."))
