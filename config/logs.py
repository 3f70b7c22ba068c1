"""The format of log lines: JSON or plain text, without invite tokens and addresses."""

import logging
import re
from collections.abc import Mapping
from typing import Any

import structlog
from structlog.stdlib import ExtraAdder, ProcessorFormatter
from structlog.typing import EventDict, Processor, WrappedLogger

# An invite token is a credential: its 43 characters are in the path of the invite's page, and,
# percent-encoded, in a hand-written ?next=.
INVITE_TOKEN = re.compile(r"(invites(?:/|%(?:25)*2[Ff]))[A-Za-z0-9_-]{43}")
# GraphiQL puts the operation, including its literals, into the URL of its page.
OPERATION = re.compile(r"(/graphql/(?:\?|%3[Ff]))[^\s\"]+")
# Errors of databases and mail servers quote the address that they refuse.
# The pattern starts at the start of a word: tried at each letter of a long path, it would be slow.
ADDRESS = re.compile(r"(?<![^\s@<>()'\",;:=])[^\s@<>()'\",;:=]+@[^\s@<>()'\",;:=]+")


def masked(value: Any) -> Any:
    """Mask tokens, operations and addresses in a nested value; other objects become text."""
    match value:
        case None | bool() | int() | float():
            return value
        case str():
            text = OPERATION.sub(r"\1***", INVITE_TOKEN.sub(r"\1***", value))
            return ADDRESS.sub("***@***", text)
        case Mapping():
            return {masked(str(key)): masked(item) for key, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [masked(item) for item in value]
        case _:
            return masked(str(value))


def _mask(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Mask the fields of a line, without Django's request object: the request has its own line."""
    event.pop("request", None)
    fields: EventDict = masked(event)
    return fields


class LineFormatter(ProcessorFormatter):
    """Format a record as one line, with the ids of its request and delivery, and the fields of `extra=`.

    Masking happens after the traceback is text and before JSON is rendered, which it could break.
    """

    def __init__(self, *, as_json: bool) -> None:
        renderer: Processor = (
            structlog.processors.JSONRenderer()
            if as_json
            else structlog.dev.ConsoleRenderer(
                colors=False, exception_formatter=structlog.dev.plain_traceback, pad_event_to=0
            )
        )
        super().__init__(
            foreign_pre_chain=[
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.stdlib.add_log_level,
                structlog.stdlib.add_logger_name,
                structlog.contextvars.merge_contextvars,
                ExtraAdder(),
            ],
            processors=[
                ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                _mask,
                renderer,
            ],
            logger=logging.getLogger(__name__),
        )
