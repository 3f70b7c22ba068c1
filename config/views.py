"""The health checks and the start page."""

import logging
import uuid
from functools import cache as remembered

from django.conf import settings
from django.core.cache import cache
from django.db import Error as DatabaseFailure
from django.db import connection
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from config.clock import MAX_OFFSET, clock_offset

logger = logging.getLogger(__name__)


@never_cache
@require_safe
def healthz(_request: HttpRequest) -> HttpResponse:
    """Report whether this process can serve requests: whether its database answers."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseFailure:
        logger.exception("The database does not answer")
        return _not_ready("database unavailable")
    return HttpResponse("ok\n", content_type="text/plain")


@never_cache
@require_safe
def readyz(_request: HttpRequest) -> HttpResponse:
    """Report whether everything that requests need is available, or what is missing."""
    try:
        missing = needed_migrations() - set(MigrationRecorder(connection).applied_migrations())
        offset = clock_offset()
    except DatabaseFailure:
        logger.exception("The database does not answer")
        return _not_ready("database unavailable")
    if missing:
        return _not_ready("migrations missing")
    if not _cache_answers():
        return _not_ready("cache unavailable")
    if offset is not None and abs(offset) > MAX_OFFSET:
        seconds = round(offset.total_seconds(), 1)
        logger.warning("This machine's clock is %s seconds ahead of PostgreSQL's", seconds)
        return _not_ready("clock differs from the database's")
    return HttpResponse("ready\n", content_type="text/plain")


@remembered
def needed_migrations() -> frozenset[tuple[str, str]]:
    """Return the migrations that this version of the code needs, as app and name."""
    return frozenset(MigrationLoader(None).graph.nodes)


def _cache_answers() -> bool:
    """Write and read a value: the cache may be full or read-only."""
    key = f"readyz-{uuid.uuid4()}"
    try:
        cache.set(key, 1, timeout=60)
        answers = bool(cache.get(key) == 1)
        cache.delete(key)
    except Exception:  # each backend has its own errors
        logger.exception("The cache does not answer")
        return False
    return answers


def _not_ready(reason: str) -> HttpResponse:
    return HttpResponse(f"{reason}\n", content_type="text/plain", status=503)


@never_cache
@require_safe
def home(request: HttpRequest) -> HttpResponse:
    return render(request, "home.html", {"may_use_graphiql": settings.DEBUG or request.user.is_staff})


def not_offered(_request: HttpRequest, **_parts: str) -> HttpResponse:
    """Hide a library's page that we do not use."""
    raise Http404
