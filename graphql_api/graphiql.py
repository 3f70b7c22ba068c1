"""GraphiQL's page as Strawberry ships it, with our CSRF cookie's name, and what a browser may load for it."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache as remembered

from django.conf import settings
from strawberry.http.ides import get_graphql_ide_html

# How the page asks for the CSRF token; by this very text, so that another version is noticed.
READS_COOKIE = 'Cookies.get("csrftoken")'
SCRIPTS = re.compile(r'<script[^>]*\ssrc="(https:[^"]+)"')
STYLES = re.compile(r'<link[^>]*\srel="stylesheet"[^>]*\shref="(https:[^"]+)"')
INLINE_SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)

INLINE_STYLE = re.compile(r"<style>(.*?)</style>", re.DOTALL)


@remembered
def page() -> str:
    """Return the page; it is the same for everybody.

    :raises ValueError: when Strawberry's page is not the one that we know.
    """
    theirs = get_graphql_ide_html(graphql_ide="graphiql")
    if theirs.count(READS_COOKIE) != 1:
        raise ValueError("GraphiQL's page does not read the CSRF cookie as it used to.")
    return theirs.replace(READS_COOKIE, f'Cookies.get("{settings.CSRF_COOKIE_NAME}")')


@remembered
def content_security_policy() -> str:
    """Return the policy under which the page works: its files by their full addresses, its script by hash.

    Its windows write a style of their own, to stop the page behind from scrolling: without 'unsafe-inline'
    browsers refuse it, and note so on their console. Nothing else comes of that.
    """
    html = page()
    return "; ".join(
        (
            "default-src 'none'",
            " ".join(("script-src", *SCRIPTS.findall(html), *map(source_of, INLINE_SCRIPT.findall(html)))),
            " ".join(("style-src", *STYLES.findall(html), *map(source_of, INLINE_STYLE.findall(html)))),
            "font-src data:",
            "img-src data:",
            "connect-src 'self'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
        )
    )


def source_of(inline: str) -> str:
    digest = hashlib.sha256(inline.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
