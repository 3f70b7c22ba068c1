"""A mail server on loopback: it accepts mails over real SMTP, or misbehaves in one way."""

from __future__ import annotations

import enum
import socketserver
import threading
from collections.abc import Collection
from email import message_from_bytes
from email.message import Message
from types import TracebackType
from typing import Any, Self


class Fault(enum.Enum):
    HANG = "accepts a connection and says nothing"
    DRIP = "greets for ever, byte by byte, so that no single read times out"
    SILENT_END = "takes a mail whole and never says so"
    BUSY = "answers that it takes nothing now"


class MailServer:
    """Keep accepted mails in `mails`; refuse recipients in `unknown`, and quote them."""

    def __init__(self, *, fault: Fault | None = None, unknown: Collection[str] = ()) -> None:
        self.fault = fault
        self.unknown = unknown
        self.mails: list[tuple[str, Message]] = []
        self.connections = 0
        self.stopping = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _Session)
        self._server.mail_server = self
        self.port: int = self._server.server_address[1]

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._server.server_close()  # waits for the sessions

    def point(self, settings: Any) -> None:
        """Let a project send its mails here."""
        settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
        settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", self.port


class _Server(socketserver.ThreadingTCPServer):
    mail_server: MailServer


class _Session(socketserver.StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        mails = self.server.mail_server
        mails.connections += 1
        try:
            match mails.fault:
                case Fault.HANG:
                    mails.stopping.wait()
                case Fault.DRIP:
                    while not mails.stopping.wait(0.01):
                        self.wfile.write(b"2")
                case Fault.BUSY:
                    self.say("421 too busy")
                case _:
                    self.talk(mails)
        except OSError:
            pass  # the client has gone

    def say(self, line: str) -> None:
        self.wfile.write(f"{line}\r\n".encode())

    def talk(self, mails: MailServer) -> None:
        self.say("220 ready")
        recipient = ""
        while line := self.rfile.readline().decode().strip():
            match line.partition(" ")[0].upper():
                case "RCPT":
                    recipient = line.partition("<")[2].partition(">")[0]
                    self.say(f"550 {recipient} is unknown" if recipient in mails.unknown else "250 ok")
                case "DATA":
                    self.say("354 go on")
                    body = b""
                    while (part := self.rfile.readline()) != b".\r\n":
                        body += part
                    mails.mails.append((recipient, message_from_bytes(body)))
                    if mails.fault is Fault.SILENT_END:
                        mails.stopping.wait()
                        return
                    self.say("250 taken")
                case "QUIT":
                    self.say("221 bye")
                    return
                case _:
                    self.say("250 ok")
