"""The GraphQL endpoint over HTTP: authentication, requests and responses."""

from __future__ import annotations

import json
import logging
from http import HTTPStatus
from typing import Any, NoReturn

from allauth.headless.internal.sessionkit import authenticate_by_x_session_token
from cross_web import HTTPException, SyncHTTPRequestAdapter
from django.conf import settings
from django.contrib.auth.models import AnonymousUser
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, UnreadablePostError
from django.http.response import HttpResponseBase
from django.middleware.csrf import CsrfViewMiddleware, get_token
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.generic import View
from strawberry.django.views import GraphQLView as StrawberryView
from strawberry.http import GraphQLHTTPResponse, GraphQLRequestData
from strawberry.types import ExecutionResult

from graphql_api import graphiql
from graphql_api.operations import current_request_id, may_explore
from graphql_api.responses import GRAPHQL_RESPONSE, JSON, graphql_refusal, media_type
from graphql_api.schema import schema
from graphql_api.second_factor import lacks_second_factor, second_factor_page
from graphql_api.types import Context
from zammad.deadline import shared_time

logger = logging.getLogger(__name__)

PARAMETERS = {"query": str, "operationName": str, "variables": dict, "extensions": dict}


class Refused(Exception):
    """The request is refused before anything of it is executed."""

    def __init__(self, status: HTTPStatus, message: str, code: str = "INVALID_INPUT") -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class CSRFCheck(CsrfViewMiddleware):
    """Django's check, returning the reason for a refusal instead of a page."""

    def _reject(self, request: HttpRequest, reason: str) -> Any:
        return reason


def identify(request: HttpRequest) -> None:
    """Identify the client: by session token, else by cookie with a CSRF check, else as anonymous.

    A token that is present is never ignored: a client whose session has ended must not continue
    as anonymous without noticing.

    :raises Refused:
    """
    token = request.headers.get("X-Session-Token")
    if token is not None:
        # PostgreSQL refuses to look for a token with NUL in it.
        authenticated = authenticate_by_x_session_token(token) if token.isalnum() else None
        if authenticated is None:
            raise Refused(
                HTTPStatus.UNAUTHORIZED, "This session token is unknown or has ended.", "NOT_AUTHENTICATED"
            )
        request.user, session = authenticated
    elif settings.SESSION_COOKIE_NAME in request.COOKIES:
        # The view itself is exempt, because only a cookie needs the check. It is not passed on here:
        # it would be exempt again.
        reason = CSRFCheck(lambda _: HttpResponse()).process_view(request, None, (), {})  # type: ignore[arg-type]
        if reason is not None:
            raise Refused(HTTPStatus.FORBIDDEN, f"CSRF check failed: {reason}", "CSRF_FAILED")
        session = request.session
    else:
        request.user = AnonymousUser()
        return
    if lacks_second_factor(request.user, session):
        page = settings.PUBLIC_URL + reverse("mfa_index")
        raise Refused(
            HTTPStatus.FORBIDDEN,
            f"Staff need a second factor here. Set one up at {page}, or sign in with yours.",
            "SECOND_FACTOR_REQUIRED",
        )


def check_body(request: HttpRequest) -> None:
    """Check that the body's type is JSON and that it arrived; middleware limits its size.

    :raises Refused:
    """
    if request.content_type != JSON:
        raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"Send the request as {JSON}.")
    try:
        _ = request.body
    except UnreadablePostError as error:
        raise Refused(HTTPStatus.BAD_REQUEST, "The body did not arrive.") from error


def refuse_constant(name: str) -> NoReturn:
    """Refuse NaN and infinities, which Python reads but JSON does not have."""
    raise ValueError(name)


class GraphQLView(StrawberryView[Context, None]):
    """Speak GraphQL over HTTP, https://graphql.github.io/graphql-over-http/draft/."""

    http_method_names = ["get", "head", "post", "options"]  # noqa: RUF012  # Django's own spelling
    allow_queries_via_get = False

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        return View.dispatch(self, request, *args, **kwargs)

    def get(self, request: HttpRequest) -> HttpResponseBase:
        """Return GraphiQL's page, with the cookie for its CSRF token."""
        if not request.accepts("text/html"):
            return self.http_method_not_allowed(request)
        if not may_explore(request.user):
            if not request.user.is_authenticated:
                return redirect_to_login(request.get_full_path())
            raise PermissionDenied
        if lacks_second_factor(request.user, request.session):
            return second_factor_page(request)
        get_token(request)
        response = HttpResponse(graphiql.page())
        response["Content-Security-Policy"] = graphiql.content_security_policy()
        return response

    def post(self, request: HttpRequest) -> HttpResponseBase:
        try:
            check_body(request)
            identify(request)
            # Many mutations in one operation may each call Zammad.
            with shared_time(settings.ZAMMAD_DEADLINE):
                return self.run(request=request)
        except Refused as refused:
            return graphql_refusal(request, refused.status, str(refused), refused.code)
        except HTTPException as error:
            return graphql_refusal(request, error.status_code, error.reason, "INVALID_INPUT")
        except Exception:
            # Outside the operation, such as a database that fails while the client is identified.
            request_id = current_request_id()
            logger.exception("GraphQL request %s failed", request_id)
            return graphql_refusal(
                request,
                HTTPStatus.INTERNAL_SERVER_ERROR,
                "Unexpected error.",
                "INTERNAL_ERROR",
                requestId=request_id,
            )

    def http_method_not_allowed(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        response = graphql_refusal(
            request, HTTPStatus.METHOD_NOT_ALLOWED, "Send GraphQL by POST.", "INVALID_INPUT"
        )
        pages = {"GET", "HEAD"} if request.method in {"GET", "HEAD"} else set()
        response["Allow"] = ", ".join(sorted({"GET", "HEAD", "OPTIONS", "POST"} - pages))
        return response

    def get_context(self, request: HttpRequest, response: HttpResponse) -> Context:
        return Context(request, response)

    def parse_http_body(self, request: SyncHTTPRequestAdapter) -> GraphQLRequestData:
        """Read one operation from the body; batches are refused.

        :raises Refused:
        """
        try:
            body = json.loads(self.request.body, parse_constant=refuse_constant)
        except (ValueError, RecursionError) as error:
            raise Refused(HTTPStatus.BAD_REQUEST, "The body is not JSON.") from error
        if not isinstance(body, dict):
            raise Refused(HTTPStatus.BAD_REQUEST, "The body is not a JSON object.")
        for name, kind in PARAMETERS.items():
            if not isinstance(body.get(name), kind | None):
                raise Refused(HTTPStatus.BAD_REQUEST, f"The parameter {name} has the wrong type.")
        return GraphQLRequestData(
            query=body.get("query"),
            variables=body.get("variables"),
            operation_name=body.get("operationName"),
            extensions=body.get("extensions"),
        )

    def process_result(self, request: HttpRequest, result: ExecutionResult) -> GraphQLHTTPResponse:
        # https://spec.graphql.org/draft/#sec-Response-Format: no data if nothing was executed.
        response = super().process_result(request, result)
        if result.data is None and result.errors and all(error.path is None for error in result.errors):
            del response["data"]
        return response

    def create_response(
        self, response_data: GraphQLHTTPResponse | list[GraphQLHTTPResponse], sub_response: HttpResponse
    ) -> HttpResponseBase:
        response = super().create_response(response_data, sub_response)
        response["Content-Type"] = media_type(self.request)
        if "data" not in response_data and response["Content-Type"].startswith(GRAPHQL_RESPONSE):
            response.status_code = HTTPStatus.BAD_REQUEST
        return response


graphql = csrf_exempt(never_cache(GraphQLView.as_view(schema=schema)))
