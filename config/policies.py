"""What browsers may do with our answers: Content-Security-Policy and Permissions-Policy, on each of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from django.http import HttpRequest, HttpResponse

from config import way_back
from plans.settings import PlanSettings

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
NOBODY = (
    "accelerometer",
    "autoplay",
    "camera",
    "display-capture",
    "encrypted-media",
    "fullscreen",
    "geolocation",
    "gyroscope",
    "hid",
    "identity-credentials-get",
    "idle-detection",
    "local-fonts",
    "magnetometer",
    "microphone",
    "midi",
    "otp-credentials",
    "payment",
    "picture-in-picture",
    "publickey-credentials-create",
    "publickey-credentials-get",
    "screen-wake-lock",
    "serial",
    "storage-access",
    "usb",
    "window-management",
    "xr-spatial-tracking",
)
PERMISSIONS = ", ".join(f"{feature}=()" for feature in NOBODY)
# What a policy can name; an address such as [::1] it cannot.
HOST = re.compile(r"[A-Za-z0-9._-]+")


class PolicyMiddleware:
    """Put both policies on every answer, unless a page has a Content-Security-Policy of its own."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
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
    if not is_page or not (way_back.is_invite_page(request) or way_back.token_of(request)):
        return STRICT
    target = source_of(PlanSettings.current().invite_accepted_url)
    return {**STRICT, "form-action": f"'self' {target}"} if target else STRICT


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
