"""How log lines leave the process: as JSON or for a reader, without invite tokens and addresses."""

import logging
import re
from collections.abc import Mapping
from typing import Any

import structlog
from structlog.stdlib import ExtraAdder, ProcessorFormatter
from structlog.typing import EventDict, Processor, WrappedLogger

# An invite token is a capability: its 43 characters stand in the path of the invite's
# page, and again, quoted, where somebody writes ?next= by hand.
INVITE_TOKEN = re.compile(r"(invites(?:/|%(?:25)*2[Ff]))[A-Za-z0-9_-]{43}")
# GraphiQL writes the operation, with all that was typed into it, into its page's address.
OPERATION = re.compile(r"(/graphql/(?:\?|%3[Ff]))[^\s\"]+")
# The text of a database's or a mail server's error quotes what it refused.
# It begins where a word begins: tried at each letter of a long path, it would take its time.
ADDRESS = re.compile(r"(?<![^\s@<>()'\",;:=])[^\s@<>()'\",;:=]+@[^\s@<>()'\",;:=]+")


def masked(value: Any) -> Any:
    """Mask tokens, operations and addresses in a value, however deep; what is no plain data becomes text."""
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
    """Mask a line's fields, without the request that Django hands over: the request's own line has it."""
    event.pop("request", None)
    fields: EventDict = masked(event)
    return fields


class LineFormatter(ProcessorFormatter):
    """Write a record as one line, with the ids of the request and the delivery it belongs to.

    What `extra=` holds becomes a field. The mask is put on after the traceback has become text,
    and before the line is put together: a cut in the middle of JSON would break it.
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
