"""docs/security.md promises nothing without a test."""

from __future__ import annotations

import ast
import re
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "security.md").read_text()
PROMISE = re.compile(r"^\*\*(\d+)\. .*", re.MULTILINE)
NAMED = re.compile(r"`(tests/\w+\.py)::(\w+)`")


def promises() -> dict[str, str]:
    """Return the text of each promise, by its number: up to the next one, or the next heading."""
    part = PAGE.partition("\n## Promises\n")[2].partition("\n## ")[0]
    starts = [match.start() for match in PROMISE.finditer(part)] + [len(part)]
    texts = [part[start:end] for start, end in pairwise(starts)]
    return {re.match(r"\*\*(\d+)", text)[1]: text for text in texts}  # type: ignore[index]


@cache
def names_of(module: str) -> set[str]:
    return {
        node.name
        for node in ast.walk(ast.parse((ROOT / module).read_text()))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def test_promises_are_numbered_one_by_one() -> None:
    numbers = PROMISE.findall(PAGE)

    assert numbers == [str(n) for n in range(1, len(numbers) + 1)]
    assert list(promises()) == numbers


@pytest.mark.parametrize(("number", "text"), promises().items(), ids=promises())
def test_a_promise_names_the_tests_that_hold_it(number: str, text: str) -> None:
    named = NAMED.findall(text)

    assert named, f"Promise {number} names no test."
    assert [test for module, test in named if test not in names_of(module)] == []


def test_no_test_is_named_in_another_form() -> None:
    assert len(re.findall(r"\btest_\w+\b(?!\.py)", PAGE)) == len(NAMED.findall(PAGE))


def test_readers_find_the_page_and_the_policy() -> None:
    assert "docs/security.md" in (ROOT / "SECURITY.md").read_text()
    for page in ("README.md", "docs/operation.md"):
        assert "security.md" in (ROOT / page).read_text()
