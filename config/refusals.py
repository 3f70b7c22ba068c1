"""Answer a request whose body is not taken, in the form that its client speaks."""

from http import HTTPStatus

from django.http import HttpRequest, HttpResponse
from django.utils import translation
from django.utils.deprecation import MiddlewareMixin
from django.utils.translation import gettext as _

from config.answers import try_again
from config.bodies import (
    GRAPHQL,
    PASSWORDS_BUSY,
    REFUSAL,
    RETRY_WHEN_BUSY,
    TOO_LARGE,
    UNREADABLE,
    WEBHOOK,
    Refusal,
    announced_length,
    largest_body,
)
from graphql_api.views import graphql_refusal
from zammad.views import refuse_unread


class BodyMiddleware(MiddlewareMixin):
    """Refuse what the server did not take, and under another server what announces too much."""

    def process_request(self, request: HttpRequest) -> HttpResponse | None:
        refusal: Refusal | None = request.META.get(REFUSAL) or refusal_of_announced(request)
        if refusal is None:
            return None
        with translation.override(translation.get_language_from_request(request)):
            response = in_the_form_of(request, refusal)
        if refusal.status == HTTPStatus.SERVICE_UNAVAILABLE:
            response["Retry-After"] = str(RETRY_WHEN_BUSY)
        return response


def refusal_of_announced(request: HttpRequest) -> Refusal | None:
    length = announced_length(request.META.get("CONTENT_LENGTH") or "0")
    if length is None:
        return UNREADABLE
    return TOO_LARGE if length > largest_body(request.path_info) else None


def in_the_form_of(request: HttpRequest, refusal: Refusal) -> HttpResponse:
    """Answer a refusal as the clients of a path expect their answers."""
    if request.path_info == WEBHOOK:
        return refuse_unread(request, refusal.status, refusal.line)
    message = _(refusal.message)
    if refusal is PASSWORDS_BUSY:
        return try_again(request, "passwords_busy", message, seconds=RETRY_WHEN_BUSY)
    if request.path_info in GRAPHQL:
        return graphql_refusal(request, refusal.status, message, refusal.code)
    return HttpResponse(f"{message}\n", status=refusal.status, content_type="text/plain; charset=utf-8")
