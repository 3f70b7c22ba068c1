"""Compare the exported schema with an earlier version: the changelog must name what breaks clients."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from graphql import (
    GraphQLError,
    GraphQLSchema,
    build_schema,
    find_breaking_changes,
    find_dangerous_changes,
    resolve_schema_coordinate,
)

FILE = "graphql_api/schema.graphql"


class GitRefused(Exception):
    """Git is missing or refuses a command; the message is its own."""


def git(*arguments: str) -> str:
    """Run git, and return its output.

    :raises GitRefused:
    """
    command = ["git", *arguments]
    try:
        process = subprocess.run(  # noqa: S603  # no shell, and no argument but ours and --against
            command, capture_output=True, text=True, check=True
        )
    except OSError as error:
        raise GitRefused(str(error)) from error
    except subprocess.CalledProcessError as error:
        raise GitRefused(error.stderr.strip()) from error
    return process.stdout.strip()


def earlier_revision() -> str:
    """Return the newest release or, before the first one, the revision before the schema last changed.

    :raises GitRefused:
    """
    tags = git("tag", "--list", "v[0-9]*", "--sort=-version:refname", "--merged", "HEAD").split()
    if releases := [tag for tag in tags if "-" not in tag]:
        return releases[0]
    if git("status", "--porcelain", "--", FILE):
        return "HEAD"
    return git("log", "-n", "1", "--format=%h", "--", FILE) + "^"


def coordinate_of(change: str) -> str:
    """Find the coordinate in a sentence of graphql-core's: `FamilyPlan.name`, `Query.plan(id:)`."""
    kinds = r"(?:field|argument|enum value|union type|directive|standard scalar)"
    coordinate = r"(@?\w+(?:\.\w+)?(?:\(\w+:\))?)"
    match = re.search(rf"\b{kinds} {coordinate}", change, re.IGNORECASE) or re.match(coordinate, change)
    return match[1] if match else change


def news_since(revision: str, changelog: str) -> str:
    """Return the changelog's newest section that is not empty: Unreleased, or a release being made."""
    changelog, *_ = changelog.split(f"\n## [{revision.removeprefix('v')}]")
    sections = re.split(r"^## .*\n", changelog, flags=re.MULTILINE)[1:]
    return next((section for section in sections if section.strip()), "")


def deprecated(schema: GraphQLSchema) -> Iterator[tuple[str, str]]:
    """Yield the coordinate of each deprecated element, with its reason."""
    for name, kind in schema.type_map.items():
        for part, member in {**getattr(kind, "fields", {}), **getattr(kind, "values", {})}.items():
            arguments = getattr(member, "args", {})
            elements = {f"{name}.{part}": member} | {
                f"{name}.{part}({arg}:)": arguments[arg] for arg in arguments
            }
            for coordinate, element in elements.items():
                if element.deprecation_reason is not None:
                    yield coordinate, element.deprecation_reason


def names_a_replacement(reason: str, schema: GraphQLSchema) -> bool:
    """Return whether a reason contains a coordinate of the schema in backticks."""
    for words in re.findall(r"`([^`]+)`", reason):
        try:
            if resolve_schema_coordinate(schema, words):
                return True
        except (GraphQLError, TypeError):
            continue  # not a coordinate, or of a type that does not exist
    return False


def find_earlier(against: str | None) -> tuple[str, GraphQLSchema] | None:
    """Return the version to compare with; None if history has none, as in a shallow clone."""
    try:
        revision = against or earlier_revision()
        schema = build_schema(git("show", "--end-of-options", f"{revision}:{FILE}"))
    except GitRefused as refused:
        if against:
            sys.exit(f"There is no {FILE} in {against}: {refused}")
        print(f"Compared with nothing, for the history here has no earlier version: {refused}")
        return None
    print(f"Compared with {revision}.")
    return revision, schema


def compare(against: str | None) -> list[str]:
    """Return the problems with the schema of the repository in the current directory."""
    schema = build_schema(Path(FILE).read_text())
    changelog = Path("CHANGELOG.md").read_text()
    problems = []
    for coordinate, reason in deprecated(schema):
        if not names_a_replacement(reason, schema):
            problems.append(f"{coordinate} is deprecated: name its replacement, in backticks, in the reason.")
        if f"`{coordinate}`" not in changelog:
            problems.append(f"{coordinate} is deprecated: name `{coordinate}` in CHANGELOG.md.")
    if found := find_earlier(against):
        revision, earlier = found
        news = news_since(revision, changelog)
        for dangerous in find_dangerous_changes(earlier, schema):
            print(f"May surprise clients: {dangerous.description}")
        for breaking in find_breaking_changes(earlier, schema):
            print(f"Breaks clients: {breaking.description}")
            coordinate = coordinate_of(breaking.description)
            if f"`{coordinate}`" not in news:
                problems.append(f"Name `{coordinate}` under Unreleased in CHANGELOG.md.")
    return problems


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=(
            "Compare graphql_api/schema.graphql with its newest released version or, before the first "
            "release, with the version before its last change. Fail if the changelog does not name a "
            "breaking change or a deprecation, or if a deprecation names no replacement."
        )
    )
    parser.add_argument("--against", metavar="REF", help="Compare with this revision instead.")
    if problems := compare(parser.parse_args().against):
        sys.exit("\n".join(problems))
