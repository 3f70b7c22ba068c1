"""Write the table of codes into the page for API users."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from graphql_api.refusals import codes_as_table

BEGIN, END = "<!-- codes: make schema writes them -->", "<!-- end of codes -->"


class Command(BaseCommand):
    help = "Write the codes of refusals, as the code explains them, into docs/api.md."

    def handle(self, **_options: Any) -> None:
        page = settings.BASE_DIR / "docs" / "api.md"
        text = page.read_text()
        begin, end = text.index(BEGIN) + len(BEGIN), text.index(END)
        page.write_text(f"{text[:begin]}\n{codes_as_table()}\n{text[end:]}")
