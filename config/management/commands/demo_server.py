"""Start everything for development in one process: database, demo data, sandbox and server."""

import os
import signal
import threading
import time
from argparse import ArgumentParser
from contextlib import ExitStack, suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from django.conf import settings
from django.contrib.auth.models import User
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.core.wsgi import get_wsgi_application

from config.body_reader import Room
from config.management.commands.serve import refuse_taken_port
from config.server import listening, serve
from config.serving import Application
from plans.management.commands import demo_data
from zammad.sandbox import COUNTED_AFTER, Sandbox

BANNER = """
Family Plans is at {url}/

  {url}/graphql/                   GraphiQL, to explore the API
  {url}/admin/                     administration
  {url}/admin/plans/config/        limits and invitation settings
  {zammad}

{accounts}Press Ctrl-C to stop everything.
"""
ACCOUNTS = """Sign in with the password demo-password as

  admin@example.com    superuser
  alice@example.com    owner of a plan
  bob@example.com      member of alice's plan
  carol@example.com    in no plan

Webhooks are signed with demo-webhook-secret, unless ZAMMAD_WEBHOOK_SECRETS says otherwise.

To try the API, request a session token:

  curl -s {url}/_allauth/app/v1/auth/login \\
    -H 'Content-Type: application/json' \\
    -d '{{"email": "alice@example.com", "password": "demo-password"}}'

"""

stop_requested = threading.Event()


class Command(BaseCommand):
    help = "Migrate, create demo data, start the Zammad sandbox unless ZAMMAD_URL is set, and serve."
    # A single process leaves nothing running: the sandbox is a thread.

    def add_arguments(self, parser: ArgumentParser) -> None:
        text = "create this file, and stop when it is deleted"
        parser.add_argument("--while-exists", metavar="FILE", type=Path, help=text)

    def handle(self, *, while_exists: Path | None, **_options: Any) -> None:
        if not settings.DEBUG:
            raise CommandError("This command is for development. With DEBUG=false, use `make serve`.")
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, interrupt)
        with ExitStack() as stack, suppress(KeyboardInterrupt):
            stack.callback(self.stdout.write, "Stopped.")
            if while_exists:
                while_exists.write_text(f"{os.getpid()}\n")
                stack.callback(while_exists.unlink, missing_ok=True)
                stop_when_gone(while_exists)
            self.start(stack)

    def start(self, stack: ExitStack) -> None:
        listens_widely = settings.HOST not in settings.LOOPBACK
        refuse_taken_port("PORT", settings.HOST, settings.PORT)
        if settings.USES_SANDBOX:
            refuse_taken_port("SANDBOX_PORT", "127.0.0.1", settings.SANDBOX_PORT)

        call_command("migrate", interactive=False, verbosity=0)
        if listens_widely:
            refuse_demo_accounts()
            self.stdout.write(
                f"No demo data: HOST={settings.HOST} is open to others, and the demo's password is public. "
                "Create an account with manage.py create_admin."
            )
        else:
            call_command("demo_data", stdout=self.stdout)

        url = settings.PUBLIC_URL
        if settings.USES_SANDBOX:
            # The sandbox listens first, so that /healthz means that both are up.
            stack.enter_context(
                Sandbox(
                    port=settings.SANDBOX_PORT,
                    token=settings.ZAMMAD_API_TOKEN,
                    webhook_endpoint=f"{url}/webhooks/zammad/",
                    webhook_secret=next(iter(settings.ZAMMAD_WEBHOOK_SECRETS), ""),
                    count_after=COUNTED_AFTER,
                )
            )
        kind = "the Zammad sandbox" if settings.USES_SANDBOX else "Zammad"
        accounts = "" if listens_widely else ACCOUNTS.format(url=url)
        self.stdout.write(
            BANNER.format(url=url, zammad=f"{settings.ZAMMAD_URL}/    {kind}", accounts=accounts)
        )
        self.stdout.flush()  # also into a file
        # The production server in one process, so that development meets the same limits.
        application = Application(get_wsgi_application(), room=Room([0] * Room.NUMBERS, 0))
        listener = listening(settings.HOST, settings.PORT)
        if not stop_requested.is_set():  # Python drops an interrupt that is raised within a callback
            serve(application, listener, stop_seconds=1)


def interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    stop_requested.set()
    raise KeyboardInterrupt


def stop_when_gone(path: Path) -> None:
    """Stop this process once make has deleted the file, or make itself has ended."""
    parent = os.getppid()

    def watch() -> None:
        while path.exists() and os.getppid() == parent:
            time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def refuse_demo_accounts() -> None:
    """:raises CommandError: if someone could sign in with the demo's public password."""
    for user in User.objects.filter(email__in=demo_data.PEOPLE, is_active=True):
        if user.check_password(demo_data.PASSWORD):
            raise CommandError(
                f"HOST={settings.HOST} is open to others, and this database has demo accounts whose "
                "password is public. Use another DATABASE_URL, or delete the accounts."
            )
