"""The form of responses of /graphql/: their media type, and how a refusal of the transport looks."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse, JsonResponse

JSON = "application/json"
GRAPHQL_RESPONSE = "application/graphql-response+json"


def media_type(request: HttpRequest) -> str:
    preferred = request.get_preferred_type([JSON, GRAPHQL_RESPONSE]) or JSON
    return f"{preferred}; charset=utf-8"


def graphql_refusal(
    request: HttpRequest, status: int, message: str, code: str, **extensions: str
) -> HttpResponse:
    """Refuse a request of which nothing was executed, before or in the view."""
    errors = [{"message": message, "extensions": {"code": code, **extensions}}]
    return JsonResponse({"errors": errors}, status=status, content_type=media_type(request))
