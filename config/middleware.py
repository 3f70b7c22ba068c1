"""Middleware for every request: its id, log line and metric, early answers to probes, and a time limit."""

import logging
import re
import time
import uuid
from collections.abc import Callable
from http import HTTPStatus

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.urls import resolve
from django.utils import translation
from django.utils.deprecation import MiddlewareMixin
from prometheus_client import Histogram
from structlog.contextvars import bound_contextvars

from config.bodies import GRAPHQL
from config.postgresql.statements import statements_within
from graphql_api.responses import graphql_refusal
from zammad.webhooks import read_delivery_id

logger = logging.getLogger(__name__)

# Requested every few seconds, with any Host header.
PROBES = frozenset({"/healthz", "/readyz", "/metrics"})
# Clients choose the header: nothing else may reach the log.
REQUEST_ID = re.compile(r"[A-Za-z0-9-]{8,64}")
RETRY_WHEN_OVERLOADED = 30  # seconds
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

REQUESTS = Histogram(
    "family_plans_request_seconds",
    "Requests by the view that answered, and how long it took.",
    ["view", "method", "status"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)

GetResponse = Callable[[HttpRequest], HttpResponse]


class RequestMiddleware:
    """Give a request an id for its log lines and its response, then log and measure it."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        started = time.perf_counter()
        given = request.headers.get("X-Request-ID", "")
        request_id = given if REQUEST_ID.fullmatch(given) else str(uuid.uuid4())
        ids = {"request_id": request_id}
        # Zammad's log shows it, even if the delivery never reaches its view.
        if delivery_id := read_delivery_id(request.headers):
            ids["delivery_id"] = str(delivery_id)
        # A response before LocaleMiddleware must not be in the language of the thread's previous request.
        with bound_contextvars(**ids), translation.override(settings.LANGUAGE_CODE):
            response = self.get_response(request)
            seconds = time.perf_counter() - started
            view = request.resolver_match.view_name if request.resolver_match else ""
            method = request.method if request.method in METHODS else "other"
            REQUESTS.labels(view, method, response.status_code).observe(seconds)
            logger.log(
                level_of(request, response),
                "Request answered",
                # Without the query string, which may contain anything.
                extra={
                    "method": request.method,
                    "path": request.path,
                    "view": view,
                    "status": response.status_code,
                    "milliseconds": round(seconds * 1000, 1),
                    # What a view adds, such as the outcome of a delivery.
                    **getattr(response, "told", {}),
                },
            )
        response["X-Request-ID"] = request_id
        return response


def level_of(request: HttpRequest, response: HttpResponse) -> int:
    """Choose the log level: successful probes are not worth a line."""
    if response.status_code >= 500:
        return logging.WARNING
    if request.path_info in PROBES and response.status_code < 400:
        return logging.DEBUG
    return logging.INFO


class ProbeMiddleware(MiddlewareMixin):
    """Answer probes before the host is checked: load balancers use the IP address."""

    def process_request(self, request: HttpRequest) -> HttpResponse | None:
        if request.path_info not in PROBES:
            return None
        request.resolver_match = resolve(request.path_info)
        response: HttpResponse = request.resolver_match.func(request)
        return response


class StatementMiddleware:
    """Cancel statements that take too long, and answer 503 whichever code met the error."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        with statements_within(settings.DATABASE_STATEMENT_SECONDS) as limit:
            response = self.get_response(request)
        if not limit.passed:
            return response
        has_failed = response.status_code == HTTPStatus.INTERNAL_SERVER_ERROR
        status = HTTPStatus.SERVICE_UNAVAILABLE
        if request.path_info in GRAPHQL and request.method == "POST":
            # GraphQL reports errors with any status.
            message = "The service is overloaded. Try again soon."
            response = graphql_refusal(request, status, message, "SERVICE_UNAVAILABLE")
        elif has_failed and not request.path_info.startswith("/webhooks/"):
            # Without the request: its context processors would query the database again.
            response = HttpResponse(render_to_string("503.html"), status=status)
        else:
            return response  # the view handled the error, or Zammad will retry
        response["Retry-After"] = str(RETRY_WHEN_OVERLOADED)
        response["Cache-Control"] = "no-store"
        return response
