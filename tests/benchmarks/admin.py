"""The admin of a large installation: how long staff wait for each of its pages."""

from __future__ import annotations

import time
from statistics import median

from tests.benchmarks.bench import Bench
from tests.benchmarks.dataset import DataSet, email_of
from tests.benchmarks.load import BadAnswers, ask
from tests.benchmarks.operations import Operation, admin_pages, plans_found
from tests.benchmarks.servers import SERVICE


def run(bench: Bench) -> str:
    data = DataSet(plans=bench.large)
    middle = data.plans // 2
    pages = {
        **admin_pages(data),
        "API: plans by name": plans_found(data, f'"name":"Plan {middle}"', name=f"AN {middle}"),
        "API: plans by a rare name": plans_found(data, '"edges":[]', name="nobody has it"),
        "API: plans by two letters": plans_found(data, '"edges":[]', name="xy"),
        "API: plans by owner": plans_found(
            data, f'"name":"Plan {middle}"', ownerEmail=email_of(data.owner(middle))
        ),
    }
    with bench.database(data) as database_url:
        server = bench.server_of(SERVICE, database_url, WEB_CONCURRENCY="1")
        try:
            server.manage("collectstatic", "--no-input")
            server.start()
            seconds: dict[str, list[float]] = {name: [] for name in pages}
            for _ in range(bench.rounds + 1):
                for name, page in pages.items():
                    seconds[name].append(wait_for(page, server.port))
        finally:
            server.kill()
    lines = ["| page | worst | median | the first time |", "|---|---|---|---|"]
    for name, [first, *others] in sorted(seconds.items(), key=lambda item: -max(item[1])):
        lines.append(
            f"| {name} | {max(others) * 1e3:.0f} ms | {median(others) * 1e3:.0f} ms | {first * 1e3:.0f} ms |"
        )
    return f"## Pages of the admin, {data.plans} plans\n\n" + "\n".join(lines)


def wait_for(page: Operation, port: int) -> float:
    """:raises BadAnswers:"""
    started = time.perf_counter()
    status, body = ask(page.request, port)
    took = time.perf_counter() - started
    if not page.is_done_by(status, body):
        raise BadAnswers(f"{page.request.path} answers {status}, without {page.wanted!r}:\n{body.decode()}")
    return took
