"""A time limit for a whole operation over HTTP, which requests lacks."""

import queue
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar, Token
from typing import Any, Self

from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util.connection import create_connection


class Deadline:
    """Cuts the connections of an operation when its time is over.

    A read timeout restarts with every byte, so a response that drips would hold a thread for ever,
    and nothing checks the clock while headers are read. Only a closed socket ends that.
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

    def __exit__(self, *_error: object) -> None:
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
        """:raises TimeoutError: when the time is over, even if everything was read."""
        if self.remaining <= 0:
            raise TimeoutError

    def watch(self, sock: socket.socket) -> None:
        """Cut this connection, too, when the time is over."""
        # A descriptor of our own: TLS takes the socket over, and http.client drops it while the
        # response is still being read.
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
    """Limit the total time of all operations within, such as those of one request."""
    token = _shared_time.set(_SharedTime(seconds))
    try:
        yield
    finally:
        _shared_time.reset(token)


# Threads share pooled connections: this is the operation that the current thread performs.
_operation: ContextVar[Deadline] = ContextVar("zammad_operation")


def _resolve(host: str, port: int, *, timeout: float) -> list[str]:
    """Look up a host's addresses in a thread that may outlive us: getaddrinfo has no timeout."""
    answers: queue.SimpleQueue[list[str] | Exception] = queue.SimpleQueue()

    def look_up() -> None:
        try:
            addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            answers.put(error)
        else:
            answers.put([str(address[0]) for *_, address in addresses])

    threading.Thread(target=look_up, daemon=True).start()
    try:
        answer = answers.get(timeout=max(timeout, 0))
    except queue.Empty:
        raise TimeoutError from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def _connect(connection: HTTPConnection) -> socket.socket:
    """Connect to the first address that answers, within the connect timeout."""
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
        if self.sock is not None:  # from the pool
            _operation.get().watch(self.sock)
        super().request(*args, **kwargs)


class _TLSConnection(_Connection, HTTPSConnection):
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TLSPool(HTTPSConnectionPool):
    ConnectionCls = _TLSConnection


class DeadlineAdapter(HTTPAdapter):
    """Lets the deadline of an operation cut the connections that requests opens for it."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        # Trust the system's authorities (and SSL_CERT_FILE) as well as those bundled with requests:
        # a Zammad on premises often has a certificate from the company's own authority.
        super().init_poolmanager(*args, **kwargs, ssl_context=ssl.create_default_context())
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TLSPool}
