"""The server of the sandbox."""

import json
import socket
import struct
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import parse_qs, urlsplit

from zammad.sandbox import api
from zammad.sandbox.calls import Call, Refusal
from zammad.sandbox.faults import Fault, Faults, Reply
from zammad.sandbox.records import ADMIN, Version
from zammad.sandbox.webhooks import Helpdesk


class Sandbox(Helpdesk):
    """A Zammad that listens on its own port during `with Sandbox() as sandbox:`."""

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        token: str = "sandbox-api-token",  # noqa: S107
        webhook_endpoint: str = "",
        webhook_secret: str = "",
        version: Version = Version.V6_5,
        retry_factor: float = 1.0,
        count_after: float | None = None,
    ) -> None:
        """`retry_factor` scales the waits; `count_after` is the time in seconds after which a ticket
        updates its customer, or None if a test calls `count_tickets`."""
        super().__init__(version=version, retry_factor=retry_factor, count_after=count_after)
        self.faults = Faults()
        self.calls: list[Call] = []
        self.api_token_access = True
        self.token = token
        self._server = _Server((host, port), self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self.add_token(2, token, name="Family Plans", permissions=ADMIN)
        if webhook_endpoint:
            self.install_webhook(webhook_endpoint, secret=webhook_secret)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Cut every connection, end every thread and free the port."""
        self.stopping.set()
        self._server.shutdown()
        self._server.cut_connections()
        self._server.server_close()
        self._thread.join()
        self.settle()

    @property
    def url(self) -> str:
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}"

    def connections(self) -> list[socket.socket]:
        """List the open connections of clients."""
        return list(self._server.open_connections)

    def answer(self, call: Call) -> tuple[int, object]:
        """:raises Refusal:"""
        if call.path == "/":
            return 200, "Zammad sandbox"
        with self.lock:
            return api.answer(self, call, token_access=self.api_token_access)


class _Server(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = False  # so that server_close() waits for them

    def __init__(self, address: tuple[str, int], sandbox: "Sandbox") -> None:
        self.sandbox = sandbox
        self.open_connections: set[socket.socket] = set()
        super().__init__(address, _Handler)

    def cut_connections(self) -> None:
        for connection in list(self.open_connections):
            with suppress(OSError):  # the other side was faster
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: object, client_address: object) -> None:
        """Log nothing: clients in tests disconnect during responses."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.server.open_connections.add(self.connection)

    def finish(self) -> None:
        self.server.open_connections.discard(self.connection)
        super().finish()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Log nothing: `sandbox.calls` lists the requests."""

    def respond(self) -> None:
        sandbox = self.server.sandbox
        parts = urlsplit(self.path)
        call = Call(
            method=self.command,
            path=parts.path,
            query={name: values[-1] for name, values in parse_qs(parts.query).items()},
            headers={name.lower(): value for name, value in self.headers.items()},
            body=self.rfile.read(int(self.headers.get("Content-Length") or 0)),
        )
        sandbox.calls.append(call)
        match sandbox.faults.take(f"{call.method} {call.path}"):
            case Reply() as reply:
                self.write(reply)
            case Fault() as fault:
                self.fail(fault)
            case _:
                self.write(self.reply(call))

    do_GET = do_POST = do_PUT = do_DELETE = respond  # noqa: N815

    def reply(self, call: Call) -> Reply:
        try:
            status, answer = self.server.sandbox.answer(call)
        except Refusal as refusal:
            status, answer = refusal.status, refusal.answer
        if isinstance(answer, str):
            return Reply(status, f"{answer}\n".encode(), {"Content-Type": "text/plain"})
        return Reply(status, json.dumps(answer).encode())

    def write(self, reply: Reply) -> None:
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        self.wfile.write(reply.body)

    def fail(self, fault: Fault) -> None:
        self.close_connection = True
        match fault:
            case Fault.HANG:
                self.server.sandbox.stopping.wait()
            case Fault.RESET:
                # Closing without lingering sends a reset.
                linger = struct.pack("ii", 1, 0)
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            case Fault.TRUNCATE:
                self.wfile.write(b'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"token": "abc')
            case Fault.DRIP_HEADERS:
                self.drip(b"HTTP/1.1 200 OK\r\nX-Drip: ")
            case _:
                self.drip(b'HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n{"token": "')

    def drip(self, start: bytes) -> None:
        self.wfile.write(start)
        while not self.server.sandbox.stopping.wait(0.02):
            self.wfile.write(b"x")
