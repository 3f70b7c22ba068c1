"""Hold the exported schema against an earlier one: the changelog tells of what breaks clients."""

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
    """Git is missing, or knows no such thing here; the message is what it said."""


def git(*arguments: str) -> str:
    """Ask git about this repository.

    :raises GitRefused:
    """
    command = ["git", *arguments]
    try:
        done = subprocess.run(  # noqa: S603  # no shell, and no argument but ours and --against
            command, capture_output=True, text=True, check=True
        )
    except OSError as error:
        raise GitRefused(str(error)) from error
    except subprocess.CalledProcessError as error:
        raise GitRefused(error.stderr.strip()) from error
    return done.stdout.strip()


def earlier_revision() -> str:
    """Name the newest release, or before the first one what was there before the file last changed.

    :raises GitRefused:
    """
    tags = git("tag", "--list", "v[0-9]*", "--sort=-version:refname", "--merged", "HEAD").split()
    if releases := [tag for tag in tags if "-" not in tag]:
        return releases[0]
    if git("status", "--porcelain", "--", FILE):
        return "HEAD"
    return git("log", "-n", "1", "--format=%h", "--", FILE) + "^"


def coordinate_of(change: str) -> str:
    """Read out of graphql-core's sentence what it is about: `FamilyPlan.name`, `Query.plan(id:)`."""
    kinds = r"(?:field|argument|enum value|union type|directive|standard scalar)"
    coordinate = r"(@?\w+(?:\.\w+)?(?:\(\w+:\))?)"
    found = re.search(rf"\b{kinds} {coordinate}", change, re.IGNORECASE) or re.match(coordinate, change)
    return found[1] if found else change


def news_since(revision: str, changelog: str) -> str:
    """Return what the changelog says is new: Unreleased, or the release that is just being made of it."""
    changelog, *_ = changelog.split(f"\n## [{revision.removeprefix('v')}]")
    sections = re.split(r"^## .*\n", changelog, flags=re.MULTILINE)[1:]
    return next((section for section in sections if section.strip()), "")


def deprecated(schema: GraphQLSchema) -> Iterator[tuple[str, str]]:
    """List the coordinates of what is deprecated, with the reasons."""
    for name, kind in schema.type_map.items():
        for part, member in {**getattr(kind, "fields", {}), **getattr(kind, "values", {})}.items():
            arguments = getattr(member, "args", {})
            found = {f"{name}.{part}": member} | {
                f"{name}.{part}({arg}:)": arguments[arg] for arg in arguments
            }
            for coordinate, element in found.items():
                if element.deprecation_reason is not None:
                    yield coordinate, element.deprecation_reason


def names_a_replacement(reason: str, schema: GraphQLSchema) -> bool:
    """Tell whether a reason has something in backticks that the schema knows."""
    for words in re.findall(r"`([^`]+)`", reason):
        try:
            if resolve_schema_coordinate(schema, words):
                return True
        except (GraphQLError, TypeError):
            continue  # not a coordinate, or part of a type that is not there
    return False


def find_earlier(against: str | None) -> tuple[str, GraphQLSchema] | None:
    """Find what to compare with; None where the history has nothing, as in a shallow clone."""
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
    """Return what is wrong with the schema of the repository that is the current directory."""
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
            "Compare graphql_api/schema.graphql with its newest released version, or before the first "
            "release with the version before its last change. Refuse what breaks clients and is not named "
            "in the changelog, and what is deprecated without a replacement or a line there."
        )
    )
    parser.add_argument("--against", metavar="REF", help="Compare with this revision instead.")
    if problems := compare(parser.parse_args().against):
        sys.exit("\n".join(problems))
