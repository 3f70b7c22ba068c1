"""Start everything that development needs in one process: database, demo data, sandbox, server."""

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

{accounts}Ctrl-C stops everything.
"""
ACCOUNTS = """Sign in with the password demo-password as

  admin@example.com    superuser
  alice@example.com    owner of a plan
  bob@example.com      member of alice's plan
  carol@example.com    in no plan

Webhooks are signed with demo-webhook-secret, unless ZAMMAD_WEBHOOK_SECRETS says otherwise.

To try it, ask for a session token:

  curl -s {url}/_allauth/app/v1/auth/login \\
    -H 'Content-Type: application/json' \\
    -d '{{"email": "alice@example.com", "password": "demo-password"}}'

"""

asked_to_stop = threading.Event()


class Command(BaseCommand):
    help = "Migrate, make demo data, start the Zammad sandbox unless ZAMMAD_URL is set, and serve."
    # One process, so that nothing can be left running: the sandbox is a thread.

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--while-exists",
            metavar="FILE",
            type=Path,
            help="write this file, and stop when it is gone",
        )

    def handle(self, *, while_exists: Path | None, **_options: Any) -> None:
        if not settings.DEBUG:
            raise CommandError("This is for development: with DEBUG=false, use `make serve`.")
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
                "Make an account with manage.py create_admin."
            )
        else:
            call_command("demo_data", stdout=self.stdout)

        url = settings.PUBLIC_URL
        if settings.USES_SANDBOX:
            # It listens before we do, so that /healthz speaks for both.
            stack.enter_context(
                Sandbox(
                    port=settings.SANDBOX_PORT,
                    token=settings.ZAMMAD_API_TOKEN,
                    webhook_endpoint=f"{url}/webhooks/zammad/",
                    webhook_secret=next(iter(settings.ZAMMAD_WEBHOOK_SECRETS), ""),
                    count_after=COUNTED_AFTER,
                )
            )
        is_what = "a stand-in for Zammad" if settings.USES_SANDBOX else "Zammad"
        zammad = f"{settings.ZAMMAD_URL}/    {is_what}"
        self.stdout.write(
            BANNER.format(url=url, zammad=zammad, accounts="" if listens_widely else ACCOUNTS.format(url=url))
        )
        self.stdout.flush()  # also into a file
        # The production server in one process, so that its edges are met in development, too.
        application = Application(
            get_wsgi_application(), threads=settings.WEB_THREADS, room=Room([0] * Room.NUMBERS, 0)
        )
        opened = listening(settings.HOST, settings.PORT)
        if not asked_to_stop.is_set():  # as when a callback ran, in which Python drops what is raised
            serve(application, opened, stop_seconds=1)


def interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    asked_to_stop.set()
    raise KeyboardInterrupt


def stop_when_gone(path: Path) -> None:
    """Stop this process once make has deleted the file, or make itself is gone."""
    parent = os.getppid()

    def watch() -> None:
        while path.exists() and os.getppid() == parent:
            time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def refuse_demo_accounts() -> None:
    """:raises CommandError: when somebody could sign in with the demo's public password."""
    for user in User.objects.filter(email__in=demo_data.PEOPLE, is_active=True):
        if user.check_password(demo_data.PASSWORD):
            raise CommandError(
                f"HOST={settings.HOST} is open to others, and this database has demo accounts, whose "
                "password is public. Choose another DATABASE_URL, or delete them."
            )
