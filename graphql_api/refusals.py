"""The codes of refusals, read from docstrings, for the schema and for docs/api.md."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeAlias

from plans import rules

RefusalClass: TypeAlias = (
    type[rules.Refusal] | type[rules.NotAuthenticated] | type[rules.NotPermitted] | type[rules.InvalidInput]
)
REFUSALS: list[RefusalClass] = [
    rules.NotAuthenticated,
    rules.NotPermitted,
    rules.InvalidInput,
    *rules.Refusal.__subclasses__(),
]


def explain(refusal: RefusalClass) -> tuple[str, str]:
    """Return the two sentences of a refusal's docstring: when it happens, and what to do about it."""
    when, _, remedy = (refusal.__doc__ or "").partition(". ")
    return f"{when}.", remedy


def codes_of(service: Callable[..., Any]) -> list[str]:
    """Return the codes of the refusals that a service's docstring says it raises."""
    codes = {refusal.__name__: refusal.code for refusal in REFUSALS}
    return [codes[name] for name in re.findall(r":raises (\w+):", service.__doc__ or "")]


def codes_as_list() -> str:
    return "\n".join(f"- `{refusal.code}`: {explain(refusal)[0]}" for refusal in REFUSALS)


def codes_as_table() -> str:
    rows = [(f"`{refusal.code}`", *explain(refusal)) for refusal in REFUSALS]
    lines = [("code", "when", "what to do"), ("---", "---", "---"), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
