"""Faults that tests inject between the sandbox and its clients."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final


class Fault(Enum):
    """A fault of the connection; a wrong response is a Reply."""

    HANG = auto()  # send nothing
    RESET = auto()  # cut the connection
    DRIP_HEADERS = auto()  # a byte now and then, without end
    DRIP_BODY = auto()
    TRUNCATE = auto()  # send less than announced


@dataclass(frozen=True, slots=True)
class Reply:
    """A response in place of Zammad's own."""

    status: int = 200
    body: bytes = b"{}"
    headers: Mapping[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})


HTML_PAGE: Final = Reply(body=b"<!doctype html><title>Zammad</title>", headers={"Content-Type": "text/html"})
BROKEN_JSON: Final = Reply(body=b'{"token": "abc')
WRONG_TYPE: Final = Reply(body=b'"a text"')
NULL_TOKEN: Final = Reply(body=b'{"token": null}')
OVERSIZED: Final = Reply(body=b'{"token": "' + b"x" * 1024 * 1024 + b'"}')
REDIRECT: Final = Reply(status=302, headers={"Location": "/api/v1/users/me"})


class Faults:
    """The faults by route: a method and the start of a path."""

    def __init__(self) -> None:
        self._faults: dict[str, tuple[Fault | Reply, int | None]] = {}
        self._lock = threading.Lock()

    def set(self, route: str, fault: Fault | Reply, *, times: int | None = None) -> None:
        with self._lock:
            self._faults[route] = fault, times

    def clear(self) -> None:
        with self._lock:
            self._faults.clear()

    def take(self, called: str) -> Fault | Reply | None:
        with self._lock:
            for route, (fault, times) in self._faults.items():
                if called.startswith(route):
                    if times is not None:
                        if times > 1:
                            self._faults[route] = fault, times - 1
                        else:
                            del self._faults[route]
                    return fault
        return None
