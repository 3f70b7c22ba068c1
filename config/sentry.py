"""Error reports to Sentry: the place in the code and the request id, without personal data."""

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

# PostgreSQL quotes the row that it refuses.
QUOTED_ROW = re.compile(r"\s*DETAIL:.*", re.DOTALL)
# Tokens, signatures and session keys are this long; words are not.
SECRET = re.compile(r"[A-Za-z0-9+/_=-]{32,}")
# Allowlists: fields that a later version of the SDK adds are not sent.
EVENT_FIELDS = ("event_id", "timestamp", "level", "logger", "platform", "sdk", "release", "environment")
FRAME_FIELDS = ("filename", "abs_path", "module", "function", "lineno", "context_line", "in_app")


def start(dsn: str, *, transport: Transport | None = None) -> None:
    """Send logged errors, and exceptions that end a command, to Sentry.

    Sentry's Django integration is off: it would read headers, cookies and bodies of requests.
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
    ignore_logger("django.security.DisallowedHost")  # scanners cause these


def scrub(event: Event, _hint: Hint) -> Event:
    """Rebuild an event from allowed fields, with masked texts and frames without variables."""
    sent: dict[str, Any] = {name: event[name] for name in EVENT_FIELDS if name in event}  # type: ignore[literal-required]
    if entry := event.get("logentry"):
        # Without the arguments, which may be personal data.
        sent["logentry"] = {"message": clean(str(entry.get("message", "")))}
    errors = (event.get("exception") or {}).get("values") or []
    if errors:
        sent["exception"] = {"values": [_error(error) for error in errors]}
    ids = get_contextvars()
    sent["tags"] = {name: str(ids[name]) for name in ("request_id", "delivery_id") if name in ids}
    return sent  # type: ignore[return-value]


def clean(text: str) -> str:
    """Mask personal data and secrets in a text."""
    return SECRET.sub("***", str(masked(QUOTED_ROW.sub("", text))))


def _error(error: dict[str, Any]) -> dict[str, Any]:
    frames = (error.get("stacktrace") or {}).get("frames") or []
    return {
        "type": error.get("type"),
        "module": error.get("module"),
        "value": clean(str(error.get("value") or "")),
        "stacktrace": {"frames": [{name: frame.get(name) for name in FRAME_FIELDS} for frame in frames]},
    }
