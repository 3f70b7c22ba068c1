"""A time limit for all that one operation does over HTTP, which requests does not have."""

import queue
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Any, Self

from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util.connection import create_connection


class Deadline:
    """The end of one operation, at which its connections are cut.

    A read time-out restarts with every byte, so that an answer which drips holds a thread for
    ever; headers are read where nobody can look at the clock. Only a closed socket ends that.
    """

    _outer: Token["Deadline"]

    def __init__(self, seconds: float) -> None:
        self._shared = _shared_time.get()
        if self._shared is not None:
            seconds = min(seconds, max(self._shared.left, 0))
        self._began_at = time.monotonic()
        self._ends_at = self._began_at + seconds
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._timer = threading.Timer(seconds, self._cut)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        self._outer = _operation.set(self)
        self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        _operation.reset(self._outer)
        if self._shared is not None:
            self._shared.left -= time.monotonic() - self._began_at
        with self._lock:
            for sock in self._sockets:
                sock.close()
            self._sockets.clear()

    @property
    def remaining(self) -> float:
        return self._ends_at - time.monotonic()

    def check(self) -> None:
        """:raises TimeoutError: when the time is over, whatever was read meanwhile."""
        if self.remaining <= 0:
            raise TimeoutError

    def watch(self, sock: socket.socket) -> None:
        """Cut this connection, too, when the time is over."""
        # A descriptor of our own: TLS takes the socket over, and http.client drops it while the
        # answer is still being read.
        twin = socket.fromfd(sock.fileno(), sock.family, sock.type)
        with self._lock:
            self._sockets.append(twin)
        if self.remaining <= 0:
            self._cut()

    def _cut(self) -> None:
        with self._lock:
            for sock in self._sockets:
                with suppress(OSError):  # the other side was faster
                    sock.shutdown(socket.SHUT_RDWR)


class _SharedTime:
    def __init__(self, seconds: float) -> None:
        self.left = seconds


_shared_time: ContextVar[_SharedTime | None] = ContextVar("zammad_shared_time", default=None)


@contextmanager
def shared_time(seconds: float) -> Iterator[None]:
    """Let all operations within it wait no longer than this together, such as those of one request."""
    token = _shared_time.set(_SharedTime(seconds))
    try:
        yield
    finally:
        _shared_time.reset(token)


# Connections are pooled and shared by threads: this tells them for whom they work now.
_operation: ContextVar[Deadline] = ContextVar("zammad_operation")


def _resolve(host: str, port: int, *, timeout: float) -> list[str]:
    """Look up a host's addresses; getaddrinfo knows no time-out, so it is left behind in a thread."""
    answers: queue.SimpleQueue[list[str] | Exception] = queue.SimpleQueue()

    def look_up() -> None:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            answers.put(error)
        else:
            answers.put([str(address[0]) for *_, address in found])

    threading.Thread(target=look_up, daemon=True).start()
    try:
        answer = answers.get(timeout=max(timeout, 0))
    except queue.Empty:
        raise TimeoutError from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def _connect(connection: HTTPConnection) -> socket.socket:
    """Connect to the first address that answers, all of it within the connect time-out."""
    deadline = _operation.get()
    timeout = connection.timeout if isinstance(connection.timeout, (int, float)) else deadline.remaining
    ends_at = time.monotonic() + min(timeout, deadline.remaining)
    failure: OSError = TimeoutError()
    for address in _resolve(connection.host, connection.port, timeout=ends_at - time.monotonic()):
        left = max(ends_at - time.monotonic(), 0.001)  # 0 would not wait at all
        try:
            sock = create_connection(
                (address, connection.port), left, socket_options=connection.socket_options
            )
        except OSError as error:
            failure = error
            continue
        deadline.watch(sock)
        return sock
    raise failure


class _Connection(HTTPConnection):
    def _new_conn(self) -> socket.socket:
        return _connect(self)

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is not None:  # it comes from the pool
            _operation.get().watch(self.sock)
        super().request(*args, **kwargs)


class _TLSConnection(_Connection, HTTPSConnection):
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TLSPool(HTTPSConnectionPool):
    ConnectionCls = _TLSConnection


class DeadlineAdapter(HTTPAdapter):
    """Let requests' connections be cut by the deadline of the operation they serve."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        # The system's authorities (SSL_CERT_FILE too) beside those that requests brings: a
        # Zammad on premises often has a certificate of the company's own.
        super().init_poolmanager(*args, **kwargs, ssl_context=ssl.create_default_context())
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TLSPool}
