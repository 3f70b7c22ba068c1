"""The pages that belong to no room: whether we can serve, and where a person can go."""

import logging

from django.conf import settings
from django.db import Error as DatabaseFailure
from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

logger = logging.getLogger(__name__)


@never_cache
@require_safe
def healthz(_request: HttpRequest) -> HttpResponse:
    """Tell a load balancer whether this process can serve: whether its database answers."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseFailure:
        logger.exception("The database does not answer")
        return HttpResponse("database unavailable\n", content_type="text/plain", status=503)
    return HttpResponse("ok\n", content_type="text/plain")


@never_cache
@require_safe
def home(request: HttpRequest) -> HttpResponse:
    """Show a person as whom they are signed in, and where they can go from here."""
    return render(request, "home.html", {"may_use_graphiql": settings.DEBUG or request.user.is_staff})
