"""Count SQL statements: each input line is a request to run in process, each output line its count."""

from __future__ import annotations

import json
import sys
from typing import Any

from django.core.wsgi import get_wsgi_application
from django.db import connection

from tests.benchmarks.in_process import call, environ_of


def main() -> None:
    application = get_wsgi_application()
    executed: list[str] = []

    def count(execute: Any, sql: str, *rest: Any) -> Any:
        executed.append(sql)
        return execute(sql, *rest)

    for line in sys.stdin:
        executed.clear()
        with connection.execute_wrapper(count):
            status, body = call(application, environ_of(json.loads(line)))
        assert status == 200, body
        sys.stdout.write(json.dumps([len(executed), body]) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
