"""Replace this process with the production server."""

import fcntl
import hashlib
import os
import socket
import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.staticfiles.finders import get_finders
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError

# Return large blocks to the system when they are freed. Otherwise, after the first large body, glibc keeps
# as much memory in each thread.
MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(1024 * 1024)}


class Command(BaseCommand):
    help = "Collect static files, migrate the database, and serve. The environment configures the server."

    def add_arguments(self, parser: ArgumentParser) -> None:
        text = "skip collecting static files and migrating the database"
        parser.add_argument("--prepared", action="store_true", help=text)

    def handle(self, *, prepared: bool, **_options: Any) -> None:
        if settings.DEBUG:
            raise CommandError("Set DEBUG=false to serve, or use `make run` for development.")
        workers = os.environ.get("WEB_CONCURRENCY") or str(os.cpu_count() or 1)
        if not workers.isdecimal() or workers == "0":
            raise CommandError("Set WEB_CONCURRENCY to the number of processes, or leave it unset.")
        refuse_taken_port("PORT", settings.HOST, settings.PORT)
        call_command("check", deploy=True)
        if not prepared:
            collect_static_files()
            call_command("migrate", interactive=False, verbosity=1)
        environment = {**os.environ, **MEMORY}
        if settings.METRICS_TOKEN:
            # In the environment, because prometheus_client reads it on import.
            environment["PROMETHEUS_MULTIPROC_DIR"] = str(empty_metrics_directory())
        os.chdir(settings.BASE_DIR)
        sys.stdout.flush()
        os.execve(sys.executable, [sys.executable, "-m", "config.server", workers], environment)  # noqa: S606


def collect_static_files() -> None:
    """Collect static files if they have changed, under a lock that other starting processes respect.

    Never without need: a file that is rewritten is missing for a moment, and other server processes need it.
    """
    files = sorted(
        (path, storage.get_modified_time(path).timestamp())
        for finder in get_finders()
        for path, storage in finder.list(None)
    )
    digest = hashlib.sha256(repr(files).encode()).hexdigest()
    settings.STATIC_ROOT.mkdir(parents=True, exist_ok=True)
    with (settings.STATIC_ROOT / ".collected").open("a+") as stamp:
        fcntl.flock(stamp, fcntl.LOCK_EX)
        stamp.seek(0)
        if stamp.read() == digest:
            return
        call_command("collectstatic", interactive=False, verbosity=0)
        stamp.truncate(0)
        stamp.write(digest)


def empty_metrics_directory() -> Path:
    """Create the directory in which workers share metrics, and delete those of an earlier start."""
    directory = Path(settings.METRICS_DIR)
    directory.mkdir(parents=True, exist_ok=True)
    for path in directory.glob("*.db"):
        path.unlink()
    return directory


def refuse_taken_port(name: str, host: str, port: int) -> None:
    """:raises CommandError: if something already listens there."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise CommandError(
                f"Cannot listen on {host}:{port} ({error.strerror}): set {name} to another port."
            ) from error
