"""Run the Zammad sandbox until it is interrupted."""

from threading import Event
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from zammad.sandbox import COUNTED_AFTER, PEOPLE, Sandbox


class Command(BaseCommand):
    help = "Run a stand-in for Zammad, for development. It loses all data when it ends."
    requires_system_checks: list[str] = []  # noqa: RUF012

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--host", default="127.0.0.1")
        parser.add_argument("--port", type=int, default=8001)
        parser.add_argument("--token", default="sandbox-api-token", help="The API token it accepts.")
        parser.add_argument("--webhook-endpoint", default="", help="The URL for its webhooks.")
        parser.add_argument("--webhook-secret", default="", help="The secret that signs its webhooks.")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            sandbox = Sandbox(
                host=options["host"],
                port=options["port"],
                token=options["token"],
                webhook_endpoint=options["webhook_endpoint"],
                webhook_secret=options["webhook_secret"],
                count_after=COUNTED_AFTER,
            )
        except OSError as error:
            raise CommandError(f"The sandbox cannot listen there: {error}") from error
        with sandbox:
            self.stdout.write(f"Zammad sandbox at {sandbox.url}")
            self.stdout.write(f"Users: {', '.join(email for email, *_ in PEOPLE)}")
            self.stdout.write(f"Webhooks go to: {options['webhook_endpoint'] or 'nowhere'}")
            self.stdout.write("POST /api/v1/tickets opens a ticket, which sends a webhook. Stop with Ctrl-C.")
            try:
                Event().wait()
            except KeyboardInterrupt:
                self.stdout.write("Stopped.")
