"""HTTP over a raw socket: what no well-behaved client would send, and when."""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from tests.server import ANSWER_TIMEOUT, Answer


def head(method: str, path: str, *lines: str, host: str = "127.0.0.1") -> bytes:
    """Write the head of a request, its lines as they are given."""
    return "\r\n".join([f"{method} {path} HTTP/1.1", f"Host: {host}", *lines, "", ""]).encode()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def in_chunks(*parts: bytes) -> bytes:
    return b"".join(map(chunk, parts)) + b"0\r\n\r\n"


class Wire:
    """One connection, on which a test sends bytes."""

    def __init__(self, port: int, *parts: bytes) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=ANSWER_TIMEOUT)
        self.started = time.monotonic()
        self.send(*parts)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def send(self, *parts: bytes) -> None:
        for part in parts:
            self.socket.sendall(part)

    def answer(self) -> Answer:
        response = http.client.HTTPResponse(self.socket)
        response.begin()
        return Answer(response.status, response.headers, response.read(), time.monotonic() - self.started)

    def has_ended(self) -> bool:
        """Wait for more, and return whether the connection ended instead."""
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True


def ask(port: int, *parts: bytes) -> Answer:
    """Send one request on a connection of its own."""
    with Wire(port, *parts) as wire:
        return wire.answer()


def shapes(answers: Sequence[Answer]) -> list[tuple[int, bytes]]:
    return [(answer.status, answer.body) for answer in answers]
