"""The webhook endpoint that Zammad calls: its responses and metrics."""

import logging

from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.db import Error as DatabaseFailure
from django.db import transaction
from django.http import HttpRequest, HttpResponse, UnreadablePostError
from django.utils import timezone
from django.views.decorators.common import no_append_slash
from django.views.decorators.csrf import csrf_exempt
from prometheus_client import Counter

from zammad.models import RefusalReason
from zammad.refusals import count_refusal
from zammad.services import apply_delivery
from zammad.webhooks import BodyIncomplete, Delivery, SignatureInvalid, read_delivery_id

logger = logging.getLogger(__name__)

# The reason why the server refused a body, by the status of its response.
UNREAD = {
    400: RefusalReason.LENGTH_INVALID,
    408: RefusalReason.BODY_TOO_SLOW,
    413: RefusalReason.BODY_TOO_LARGE,
    503: RefusalReason.TOO_BUSY,
}

DELIVERIES = Counter(
    "family_plans_deliveries",
    "Deliveries of Zammad: APPLIED, UNCHANGED, STALE, IGNORED, REFUSED before anything is stored, or FAILED.",
    ["outcome"],
)


@transaction.non_atomic_requests  # the service opens its own
@login_not_required  # the signature authenticates the caller
@no_append_slash  # old versions of Zammad follow a redirect and lose the body
@csrf_exempt
def webhook(request: HttpRequest) -> HttpResponse:
    """Respond to a delivery with a line of text, which appears in Zammad's log.

    Zammad takes any 2xx for success and retries everything else, four times.
    """
    if request.method != "POST":
        response = refuse(request, 405, "only POST is accepted here", RefusalReason.METHOD_WRONG)
        response["Allow"] = "POST"
        return response
    secrets, now = settings.ZAMMAD_WEBHOOK_SECRETS, timezone.now()
    if not any(secrets):
        return refuse(request, 503, "no webhook secret is configured here", RefusalReason.NO_SECRET)
    try:
        body = request.read(settings.ZAMMAD_WEBHOOK_MAX_BYTES)  # it is no longer: see config.bodies
        delivery = Delivery.from_http(request.headers, body, secrets=secrets, now=now)
        receipt = apply_delivery(delivery=delivery, now=now)
    except (UnreadablePostError, BodyIncomplete):
        return refuse(request, 400, "body incomplete", RefusalReason.BODY_INCOMPLETE)
    except SignatureInvalid as error:
        return refuse(request, 403, str(error), RefusalReason(error.code))
    except DatabaseFailure:
        logger.exception("A delivery of Zammad could not be stored")
        return refuse(request, 500, "could not be stored, try again", RefusalReason.FAILED)
    except Exception:
        count(request, RefusalReason.FAILED)
        raise
    DELIVERIES.labels(receipt.outcome).inc()
    return Line(200, ": ".join(filter(None, [receipt.outcome, receipt.detail])), outcome=receipt.outcome)


def refuse_unread(request: HttpRequest, status: int, text: str) -> HttpResponse:
    """Respond to a delivery whose body the server refused."""
    return refuse(request, status, text, UNREAD[status])


def refuse(request: HttpRequest, status: int, text: str, reason: RefusalReason) -> HttpResponse:
    """Refuse a delivery, and count the reason."""
    return Line(status, text, outcome=count(request, reason))


def count(request: HttpRequest, reason: RefusalReason) -> str:
    """Count a refused delivery, and return its outcome."""
    outcome = "FAILED" if reason is RefusalReason.FAILED else "REFUSED"
    DELIVERIES.labels(outcome).inc()
    count_refusal(reason=reason, delivery_id=read_delivery_id(request.headers), now=timezone.now())
    return outcome


class Line(HttpResponse):
    """One line of plain text, with fields for the log line of the request."""

    def __init__(self, status: int, text: str, *, outcome: str) -> None:
        super().__init__(f"{text}\n", status=status, content_type="text/plain; charset=utf-8")
        self["Content-Language"] = "en"  # not the language of the request
        self.told = {"outcome": outcome, "answer": text}
