"""The production server: processes that read requests in a loop, and answer them in threads.

    python -m config.server WORKERS

The parent owns the socket and the count of what bodies hold; it starts a worker anew that has ended.
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

logger = logging.getLogger("config.server")  # not __main__, as which it runs

STOP_SECONDS: Final = 15  # for what has begun
HEAD_SECONDS: Final = 20  # for the head of a request, from the connection or its first byte
HEAD_BYTES: Final = 64 * 1024
IDLE_SECONDS: Final = 75  # longer than proxies keep idle connections: they hang up first
ANSWER_SECONDS: Final = 60  # in which a client must take something of its answer
FIRST_LINE_BYTES: Final = 1024
BACKLOG: Final = 1024
CONNECTIONS: Final = 8192  # of one process, where the system allows as many files
RESPAWN_SECONDS: Final = 1.0
JSON: Final = "application/json"


class Protocol(HttpToolsProtocol):
    """Uvicorn's HTTP, with bounds on the head of a request, and clients that shut down their half."""

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
            self.cycle.keep_alive = False  # what would follow is of a protocol that is not spoken here

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self.in_head = True

    def eof_received(self) -> bool:  # type: ignore[override]
        """Stay to answer a client that has sent all that it wanted to."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete or cycle.more_body:
            return False
        cycle.keep_alive = False
        return True

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP in the form that its client speaks, and hang up."""
        content_type, body = refusal_of_the_unreadable(path_in(self.first_line), msg)
        head = f"HTTP/1.1 400 Bad Request\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n"
        self.transport.write(head.encode() + b"Connection: close\r\n\r\n" + body)
        self.transport.close()

    def _unsupported_upgrade_warning(self) -> None:
        """Say nothing: who asks for another protocol is answered by this one, as HTTP has it."""

    def stop_head_timer(self) -> None:
        if self.head_timer is not None:
            self.head_timer.cancel()
            self.head_timer = None

    def give_up(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()


def path_in(first_line: bytes) -> str:
    """Return the path that a request seems to be for, as far as that can be told."""
    words = first_line.split(b"\r\n", 1)[0].split(b" ")
    return words[1].split(b"?", 1)[0].decode("latin-1") if len(words) > 1 else ""


def refusal_of_the_unreadable(path: str, message: str) -> tuple[str, bytes]:
    """Return the type and the text of a refusal for which no request can be made."""
    if path.startswith(API):
        errors = [{"code": "bad_request", "message": message}]
        return JSON, json.dumps({"status": HTTPStatus.BAD_REQUEST, "errors": errors}).encode()
    if path in GRAPHQL:
        error = {"message": message, "extensions": {"code": UNREADABLE.code}}
        return JSON, json.dumps({"errors": [error]}).encode()
    return "text/plain; charset=utf-8", message.encode()


def listening(host: str, port: int) -> socket.socket:
    """Open the socket from which all workers accept connections."""
    opened = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, ANSWER_SECONDS * 1000)
    opened.bind((host, port))
    opened.listen(BACKLOG)
    return opened


def work(number: int, opened: socket.socket, numbers: MutableSequence[int]) -> None:
    """Answer requests until told to stop, or until the parent is gone."""
    threading.Thread(target=stop_with_parent, daemon=True).start()
    application = Application(
        get_wsgi_application(), threads=settings.WEB_THREADS, room=Room(numbers, number)
    )
    logger.info("Started worker-%d", number + 1)
    serve(application, opened, stop_seconds=STOP_SECONDS)


def serve(application: Application, opened: socket.socket, *, stop_seconds: int) -> None:
    """Serve until a signal says to stop, and return once what has begun is done.

    Uvicorn raises the signal again at its end: with its own action that would cut off what is written last.
    """
    config = uvicorn.Config(
        application,
        http=Protocol,
        loop="uvloop",
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,  # the application's own line says more
        proxy_headers=False,  # Django and allauth read them, TRUSTED_PROXY_COUNT of them
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
    server.run([opened])


def stop_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


class Supervisor:
    """Keep workers running until a signal says to stop."""

    def __init__(self, workers: int) -> None:
        self.context = multiprocessing.get_context("spawn")
        # Memory without a name, which ends with the processes.
        self.numbers: Any = self.context.RawArray(ctypes.c_longlong, workers * Room.NUMBERS)
        self.workers = workers
        # One for all: with a socket each, the system would give connections to workers that are busy.
        self.socket = listening(settings.HOST, settings.PORT)
        self.processes: dict[int, SpawnProcess] = {}
        self.is_stopping = False

    def stop(self, _number: int, _frame: FrameType | None) -> None:
        self.is_stopping = True

    def start(self, number: int) -> None:
        # What the one before held went with it.
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
                    logger.error("Worker-%d ended by itself (%s)", number + 1, process.exitcode)
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
    """Take as many open files as the system grants without being asked."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * CONNECTIONS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        granted = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (granted, hard))


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    logging.config.dictConfig(settings.LOGGING)
    if settings.UNFIT_FOR_PRODUCTION:  # as config.wsgi does for other servers
        raise SystemExit(" ".join(settings.UNFIT_FOR_PRODUCTION))
    allow_connections()
    Supervisor(int(sys.argv[1])).run()


if __name__ == "__main__":
    main()
