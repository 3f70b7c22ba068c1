"""Compare the service with what you would pick instead: `make bench`, or `python -m tests.benchmarks`."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import psycopg

from tests.benchmarks import (
    admin,
    documents,
    import_users,
    mutations,
    plan_query,
    scale,
    server,
    soak,
    webhook,
)
from tests.benchmarks.bench import Bench
from tests.benchmarks.load import BadAnswers
from tests.server import on_server

BENCHMARKS: dict[str, Callable[[Bench], str]] = {
    "plan-query": plan_query.run,
    "webhook": webhook.run,
    "mutations": mutations.run,
    "server": server.run,
    "documents": documents.run,
    "import": import_users.run,
    "scale": scale.run,
    "admin": admin.run,
    "soak": soak.run,
}
# Benchmarks that take minutes run only if you name them, such as `soak --seconds 600`.
WHEN_NAMED = ("scale", "admin", "soak")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument(
        "benchmarks",
        nargs="*",
        metavar="BENCHMARK",
        help=f"{', '.join(BENCHMARKS)}; unnamed, all but {', '.join(WHEN_NAMED)}, which take minutes",
    )
    server = os.environ.get("TEST_DATABASE_URL") or "postgres://postgres@127.0.0.1:5432"
    parser.add_argument(
        "--server", default=server, help="a PostgreSQL where databases can be made (%(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured (%(default)s)")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long each time (%(default)s)")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="of a server (%(default)s)")
    parser.add_argument("--threads", type=int, default=4, help="of each process (%(default)s)")
    parser.add_argument("--plans", type=int, default=1000, help="in the database (%(default)s)")
    parser.add_argument(
        "--large", type=int, default=1_000_000, help="plans in the database of scale and admin (%(default)s)"
    )
    parser.add_argument(
        "--in-process", action="store_true", help="measure CPU time in one process, without a server"
    )
    parser.add_argument(
        "--keep", action="store_true", help="keep the databases, and use what an earlier run kept"
    )
    chosen = parser.parse_args()
    if unknown := set(chosen.benchmarks) - set(BENCHMARKS):
        parser.error(f"There is no {', '.join(unknown)}: choose of {', '.join(BENCHMARKS)}.")
    return chosen


def machine(server: str) -> str:
    """Print what this runs on, and refuse to run if something is missing."""
    if shutil.which("wrk") is None:
        sys.exit("wrk is missing, which makes the load. On Debian: apt install wrk")
    try:
        with psycopg.connect(on_server(server, "postgres"), connect_timeout=5) as connection:
            version = connection.info.parameter_status("server_version")
    except psycopg.OperationalError as error:
        sys.exit(
            f"No PostgreSQL answers at {server}: name one with --server. "
            f"On Debian: apt install postgresql\n{error}"
        )
    return f"{os.cpu_count()} cores, Python {platform.python_version()}, PostgreSQL {version}"


def main() -> None:
    chosen = vars(arguments())
    names = chosen.pop("benchmarks") or [name for name in BENCHMARKS if name not in WHEN_NAMED]
    ran_on = machine(chosen["server"])
    # As an exception it stops what was started; otherwise servers and databases would be left behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("Stopped."))
    for name in names:
        with tempfile.TemporaryDirectory(prefix="family-plans-bench-") as directory:
            try:
                print(BENCHMARKS[name](Bench(directory=Path(directory), **chosen)), flush=True)
            except BadAnswers as error:
                sys.exit(f"{name}: {error}")
    where = "in one process" if chosen["in_process"] else f"{chosen['processes']} processes"
    print(f"\n{ran_on}, {where}")


if __name__ == "__main__":
    main()
