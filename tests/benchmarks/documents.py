"""How long hostile documents occupy a processor until they are refused or accepted: first and repeated."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import time
from collections.abc import Callable

from tests.benchmarks.bench import SECRET_KEY, Bench
from tests.hostile import HOSTILE
from tests.server import BASE_DIR

AT_MOST = 0.050  # seconds of CPU, on an idle machine


def run(bench: Bench) -> str:
    """Check each document in a process of its own, with empty caches."""
    environment = {
        "PATH": os.environ["PATH"],
        "ENV_FILE": "",
        "DEBUG": "true",
        "SECRET_KEY": SECRET_KEY,
        "DJANGO_SETTINGS_MODULE": "config.settings",
    }
    return subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.documents"],
        cwd=BASE_DIR,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout


def cpu_of(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def main() -> None:
    import django

    django.setup()
    from graphql import GraphQLError, specified_rules

    from graphql_api.limits import read
    from graphql_api.schema import schema

    def decide(text: str) -> None:
        try:
            document = read(text, schema._schema, 1000)
            if not (document.over_limit() or document.laborious()):
                document.validate(tuple(specified_rules))
        except GraphQLError:
            pass

    decide("{ viewer { id } }")
    # A full collection walks all of Django, and would fall on a random document.
    gc.collect()
    gc.freeze()
    print("| document | ms of CPU | again |\n|---|---|---|")
    slow = []
    for name, text in HOSTILE.items():
        first, again = (cpu_of(lambda text=text: decide(text)) for _ in range(2))  # type: ignore[misc]
        print(f"| {name} | {first * 1000:.1f} | {again * 1000:.1f} |")
        if max(first, again) > AT_MOST:
            slow.append(name)
    print(f"\nOver {AT_MOST * 1000:.0f} ms: {', '.join(slow) or 'none'}")


if __name__ == "__main__":
    main()
