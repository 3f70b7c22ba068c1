"""The format of responses that no view chooses: refused bodies, JSON under /_allauth/, Retry-After."""

from __future__ import annotations

import json
import logging
from http import HTTPStatus
from typing import Any

from django.core.exceptions import RequestDataTooBig, ValidationError
from django.db import DataError, ProgrammingError
from django.http import HttpRequest, HttpResponse, JsonResponse, UnreadablePostError
from django.shortcuts import render
from django.utils import translation
from django.utils.deprecation import MiddlewareMixin
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from config.account_mail import MailUnavailable
from config.bodies import (
    API,
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
from config.devices import new_token, remember_in_cookie
from config.passwords import PasswordsBusy
from graphql_api.responses import graphql_refusal
from plans.models import is_storable
from zammad.views import refuse_unread

logger = logging.getLogger(__name__)

MAX_DEPTH = 10  # of JSON: allauth reads flat objects, and passkeys with a few levels
MAX_QUERY = 8 * 1024  # characters of a query string in admin: SQLite refuses much longer patterns
RETRY_MAIL = 30  # seconds, after a failure of the mail server
RETRY_WHEN_LIMITED = 60  # seconds, if the limit does not say

# The code and the message of a status, for responses without JSON of their own.
ERRORS = {
    400: ("bad_request", gettext_lazy("The request could not be read.")),
    403: ("forbidden", gettext_lazy("You are not allowed to do this.")),
    404: ("not_found", gettext_lazy("Not found.")),
    405: ("method_not_allowed", gettext_lazy("This method is not allowed.")),
    408: ("request_timeout", gettext_lazy("The request took too long to arrive.")),
    411: ("length_required", gettext_lazy("The request must have a Content-Length header.")),
    413: ("too_large", gettext_lazy("The request is too large.")),
    429: ("rate_limited", gettext_lazy("Too many requests. Wait a moment, then try again.")),
    500: ("internal_error", gettext_lazy("Something went wrong. Try again later.")),
    503: ("service_unavailable", gettext_lazy("The service is currently unavailable. Try again soon.")),
}


class AnswersMiddleware(MiddlewareMixin):
    """Give every response the format that its client expects."""

    def process_response(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        retry_after = getattr(request, "retry_after", 0)
        # For allauth, too many wrong passwords are a form error.
        if retry_after and response.status_code in {HTTPStatus.OK, HTTPStatus.BAD_REQUEST}:
            response.status_code = HTTPStatus.TOO_MANY_REQUESTS
        if response.status_code == HTTPStatus.TOO_MANY_REQUESTS and "Retry-After" not in response:
            response["Retry-After"] = str(retry_after or RETRY_WHEN_LIMITED)
        if is_api(request):
            return in_json(request, response)
        remember_in_cookie(request, response)
        return response

    def process_view(
        self, request: HttpRequest, _view: object, _arguments: object, _named: object
    ) -> HttpResponse | None:
        if is_admin_query(request) and len(request.META["QUERY_STRING"]) > MAX_QUERY:
            return render(request, "400.html", status=HTTPStatus.BAD_REQUEST)
        if not is_api(request) or request.method in {"GET", "HEAD", "OPTIONS"}:
            return None
        try:
            check_json(request.body)
        except RequestDataTooBig:
            return error_in_json(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        except (ValueError, RecursionError, UnreadablePostError):
            return error_in_json(HTTPStatus.BAD_REQUEST)
        return None

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        if isinstance(exception, MailUnavailable):
            text = _("The email could not be sent. Try again soon.")
            return try_again(request, "mail_unavailable", text, seconds=RETRY_MAIL)
        if isinstance(exception, PasswordsBusy):
            return try_again(request, "passwords_busy", _(PASSWORDS_BUSY.message), seconds=RETRY_WHEN_BUSY)
        if is_admin_query(request) and isinstance(
            exception, (ValueError, OverflowError, ValidationError, DataError, ProgrammingError)
        ):
            logger.warning("An invalid query in admin: %s", type(exception).__name__)
            return render(request, "400.html", status=HTTPStatus.BAD_REQUEST)
        return None


class BodyMiddleware(MiddlewareMixin):
    """Answer the server's refusals of bodies; under other servers, refuse announced sizes here."""

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
    """Answer a refusal in the format of its path."""
    if request.path_info == WEBHOOK:
        return refuse_unread(request, refusal.status, refusal.line)
    message = _(refusal.message)
    if refusal is PASSWORDS_BUSY:
        return try_again(request, "passwords_busy", message, seconds=RETRY_WHEN_BUSY)
    if request.path_info in GRAPHQL:
        return graphql_refusal(request, refusal.status, message, refusal.code)
    return HttpResponse(f"{message}\n", status=refusal.status, content_type="text/plain; charset=utf-8")


def is_api(request: HttpRequest) -> bool:
    return f"{request.path_info}/".startswith(API)


def is_admin_query(request: HttpRequest) -> bool:
    """Return whether this is an admin page with a query string, which people can edit."""
    match = request.resolver_match
    return match is not None and match.namespace == "admin" and bool(request.GET)


def check_json(body: bytes) -> None:
    """Check a body, which allauth would parse without limits.

    :raises ValueError: it is not JSON, too deep, or contains a huge number or text that cannot be stored.
    :raises RecursionError: it is very deep.
    """
    if not body:
        return
    level: list[Any] = [json.loads(body.decode())]
    if not isinstance(level[0], dict):
        raise ValueError("no object")
    for _depth in range(MAX_DEPTH):
        inner: list[Any] = []
        for value in level:
            if isinstance(value, str) and not is_storable(value):
                raise ValueError("not storable")
            if isinstance(value, dict):
                inner += [*value.keys(), *value.values()]
            elif isinstance(value, list):
                inner += value
        if not inner:
            return
        level = inner
    raise ValueError("too deep")


def in_json(request: HttpRequest, response: HttpResponse) -> HttpResponse:
    """Make a response of the API JSON, and add the status, missing errors and a new device token."""
    status = response.status_code
    if 300 <= status < 400:
        return response
    is_json = response.headers.get("Content-Type", "").startswith("application/json")
    token = new_token(request)
    if is_json and not token and status != HTTPStatus.TOO_MANY_REQUESTS:
        return response
    answer: dict[str, Any] = json.loads(response.content) if is_json else {}
    answer["status"] = status
    if status in ERRORS and not answer.get("errors"):
        answer["errors"] = errors_of(status)
    elif status >= HTTPStatus.BAD_REQUEST and not is_json:
        answer["errors"] = errors_of(500 if status >= 500 else 400)
    if token:
        answer["meta"] = {**answer.get("meta", {}), "device_token": token}
    response.content = json.dumps(answer).encode()
    response["Content-Type"] = "application/json"
    if "Content-Length" in response:
        response["Content-Length"] = str(len(response.content))
    return response


def error_in_json(status: int) -> HttpResponse:
    return JsonResponse({"status": status, "errors": errors_of(status)}, status=status)


def errors_of(status: int) -> list[dict[str, str]]:
    code, message = ERRORS[status]
    return [{"code": code, "message": str(message)}]


def try_again(request: HttpRequest, code: str, text: str, *, seconds: int) -> HttpResponse:
    """Answer 503 with Retry-After."""
    status = HTTPStatus.SERVICE_UNAVAILABLE
    if is_api(request):
        error = {"code": code, "message": text}
        response: HttpResponse = JsonResponse({"status": status, "errors": [error]}, status=status)
    else:
        response = render(request, f"{code}.html", status=status)
    response["Retry-After"] = str(seconds)
    return response
