"""The production server: worker processes that read requests in an event loop and answer them in threads.

    python -m config.server WORKERS

The parent owns the socket and the shared counts of body sizes, and restarts workers that have ended.
"""

import asyncio
import ctypes
import json
import logging
import logging.config
import multiprocessing
import os
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import MutableSequence
from http import HTTPStatus
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from types import FrameType
from typing import Any, Final

import uvicorn
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from config.bodies import API, GRAPHQL, UNREADABLE
from config.body_reader import Room
from config.serving import Application

logger = logging.getLogger("config.server")  # __name__ is __main__

STOP_SECONDS: Final = 15  # for requests in progress
HEAD_SECONDS: Final = 20  # for the head of a request, from the connection or its first byte
HEAD_BYTES: Final = 64 * 1024
IDLE_SECONDS: Final = 75  # longer than proxies keep idle connections, so that they close first
ANSWER_SECONDS: Final = 60  # in which a client must accept some of the response
FIRST_LINE_BYTES: Final = 1024
BACKLOG: Final = 1024
CONNECTIONS: Final = 8192  # per process, if the system allows as many open files
RESPAWN_SECONDS: Final = 1.0


class Protocol(HttpToolsProtocol):
    """Uvicorn's HTTP, with limits on the head of a request and support for half-closed connections."""

    head_timer: asyncio.TimerHandle | None = None
    head_size = 0
    in_head = True
    first_line = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.head_timer = self.loop.call_later(HEAD_SECONDS, self.give_up)

    def connection_lost(self, exc: Exception | None) -> None:
        self.stop_head_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.in_head:
            if self.head_size == 0:
                self.first_line = data[:FIRST_LINE_BYTES]
            self.head_size += len(data)
            if self.head_timer is None:
                self.head_timer = self.loop.call_later(HEAD_SECONDS, self.give_up)
        super().data_received(data)
        if self.in_head and self.head_size > HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response("The head of the request is too large.")

    def on_headers_complete(self) -> None:
        self.in_head = False
        self.head_size = 0
        self.stop_head_timer()
        super().on_headers_complete()
        if self.parser.should_upgrade():
            self.cycle.keep_alive = False  # the client may continue in another protocol

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self.in_head = True

    def eof_received(self) -> bool:  # type: ignore[override]
        """Keep the connection open to answer a client that has finished sending."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete or cycle.more_body:
            return False
        cycle.keep_alive = False
        return True

    def send_400_response(self, msg: str) -> None:
        """Refuse an invalid request in the format that its client expects, and close the connection."""
        content_type, body = bad_request(requested_path(self.first_line), msg)
        head = f"HTTP/1.1 400 Bad Request\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n"
        self.transport.write(head.encode() + b"Connection: close\r\n\r\n" + body)
        self.transport.close()

    def _unsupported_upgrade_warning(self) -> None:
        """Log nothing: HTTP lets a server ignore a requested upgrade."""

    def stop_head_timer(self) -> None:
        if self.head_timer is not None:
            self.head_timer.cancel()
            self.head_timer = None

    def give_up(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()


def requested_path(first_line: bytes) -> str:
    words = first_line.split(b"\r\n", 1)[0].split(b" ")
    return words[1].split(b"?", 1)[0].decode("latin-1") if len(words) > 1 else ""


def bad_request(path: str, message: str) -> tuple[str, bytes]:
    """Return the content type and the body of a 400 response; Django never sees the request."""
    data: dict[str, Any]
    if path.startswith(API):
        data = {"status": HTTPStatus.BAD_REQUEST, "errors": [{"code": "bad_request", "message": message}]}
    elif path in GRAPHQL:
        data = {"errors": [{"message": message, "extensions": {"code": UNREADABLE.code}}]}
    else:
        return "text/plain; charset=utf-8", message.encode()
    return "application/json", json.dumps(data).encode()


def listening(host: str, port: int) -> socket.socket:
    """Open the socket from which all workers accept connections."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, ANSWER_SECONDS * 1000)
    listener.bind((host, port))
    listener.listen(BACKLOG)
    return listener


def work(number: int, listener: socket.socket, numbers: MutableSequence[int]) -> None:
    """Answer requests until a signal arrives or the parent has ended."""
    threading.Thread(target=stop_with_parent, daemon=True).start()
    application = Application(get_wsgi_application(), room=Room(numbers, number))
    logger.info("Started worker-%d", number + 1)
    serve(application, listener, stop_seconds=STOP_SECONDS)


def serve(application: Application, listener: socket.socket, *, stop_seconds: int) -> None:
    """Serve until a signal arrives, finish the requests in progress, and return.

    Uvicorn raises the signal again when it ends: the default action would cut off the last output.
    """
    config = uvicorn.Config(
        application,
        http=Protocol,
        loop="uvloop",
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,  # the application logs each request
        proxy_headers=False,  # Django and allauth read them, according to TRUSTED_PROXY_COUNT
        server_header=False,
        backlog=BACKLOG,
        limit_concurrency=min(CONNECTIONS, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2),
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=stop_seconds,
    )
    server = uvicorn.Server(config)

    def stop(_number: int, _frame: FrameType | None) -> None:
        server.should_exit = True

    for signal_number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signal_number, stop)
    server.run([listener])


def stop_with_parent() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


class Supervisor:
    """Keep workers running until a signal arrives."""

    def __init__(self, workers: int) -> None:
        self.context = multiprocessing.get_context("spawn")
        # Anonymous shared memory, which ends with the processes.
        self.numbers: Any = self.context.RawArray(ctypes.c_longlong, workers * Room.NUMBERS)
        self.workers = workers
        # Shared: with a socket per worker, the kernel would assign connections to busy workers, too.
        self.socket = listening(settings.HOST, settings.PORT)
        self.processes: dict[int, SpawnProcess] = {}
        self.is_stopping = False

    def stop(self, _number: int, _frame: FrameType | None) -> None:
        self.is_stopping = True

    def start(self, number: int) -> None:
        # The bodies of the previous worker are gone.
        for kind in range(Room.NUMBERS):
            self.numbers[number * Room.NUMBERS + kind] = 0
        process = self.context.Process(target=work, args=(number, self.socket, self.numbers))
        process.start()
        self.processes[number] = process

    def run(self) -> None:
        for signal_number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signal_number, self.stop)
        for number in range(self.workers):
            self.start(number)
        while not self.is_stopping:
            wait([process.sentinel for process in self.processes.values()], timeout=0.2)
            for number, process in self.processes.items():
                if not self.is_stopping and not process.is_alive():
                    logger.error("Worker-%d ended unexpectedly (%s)", number + 1, process.exitcode)
                    time.sleep(RESPAWN_SECONDS)
                    self.start(number)
                    break
        self.end()

    def end(self) -> None:
        for number, process in self.processes.items():
            logger.info("Stopping worker-%d", number + 1)
            process.terminate()
        self.socket.close()
        ends_at = time.monotonic() + STOP_SECONDS + 1
        for number, process in self.processes.items():
            process.join(max(0.0, ends_at - time.monotonic()))
            if process.is_alive():
                logger.warning("Killing worker-%d: it did not stop in time", number + 1)
                process.kill()
                process.join()
        logger.info("Server stopped")


def allow_connections() -> None:
    """Raise the soft limit of open files as far as needed and allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 4 * CONNECTIONS
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    logging.config.dictConfig(settings.LOGGING)
    if settings.UNFIT_FOR_PRODUCTION:  # as config.wsgi does for other servers
        raise SystemExit(" ".join(settings.UNFIT_FOR_PRODUCTION))
    allow_connections()
    Supervisor(int(sys.argv[1])).run()


if __name__ == "__main__":
    main()
