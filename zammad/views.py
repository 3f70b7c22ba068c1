"""The one endpoint that Zammad calls."""

import logging
from collections.abc import Callable

from django.conf import settings
from django.db import Error as DatabaseFailure
from django.http import HttpRequest, HttpResponse, UnreadablePostError
from django.utils import timezone
from django.views.decorators.common import no_append_slash
from django.views.decorators.csrf import csrf_exempt
from prometheus_client import Counter

from zammad.models import RefusedDelivery
from zammad.refusals import count_refusal
from zammad.services import apply_delivery, read_delivery_id
from zammad.webhooks import SignatureInvalid, verify_signature

logger = logging.getLogger(__name__)

Reason = RefusedDelivery.Reason
# Why the server did not take a body, by the status it is refused with.
UNREAD = {
    400: Reason.LENGTH_INVALID,
    408: Reason.BODY_TOO_SLOW,
    413: Reason.BODY_TOO_LARGE,
    503: Reason.TOO_BUSY,
}

DELIVERIES = Counter(
    "family_plans_deliveries",
    "Deliveries of Zammad: APPLIED, UNCHANGED, STALE, IGNORED, REFUSED before anything is stored, or FAILED.",
    ["outcome"],
)


# Old versions of Zammad follow a redirect, and lose the body on the way.
@no_append_slash
@csrf_exempt
def webhook(request: HttpRequest) -> HttpResponse:
    """Answer a delivery. The line answered stands in Zammad's log."""
    return _counted(request, lambda: _answer(request))


def refuse_unread(request: HttpRequest, status: int, text: str) -> HttpResponse:
    """Answer a delivery whose body the server did not take, as the endpoint answers."""
    return _counted(request, lambda: _line(status, text, reason=UNREAD[status]))


def _counted(request: HttpRequest, answer: Callable[[], "Line"]) -> HttpResponse:
    """Answer, and count what became of the delivery."""
    reason: RefusedDelivery.Reason | None = Reason.FAILED
    outcome = "FAILED"
    try:
        line = answer()
        reason, outcome = line.reason, line.told["outcome"]
        return line
    finally:
        DELIVERIES.labels(outcome).inc()
        if reason:
            count_refusal(
                reason=reason,
                delivery_id=read_delivery_id(request.headers.get("X-Zammad-Delivery")),
                now=timezone.now(),
            )


def _answer(request: HttpRequest) -> "Line":
    """Measure, verify, hand over.

    Zammad takes any 2xx for success and sends everything else again, four times.
    """
    if request.method != "POST":
        response = _line(405, "only POST is taken here", reason=Reason.METHOD_WRONG)
        response["Allow"] = "POST"
        return response
    secrets = [secret for secret in settings.ZAMMAD_WEBHOOK_SECRETS if secret]
    if not secrets:
        return _line(503, "no webhook secret is configured here", reason=Reason.NO_SECRET)
    try:
        body = request.read(settings.ZAMMAD_WEBHOOK_MAX_BYTES)  # no more comes: see config.bodies
    except UnreadablePostError:
        return _line(400, "body incomplete", reason=Reason.BODY_INCOMPLETE)
    announced = request.META.get("CONTENT_LENGTH", "")
    if announced.isdecimal() and len(body) < int(announced[:15]):
        return _line(400, "body incomplete", reason=Reason.BODY_INCOMPLETE)
    try:
        verify_signature(body, signature=request.headers.get("X-Hub-Signature"), secrets=secrets)
    except SignatureInvalid as error:
        return _line(403, str(error), reason=Reason(error.code))
    try:
        delivery = apply_delivery(
            body=body,
            delivery_id=request.headers.get("X-Zammad-Delivery"),
            trigger=request.headers.get("X-Zammad-Trigger"),
            now=timezone.now(),
        )
    except DatabaseFailure:
        logger.exception("A delivery of Zammad could not be stored")
        return _line(500, "could not be stored, try again", outcome="FAILED", reason=Reason.FAILED)
    answer = ": ".join(filter(None, [delivery.outcome, delivery.detail]))
    return _line(200, answer, outcome=delivery.outcome)


class Line(HttpResponse):
    """One line of plain text, what the request's own line in the log tells of it, and why it was refused."""

    told: dict[str, str]
    reason: RefusedDelivery.Reason | None


def _line(
    status: int, text: str, *, outcome: str = "REFUSED", reason: RefusedDelivery.Reason | None = None
) -> Line:
    line = Line(f"{text}\n", status=status, content_type="text/plain; charset=utf-8")
    line["Content-Language"] = "en"  # whatever was asked for
    line.told = {"outcome": outcome, "answer": text}
    line.reason = reason
    return line
