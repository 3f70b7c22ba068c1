"""The ASGI side of the WSGI application: read the whole request first, then answer it in a thread."""

import asyncio
import sys
import threading
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import Future
from contextlib import closing
from queue import SimpleQueue
from typing import IO, Any, Final
from urllib.parse import unquote_to_bytes

from django.conf import settings

from config.bodies import API, PASSWORDS_BUSY, REFUSAL, Refusal
from config.body_reader import Body, HungUp, Receive, Refused, Room
from config.passwords import MAY_WAIT, PATIENCE

Environment = dict[str, Any]
Send = Callable[[dict[str, Any]], Awaitable[None]]

TURN_SECONDS: Final = 0.02  # how often a large body checks whether it is its turn
# After a refusal, read on for a while: closing while the client still sends would lose the response.
LINGER_SECONDS: Final = 5.0
LINGER_BYTES: Final = 64 * 1024 * 1024
# A POST to these may hash a password, for which its thread waits.
PASSWORD_PATHS: Final = ("/accounts/", API, "/admin/auth/user/")
# The responses of these must not reveal whether an address has an account, by their duration neither:
# it is a multiple of STEP.
SAME_DURATION: Final = frozenset(
    {
        "/accounts/signup/",
        "/accounts/password/reset/",
        "/accounts/confirm-email/",
        "/_allauth/app/v1/auth/signup",
        "/_allauth/app/v1/auth/password/request",
        "/_allauth/app/v1/auth/email/verify/resend",
    }
)
STEP: Final = 0.5  # seconds


class Answer:
    """The complete response of the WSGI application to one request."""

    def __init__(self, wsgi: Callable[..., Iterable[bytes]], environ: Environment) -> None:
        parts = wsgi(environ, self.start)
        try:
            self.body = b"".join(parts)
        finally:
            if hasattr(parts, "close"):
                parts.close()

    def start(self, status: str, headers: list[tuple[str, str]], _error: object = None) -> None:
        self.status = int(status.split(" ", 1)[0])
        self.headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]


class Threads:
    """Run requests in WEB_THREADS threads, each of which keeps its database connection."""

    def __init__(self, wsgi: Callable[..., Iterable[bytes]]) -> None:
        self.wsgi = wsgi
        self.waiting: SimpleQueue[tuple[Environment, Future[Answer]]] = SimpleQueue()
        for _ in range(settings.WEB_THREADS):
            threading.Thread(target=self.work, daemon=True).start()

    async def run(self, environ: Environment) -> Answer:
        future: Future[Answer] = Future()
        self.waiting.put((environ, future))
        return await asyncio.wrap_future(future)

    def work(self) -> None:
        while True:
            environ, future = self.waiting.get()
            if future.set_running_or_notify_cancel():  # else the server is stopping
                try:
                    future.set_result(Answer(self.wsgi, environ))
                except BaseException as error:  # noqa: BLE001  # raised again where the answer is awaited
                    future.set_exception(error)
            del environ, future


class Application:
    """The application as an ASGI server sees it."""

    def __init__(self, wsgi: Callable[..., Iterable[bytes]], *, room: Room) -> None:
        self.threads = Threads(wsgi)
        self.room = room
        self.turn = asyncio.Lock()
        self.password_slots = asyncio.Semaphore(MAY_WAIT)

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        path = unquote_to_bytes(scope["raw_path"]).decode("latin-1")
        refusal: Refusal | None = None
        with closing(Body(self.room)) as body:
            try:
                await body.read(receive, path=path, scope=scope)
            except HungUp:
                return
            except Refused as error:
                refusal = error.refusal
                body.close()
            environ = environment_of(scope, path, body.file, body.size)
            if refusal is not None:
                environ[REFUSAL] = refusal
            answer = await self.answer(environ, body)
        await send_answer(
            answer, send, closes=refusal is not None, unread=None if body.has_ended else receive
        )

    async def answer(self, environ: Environment, body: Body) -> Answer:
        """Answer in a thread; large bodies one at a time, because parsing needs memory."""
        if environ["REQUEST_METHOD"] == "POST" and environ["PATH_INFO"].startswith(PASSWORD_PATHS):
            return await self.answer_with_password(environ)
        if not body.is_large:
            return await self.threads.run(environ)
        async with self.turn:
            while not self.room.start_work():
                await asyncio.sleep(TURN_SECONDS)
            try:
                return await self.threads.run(environ)
            finally:
                self.room.end_work()

    async def answer_with_password(self, environ: Environment) -> Answer:
        """Answer in one of the threads that may wait to hash a password; wait for it here, in no thread."""
        try:
            async with asyncio.timeout(PATIENCE):
                await self.password_slots.acquire()
        except TimeoutError:
            environ[REFUSAL] = PASSWORDS_BUSY
            return await self.threads.run(environ)
        now = asyncio.get_running_loop().time
        started_at = now()
        try:
            answer = await self.threads.run(environ)
        finally:
            self.password_slots.release()
        if environ["PATH_INFO"] in SAME_DURATION:
            await asyncio.sleep(-(now() - started_at) % STEP)
        return answer


def environment_of(scope: dict[str, Any], path: str, body: IO[bytes], size: int) -> Environment:
    """Build the WSGI environment, https://peps.python.org/pep-3333/#environ-variables."""
    server, client = scope["server"] or ("", 0), scope["client"] or ("", 0)
    environ: Environment = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "SERVER_NAME": server[0],
        "SERVER_PORT": str(server[1]),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "REMOTE_ADDR": client[0],
        "CONTENT_LENGTH": str(size),  # of a chunked body, too
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope["scheme"],
        "wsgi.input": body,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    for name, value in scope["headers"]:
        # X_Forwarded_For would be mistaken for X-Forwarded-For, which a proxy vouches for.
        if b"_" in name or name in {b"content-length", b"transfer-encoding"}:
            continue
        key = name.decode("latin-1").upper().replace("-", "_")
        if key != "CONTENT_TYPE":
            key = f"HTTP_{key}"
        text = value.decode("latin-1")
        if key in environ:
            text = f"{environ[key]}{'; ' if key == 'HTTP_COOKIE' else ','}{text}"
        environ[key] = text
    return environ


async def send_answer(answer: Answer, send: Send, *, closes: bool, unread: Receive | None) -> None:
    """Send a response; if part of the request is unread, drop it for a while before closing."""
    headers = answer.headers
    if not any(name.lower() == b"content-length" for name, _ in headers) and answer.status not in {204, 304}:
        headers = [*headers, (b"Content-Length", str(len(answer.body)).encode())]
    if closes:
        headers = [*headers, (b"Connection", b"close")]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body, "more_body": unread is not None})
    if unread is not None:
        await drain(unread)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def drain(receive: Receive) -> None:
    left = LINGER_BYTES
    try:
        async with asyncio.timeout(LINGER_SECONDS):
            while left > 0:
                message = await receive()
                if message["type"] != "http.request" or not message["more_body"]:
                    return
                left -= len(message["body"])
    except TimeoutError:
        return
