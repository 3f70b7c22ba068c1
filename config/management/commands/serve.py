"""Start the production server, in place of this process."""

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

# What is large goes back to the system once it is freed. Else glibc learns from the first large body to
# keep such memory, for each thread.
MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(1024 * 1024)}


class Command(BaseCommand):
    help = "Collect static files, migrate the database, and serve. Configured by the environment."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--prepared",
            action="store_true",
            help="static files are collected and the database is migrated: serve at once",
        )

    def handle(self, *, prepared: bool, **_options: Any) -> None:
        if settings.DEBUG:
            raise CommandError("Set DEBUG=false to serve, or use `make run` for development.")
        workers = os.environ.get("WEB_CONCURRENCY") or str(os.cpu_count() or 1)
        if not workers.isdecimal() or workers == "0":
            raise CommandError("Set WEB_CONCURRENCY to the number of processes, or leave it out.")
        refuse_taken_port("PORT", settings.HOST, settings.PORT)
        call_command("check", deploy=True)
        if not prepared:
            collect_static_files()
            call_command("migrate", interactive=False, verbosity=1)
        environment = {**os.environ, **MEMORY}
        if settings.METRICS_TOKEN:
            # prometheus_client reads it as soon as it is imported, so each worker finds it.
            environment["PROMETHEUS_MULTIPROC_DIR"] = str(empty_directory_of_counts())
        os.chdir(settings.BASE_DIR)
        sys.stdout.flush()
        os.execve(sys.executable, [sys.executable, "-m", "config.server", workers], environment)  # noqa: S606


def collect_static_files() -> None:
    """Collect what is not collected yet, while no other process that starts does the same.

    Never without need: files that are written anew are missing for a moment, and a process of a
    server that runs beside, or starts just then, stumbles over that.
    """
    found = sorted(
        (path, storage.get_modified_time(path).timestamp())
        for finder in get_finders()
        for path, storage in finder.list(None)
    )
    digest = hashlib.sha256(repr(found).encode()).hexdigest()
    settings.STATIC_ROOT.mkdir(parents=True, exist_ok=True)
    with (settings.STATIC_ROOT / ".collected").open("a+") as stamp:
        fcntl.flock(stamp, fcntl.LOCK_EX)
        stamp.seek(0)
        if stamp.read() == digest:
            return
        call_command("collectstatic", interactive=False, verbosity=0)
        stamp.truncate(0)
        stamp.write(digest)


def empty_directory_of_counts() -> Path:
    """Make the directory in which workers share their counts, without those of an earlier start."""
    directory = Path(settings.METRICS_DIR)
    directory.mkdir(parents=True, exist_ok=True)
    for left_behind in directory.glob("*.db"):
        left_behind.unlink()
    return directory


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
