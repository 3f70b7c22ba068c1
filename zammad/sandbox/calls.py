"""A request to the sandbox, and its error responses."""

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self, TypeVar

T = TypeVar("T")


class Refusal(Exception):
    """An error response of Zammad's API."""

    def __init__(self, status: int, error: str, *, is_human: bool = True) -> None:
        super().__init__(error)
        self.status = status
        self.answer = {"error": error, **({"error_human": error} if is_human else {})}

    @classmethod
    def masked(cls) -> Self:
        """Refuse with Zammad's response to unexpected errors, whose reason only its log contains.

        https://github.com/zammad/zammad/blob/stable/app/controllers/application_controller/handles_errors.rb
        """
        error = f"Error ID {secrets.token_urlsafe(6)}: Please contact your administrator."
        return cls(422, error, is_human=False)


@dataclass(frozen=True, slots=True)
class Call:
    """One request."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        """:raises Refusal:"""
        try:
            body = json.loads(self.body)
        except ValueError:
            body = None
        if not isinstance(body, dict):
            raise Refusal(400, "The body is not a JSON object.")
        return body

    def page(self, rows: list[T], *, size: int, most: int = 1000) -> list[T]:
        """Return the requested page; `size` is Zammad's default, and `most` its limit."""
        try:
            size = int(self.query.get("per_page") or self.query.get("limit") or size)
            page = int(self.query.get("page", 1))
        except ValueError:
            size, page = 0, 1  # as Ruby converts text
        size = min(size, most)
        start = (page - 1) * size
        if size < 0 or start < 0:
            raise Refusal.masked()
        return rows[start : start + size]
