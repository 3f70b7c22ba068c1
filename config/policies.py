"""What browsers may do with our answers: Content-Security-Policy and Permissions-Policy, on each of them."""

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

# Everything comes from files of ours; nothing stands in the page itself, and nobody may frame it.
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
# No page of ours uses any of these. Only names that Chromium knows: it complains of others.
NOBODY = """
    accelerometer autoplay camera display-capture encrypted-media fullscreen geolocation gyroscope
    hid identity-credentials-get idle-detection local-fonts magnetometer microphone midi
    otp-credentials payment picture-in-picture publickey-credentials-create
    publickey-credentials-get screen-wake-lock serial storage-access usb window-management
    xr-spatial-tracking
"""
PERMISSIONS = ", ".join(f"{feature}=()" for feature in NOBODY.split())
# What a policy can name; an address such as [::1] it cannot.
HOST = re.compile(r"[A-Za-z0-9._-]+")


class PolicyMiddleware(MiddlewareMixin):
    """Put both policies on every answer, unless a page has a Content-Security-Policy of its own."""

    def process_response(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        response.setdefault("Permissions-Policy", PERMISSIONS)
        if not response.has_header("Content-Security-Policy"):
            response["Content-Security-Policy"] = header(policy_for(request, response))
        return response


def policy_for(request: HttpRequest, response: HttpResponse) -> Mapping[str, str]:
    """Return the strict policy, with the page after an invite among the targets of forms that lead there.

    Chromium holds form-action against each redirect that follows a form: the button of an invite
    leads to that page, and so does a sign-in on the way to an invite that one has used already.
    """
    is_page = response.get("Content-Type", "").startswith("text/html") and not response.has_header("Location")
    # A failure has no form that leads there, and the database may be what failed.
    if not is_page or response.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return STRICT
    if not (way_back.is_invite_page(request) or way_back.token_of(request)):
        return STRICT
    target = source_of(page_after_an_invite())
    return {**STRICT, "form-action": f"'self' {target}"} if target else STRICT


def page_after_an_invite() -> str:
    """Return where an accepted invite leads; empty where the database does not tell in time."""
    try:
        with statements_within(settings.DATABASE_STATEMENT_SECONDS):
            return PlanSettings.current().invite_accepted_url
    except DatabaseError as error:
        logger.warning("A policy was written without the page after an invite: %s", type(error).__name__)
        return ""


def source_of(page: str) -> str:
    """Return the origin of a page as a policy names it; empty for a path of ours."""
    parts = urlsplit(page)
    if not parts.netloc:
        return ""
    try:
        host = (parts.hostname or "").encode("idna").decode()
        port = f":{parts.port}" if parts.port else ""
    except ValueError:  # no host that a browser would find
        return ""
    return f"{parts.scheme}://{host}{port}" if HOST.fullmatch(host) else f"{parts.scheme}:"


def header(policy: Mapping[str, str]) -> str:
    return "; ".join(f"{directive} {sources}" for directive, sources in policy.items())
