"""The page for Prometheus: metrics of all processes, figures from the database, and the clock's offset."""

import logging
import os
import secrets
from collections.abc import Iterator

from django.conf import settings
from django.db import Error as DatabaseFailure
from django.http import Http404, HttpRequest, HttpResponse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from config.clock import clock_offset
from plans.models import FamilyPlanInvite
from zammad.models import WebhookDelivery

logger = logging.getLogger(__name__)


class CurrentFigures(Collector):
    """Figures that are measured on request: those from the database are the same on every machine."""

    def collect(self) -> Iterator[Metric]:
        try:
            open_invites = FamilyPlanInvite.objects.open(now=timezone.now()).count()
            last_delivery = WebhookDelivery.objects.last_received_at()
        except DatabaseFailure:
            # The other metrics are most useful while the database is down.
            logger.exception("Metrics could not be read from the database")
        else:
            yield GaugeMetricFamily(
                "family_plans_open_invites", "Invites that hold a seat now.", value=open_invites
            )
            yield GaugeMetricFamily(
                "family_plans_last_delivery_timestamp_seconds",
                "When the last authentic delivery from Zammad arrived, in Unix time; 0 if there was none.",
                value=last_delivery.timestamp() if last_delivery else 0,
            )
        try:
            offset = clock_offset()
        except DatabaseFailure:
            logger.exception("The clock could not be compared with the database's")
            return
        if offset is not None:
            yield GaugeMetricFamily(
                "family_plans_clock_offset_seconds",
                "How far this machine's clock is ahead of PostgreSQL's.",
                value=offset.total_seconds(),
            )


def counts() -> CollectorRegistry:
    """Return the metrics of all processes of the production server, or of this process elsewhere."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return REGISTRY
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return registry


@never_cache
@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """Return the metrics to bearers of METRICS_TOKEN; 404 if none is configured."""
    if not settings.METRICS_TOKEN:
        raise Http404
    expected = f"Bearer {settings.METRICS_TOKEN}"
    given = request.headers.get("Authorization", "")
    if not secrets.compare_digest(given.encode(), expected.encode()):
        refusal = HttpResponse("token missing or wrong\n", content_type="text/plain", status=401)
        refusal["WWW-Authenticate"] = "Bearer"
        return refusal
    text = generate_latest(counts()) + generate_latest(CurrentFigures())
    return HttpResponse(text, content_type=CONTENT_TYPE_LATEST)
