"""What Sentry is told of an error: where in the code, and under which request id; nothing of people."""

import re
from typing import Any

import sentry_sdk
from sentry_sdk.integrations.dedupe import DedupeIntegration
from sentry_sdk.integrations.excepthook import ExcepthookIntegration
from sentry_sdk.integrations.logging import LoggingIntegration, ignore_logger
from sentry_sdk.transport import Transport
from sentry_sdk.types import Event, Hint
from structlog.contextvars import get_contextvars

from config.logs import masked

# PostgreSQL quotes the row that it refused.
QUOTED_ROW = re.compile(r"\s*DETAIL:.*", re.DOTALL)
# Tokens, signatures and keys of sessions are as long; no word is.
SECRET = re.compile(r"[A-Za-z0-9+/_=-]{32,}")
# What an event may hold: anything that a later version adds has to be asked for here.
KEPT = ("event_id", "timestamp", "level", "logger", "platform", "sdk", "release", "environment")
FRAME = ("filename", "abs_path", "module", "function", "lineno", "context_line", "in_app")


def start(dsn: str, *, transport: Transport | None = None) -> None:
    """Send what is logged as an error, and what ends a command, to Sentry.

    The log is the only source: Sentry's integration of Django would see requests, whose
    headers, cookies and bodies are nobody's business. What it calls personal it leaves out
    unless told otherwise.
    """
    sentry_sdk.init(
        dsn=dsn,
        transport=transport,
        default_integrations=False,
        auto_enabling_integrations=False,
        integrations=[LoggingIntegration(level=None), ExcepthookIntegration(), DedupeIntegration()],
        include_local_variables=False,
        max_request_body_size="never",
        max_breadcrumbs=0,
        server_name="",
        auto_session_tracking=False,
        send_client_reports=False,
        before_send=scrub,
    )
    ignore_logger("django.security.DisallowedHost")  # anybody can send a wrong name, and scanners do


def scrub(event: Event, _hint: Hint) -> Event:
    """Rebuild an event from what may leave: its texts masked, and of the frames only the code."""
    sent: dict[str, Any] = {name: event[name] for name in KEPT if name in event}  # type: ignore[literal-required]
    if logged := event.get("logentry"):
        # Not the arguments: they are what the message says of one request.
        sent["logentry"] = {"message": clean(str(logged.get("message", "")))}
    errors = (event.get("exception") or {}).get("values") or []
    if errors:
        sent["exception"] = {"values": [_error(error) for error in errors]}
    ids = get_contextvars()
    sent["tags"] = {name: str(ids[name]) for name in ("request_id", "delivery_id") if name in ids}
    return sent  # type: ignore[return-value]


def clean(text: str) -> str:
    """Take out of a text what belongs to people, or opens something."""
    return SECRET.sub("***", str(masked(QUOTED_ROW.sub("", text))))


def _error(error: dict[str, Any]) -> dict[str, Any]:
    frames = (error.get("stacktrace") or {}).get("frames") or []
    return {
        "type": error.get("type"),
        "module": error.get("module"),
        "value": clean(str(error.get("value") or "")),
        "stacktrace": {"frames": [{name: frame.get(name) for name in FRAME} for frame in frames]},
    }
