"""Content-Security-Policy and Permissions-Policy, on every response."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from http import HTTPStatus
from urllib.parse import urlsplit

from django.conf import settings
from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse
from django.utils.deprecation import MiddlewareMixin

from config import way_back
from config.postgresql.statements import statements_within
from plans.settings import PlanSettings

logger = logging.getLogger(__name__)

# Scripts and styles only from our own files, nothing inline, no framing.
STRICT = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' data:",  # the empty icon, and admin's arrows
    "font-src": "'self'",
    "connect-src": "'self'",
    "form-action": "'self'",
    "frame-ancestors": "'none'",
    "base-uri": "'none'",
}
# Our pages use none of these. Only names that Chromium knows: it warns about others.
UNUSED_FEATURES = """
    accelerometer autoplay camera display-capture encrypted-media fullscreen geolocation gyroscope
    hid identity-credentials-get idle-detection local-fonts magnetometer microphone midi
    otp-credentials payment picture-in-picture publickey-credentials-create
    publickey-credentials-get screen-wake-lock serial storage-access usb window-management
    xr-spatial-tracking
"""
PERMISSIONS = ", ".join(f"{feature}=()" for feature in UNUSED_FEATURES.split())
HOST = re.compile(r"[A-Za-z0-9._-]+")  # a policy cannot name an address such as [::1]


class PolicyMiddleware(MiddlewareMixin):
    """Set both headers, unless a page has its own Content-Security-Policy."""

    def process_response(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        response.setdefault("Permissions-Policy", PERMISSIONS)
        if not response.has_header("Content-Security-Policy"):
            response["Content-Security-Policy"] = header(policy_for(request, response))
        return response


def policy_for(request: HttpRequest, response: HttpResponse) -> Mapping[str, str]:
    """Return the strict policy, with INVITE_ACCEPTED_URL in the form-action of pages whose forms lead there.

    Chromium checks form-action for each redirect after a form: an invite's button leads to that page, and
    so does a sign-in on the way to an invite that you have already accepted.
    """
    is_page = response.get("Content-Type", "").startswith("text/html") and not response.has_header("Location")
    # An error page has no such form, and the database may be the cause.
    if not is_page or response.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return STRICT
    if not (way_back.is_invite_page(request) or way_back.token_of(request)):
        return STRICT
    try:
        with statements_within(settings.DATABASE_STATEMENT_SECONDS):
            target = source_of(PlanSettings.current().invite_accepted_url)
    except DatabaseError as error:
        logger.warning("A policy was written without INVITE_ACCEPTED_URL: %s", type(error).__name__)
        return STRICT
    return {**STRICT, "form-action": f"'self' {target}"} if target else STRICT


def source_of(page: str) -> str:
    """Return the origin of a page as a CSP source; empty for a path on this site."""
    parts = urlsplit(page)
    if not parts.netloc:
        return ""
    try:
        host = (parts.hostname or "").encode("idna").decode()
        port = f":{parts.port}" if parts.port else ""
    except ValueError:  # an invalid host or port
        return ""
    return f"{parts.scheme}://{host}{port}" if HOST.fullmatch(host) else f"{parts.scheme}:"


def header(policy: Mapping[str, str]) -> str:
    return "; ".join(f"{directive} {sources}" for directive, sources in policy.items())
