"""The process of servers.InProcess: each input line is a run, each output line its result."""

from __future__ import annotations

import gc
import io
import json
import sys
import time
from collections.abc import Sequence
from itertools import cycle
from typing import Any
from wsgiref.types import WSGIEnvironment
from wsgiref.util import setup_testing_defaults

from django.core.wsgi import get_wsgi_application


def environ_of(request: dict[str, Any]) -> WSGIEnvironment:
    body = (request["body"] + request["ending"]).encode()
    environ: WSGIEnvironment = {
        "REQUEST_METHOD": request["method"],
        "PATH_INFO": request["path"],
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.input": io.BytesIO(body),
    }
    for name, value in request["headers"].items():
        key = name.upper().replace("-", "_")
        environ[key if key == "CONTENT_TYPE" else f"HTTP_{key}"] = value
    setup_testing_defaults(environ)
    return environ


def call(application: Any, environ: WSGIEnvironment) -> tuple[int, str]:
    """Return status and body, once the whole body is read and the request has ended, as for a server."""
    statuses: list[str] = []
    response = application(environ, lambda status, _headers: statuses.append(status))
    body = b"".join(response)
    response.close()
    return int(statuses[0][:3]), body.decode()


def cpu_times(
    application: Any, requests: Sequence[dict[str, Any]], seconds: float, status: int, unwanted: Sequence[str]
) -> list[float]:
    """Run requests over and over, and return how long each took in this process."""
    times: list[float] = []
    gc.collect()
    ends_at = time.monotonic() + seconds
    for request in cycle(requests):
        environ = environ_of(request)
        started = time.process_time()
        answer = call(application, environ)
        times.append(time.process_time() - started)
        if answer[0] != status or any(text in answer[1] for text in unwanted):
            sys.exit(f"This answer is bad: {answer}")
        if time.monotonic() > ends_at:
            break
    return times


def main() -> None:
    application = get_wsgi_application()
    for line in sys.stdin:
        asked = json.loads(line)
        done: object
        if asked["seconds"] is None:
            done = [call(application, environ_of(request)) for request in asked["requests"]]
        else:
            done = cpu_times(application, **asked)
        sys.stdout.write(json.dumps(done) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
