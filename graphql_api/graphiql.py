"""GraphiQL's page from Strawberry, with the name of our CSRF cookie, and its Content-Security-Policy."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache

from django.conf import settings
from strawberry.http.ides import get_graphql_ide_html

# How the page reads the CSRF token; any other text means a version that we do not know.
READS_COOKIE = 'Cookies.get("csrftoken")'
SCRIPTS = re.compile(r'<script[^>]*\ssrc="(https:[^"]+)"')
STYLES = re.compile(r'<link[^>]*\srel="stylesheet"[^>]*\shref="(https:[^"]+)"')
INLINE_SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)
INLINE_STYLE = re.compile(r"<style>(.*?)</style>", re.DOTALL)


@cache
def page() -> str:
    """Return the page, which is the same for everyone.

    :raises ValueError: if Strawberry's page is not the one that we know.
    """
    html = get_graphql_ide_html(graphql_ide="graphiql")
    if html.count(READS_COOKIE) != 1:
        raise ValueError("GraphiQL's page reads the CSRF cookie in an unknown way.")
    return html.replace(READS_COOKIE, f'Cookies.get("{settings.CSRF_COOKIE_NAME}")')


@cache
def content_security_policy() -> str:
    """Return a policy that allows the page's files by their full addresses, and inline code by hash.

    Browsers refuse the style by which its dialogs stop the page behind from scrolling, and say so on
    their console: that would need 'unsafe-inline'. It has no other effect.
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
