"""Start the production server, in place of this process."""

import fcntl
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError


class Command(BaseCommand):
    help = "Collect static files, migrate the database, and serve. Configured by the environment."

    def handle(self, **_options: Any) -> None:
        if settings.DEBUG:
            raise CommandError("Set DEBUG=false to serve, or use `make run` for development.")
        workers = os.environ.get("WEB_CONCURRENCY") or str(os.cpu_count() or 1)
        if not workers.isdecimal() or workers == "0":
            raise CommandError("Set WEB_CONCURRENCY to the number of processes, or leave it out.")
        refuse_taken_port("PORT", settings.HOST, settings.PORT)
        call_command("check", deploy=True)
        with alone(settings.STATIC_ROOT):
            call_command("collectstatic", interactive=False, verbosity=0)
        call_command("migrate", interactive=False, verbosity=1)
        granian = str(Path(sys.executable).with_name("granian"))
        sys.stdout.flush()
        os.execv(  # noqa: S606
            granian,
            [
                granian,
                "--interface=wsgi",
                "--no-ws",
                f"--host={settings.HOST}",
                f"--port={settings.PORT}",
                f"--workers={workers}",
                f"--blocking-threads={settings.WEB_THREADS}",
                "--respawn-failed-workers",
                "--workers-kill-timeout=15",
                "config.wsgi:application",
            ],
        )


@contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Wait until no other process that starts works in a directory: each would delete the other's files."""
    directory.mkdir(exist_ok=True)
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def refuse_taken_port(name: str, host: str, port: int) -> None:
    """:raises CommandError: when something listens there already."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise CommandError(
                f"Cannot listen on {host}:{port} ({error.strerror}): set {name} to another port."
            ) from error
