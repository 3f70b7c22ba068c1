"""What Prometheus reads: the counts of all processes, and how many invites are open."""

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

from plans.models import FamilyPlanInvite

logger = logging.getLogger(__name__)


class OpenInvites(Collector):
    """Count the open invites when somebody asks: by the clock, as the seats are."""

    def collect(self) -> Iterator[Metric]:
        try:
            count = FamilyPlanInvite.objects.open(now=timezone.now()).count()
        except DatabaseFailure:
            # What was counted is worth reading most at such a time.
            logger.exception("The open invites could not be counted")
            return
        yield GaugeMetricFamily("family_plans_open_invites", "Invites that hold a seat now.", value=count)


def counts() -> CollectorRegistry:
    """Return what was counted: by all processes of the production server, or else by this one."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return REGISTRY
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return registry


@never_cache
@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """Answer the metrics to whoever brings METRICS_TOKEN; without one configured there is no page."""
    if not settings.METRICS_TOKEN:
        raise Http404
    expected = f"Bearer {settings.METRICS_TOKEN}"
    given = request.headers.get("Authorization", "")
    if not secrets.compare_digest(given.encode(), expected.encode()):
        refusal = HttpResponse("token missing or wrong\n", content_type="text/plain", status=401)
        refusal["WWW-Authenticate"] = "Bearer"
        return refusal
    at_this_moment = CollectorRegistry()
    at_this_moment.register(OpenInvites())
    return HttpResponse(
        generate_latest(counts()) + generate_latest(at_this_moment), content_type=CONTENT_TYPE_LATEST
    )
