"""Clients can follow the schema: the changelog names what breaks them, and what is going to."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

BASE_DIR = Path(__file__).resolve().parent.parent
SCHEMA = """
type Query {
  plan(id: ID!): Plan
}

type Plan {
  id: ID!
  name: String!
  title: String!
  status: Status!
}

enum Status {
  OPEN
  CLOSED
}

union Found = Plan | Query

input Filters {
  name: String
}
"""
CHANGELOG = "# Changelog\n\n## [Unreleased]\n\n{news}\n\n## [0.1.0]\n\n- `Plan.name` is new.\n"
BREAKING = {
    "Plan.name": ("  name: String!\n  title", "  title"),
    "Plan.title": ("title: String!", "title: String"),
    "Query.plan": ("plan(id: ID!): Plan", "plan(id: ID!): Status"),
    "Query.plan(id:)": ("(id: ID!", "(id: String!"),
    "Query.plan(token:)": ("(id: ID!", "(id: ID!, token: String!"),
    "Status.OPEN": ("  OPEN\n", ""),
    "Status": ("enum Status {\n  OPEN\n  CLOSED\n}", "scalar Status"),
    "Found": ("Plan | Query", "Plan"),
    "Filters.name": ("name: String\n}\n", "name: String!\n}\n"),
    "Filters.id": ("input Filters {", "input Filters {\n  id: ID!"),
}


class Clone:
    """A clone of a repository that has a schema and a changelog."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.git("init", "--quiet", "--initial-branch=main")
        self.git("config", "user.name", "Alice")
        self.git("config", "user.email", "alice@example.com")
        (folder / "graphql_api").mkdir()
        self.write(SCHEMA)
        self.tell("")

    def git(self, *arguments: str) -> None:
        command = ["git", *arguments]
        subprocess.run(command, cwd=self.folder, check=True, capture_output=True)

    def write(self, schema: str) -> None:
        (self.folder / "graphql_api/schema.graphql").write_text(schema)

    def tell(self, news: str) -> None:
        (self.folder / "CHANGELOG.md").write_text(CHANGELOG.format(news=news))

    def commit(self) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message=Change things")

    def tag(self, name: str) -> None:
        self.git("tag", name)


def compare_schema(*arguments: str) -> None:
    """Run the tool in the current directory.

    :raises SystemExit: with what it refuses.
    """
    tool = str(BASE_DIR / ".ci" / "compare_schema.py")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [tool, *arguments])
        runpy.run_path(tool, run_name="__main__")


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clone:
    # A git hook that runs the tests must not lead them to its own repository, and nobody's
    # configuration matters.
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.chdir(tmp_path)
    return Clone(tmp_path)


@pytest.mark.parametrize("coordinate", BREAKING)
def test_what_breaks_clients_is_refused_until_the_changelog_names_it(
    coordinate: str, clone: Clone, capsys: pytest.CaptureFixture[str]
) -> None:
    # given a release, and a change that breaks clients
    clone.commit()
    clone.tag("v0.1.0")
    before, after = BREAKING[coordinate]
    assert SCHEMA.count(before) == 1
    clone.write(SCHEMA.replace(before, after))
    clone.commit()

    # when the changelog does not mention it, or names something else
    for news in ("", "- Something else: `Plan`, Plan.name, `Plan.names`, `Query.plan(ids:)`."):
        clone.tell(news)
        with pytest.raises(SystemExit) as refused:
            compare_schema()
        assert str(refused.value) == f"Name `{coordinate}` under Unreleased in CHANGELOG.md."

    # when it names it
    clone.tell(f"- `{coordinate}` is not what it was.")
    compare_schema()

    # then it passes
    assert capsys.readouterr().out.splitlines()[-2] == "Compared with v0.1.0."


def test_what_only_adds_passes_and_what_may_surprise_is_told(
    clone: Clone, capsys: pytest.CaptureFixture[str]
) -> None:
    clone.commit()
    clone.write(SCHEMA.replace("OPEN", "OPEN\n  PAUSED").replace("id: ID!)", "id: ID!, name: String)"))
    clone.commit()

    compare_schema()

    _, *told = capsys.readouterr().out.splitlines()
    assert sorted(told) == [
        "May surprise clients: An optional argument Query.plan(name:) was added.",
        "May surprise clients: Enum value Status.PAUSED was added.",
    ]


def test_the_newest_release_is_what_counts(clone: Clone, capsys: pytest.CaptureFixture[str]) -> None:
    for version, schema in (("v0.9.0", SCHEMA), ("v0.10.0", SCHEMA.replace("  OPEN\n", ""))):
        clone.write(schema)
        clone.commit()
        clone.tag(version)
    clone.tag("v0.11.0-rc1")
    clone.tag("vacation")
    clone.commit()

    compare_schema()

    assert capsys.readouterr().out == "Compared with v0.10.0.\n"


def test_before_the_first_release_the_last_change_counts(clone: Clone) -> None:
    clone.commit()
    clone.write(SCHEMA.replace("  OPEN\n", ""))

    # not committed yet, just committed, and a commit of something else later
    for commits in (0, 1, 1):
        for _ in range(commits):
            clone.commit()
        with pytest.raises(SystemExit, match=r"`Status\.OPEN`"):
            compare_schema()


def test_a_release_that_is_just_being_made_has_its_news_under_its_own_name(clone: Clone) -> None:
    clone.commit()
    clone.tag("v0.1.0")
    clone.write(SCHEMA.replace("  OPEN\n", ""))
    changelog = "## [Unreleased]\n\n## [0.2.0]\n\n- `Status.OPEN` is gone.\n\n## [0.1.0]\n\n- The first.\n"
    (clone.folder / "CHANGELOG.md").write_text(changelog)

    compare_schema()


def test_it_can_be_compared_with_any_revision(clone: Clone, capsys: pytest.CaptureFixture[str]) -> None:
    clone.commit()
    clone.git("branch", "earlier")
    for status in ("OPEN", "CLOSED"):
        clone.write(
            (clone.folder / "graphql_api/schema.graphql").read_text().replace(status, f"{status}_NOW")
        )
        clone.commit()

    with pytest.raises(SystemExit, match=r"`Status\.OPEN`.*\n.*`Status\.CLOSED`"):
        compare_schema("--against", "earlier")
    assert "Compared with earlier." in capsys.readouterr().out

    for odd in ("nowhere", "--output=here"):
        with pytest.raises(SystemExit, match=r"There is no graphql_api/schema\.graphql in"):
            compare_schema(f"--against={odd}")
    assert not (clone.folder / "here").exists()


def test_without_an_earlier_version_it_says_so(
    clone: Clone,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # given the first commit of all
    clone.commit()
    compare_schema()
    # and a shallow clone without tags, whose schema changed before
    clone.write(SCHEMA.replace("  OPEN\n", ""))
    clone.commit()
    clone.tag("v0.1.0")
    shallow = tmp_path_factory.mktemp("shallow")
    clone.git("clone", "--quiet", "--depth=1", "--no-tags", f"file://{clone.folder}", str(shallow))
    monkeypatch.chdir(shallow)
    compare_schema()
    # and no repository at all
    unpacked = tmp_path_factory.mktemp("unpacked")
    (unpacked / "graphql_api").mkdir()
    for name in ("graphql_api/schema.graphql", "CHANGELOG.md"):
        (unpacked / name).write_text((clone.folder / name).read_text())
    monkeypatch.chdir(unpacked)
    compare_schema()

    said = capsys.readouterr().out.splitlines()
    assert len(said) == 3
    assert all(line.startswith("Compared with nothing, for the history here has no") for line in said)


def test_without_git_it_says_so(
    clone: Clone, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(clone.folder))

    compare_schema()

    assert "Compared with nothing" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("coordinate", "before"),
    [
        ("Plan.title", "title: String!"),
        ("Query.plan(id:)", "(id: ID!"),
        ("Status.OPEN", "OPEN"),
        ("Filters.name", "input Filters {\n  name: String"),
    ],
)
def test_what_is_deprecated_names_a_replacement_and_has_a_line_in_the_changelog(
    coordinate: str, before: str, clone: Clone
) -> None:
    def deprecate(reason: str) -> None:
        clone.write(SCHEMA.replace(before, f'{before} @deprecated(reason: "{reason}")'))

    # when there is neither
    clone.commit()
    for reason in (
        "Out of fashion.",
        "Use Plan.name.",
        "Use `Plan.nickname`.",
        "Use `Nobody.name`.",
        "Use `that one`.",
    ):
        deprecate(reason)
        with pytest.raises(SystemExit) as refused:
            compare_schema()
        assert str(refused.value).splitlines() == [
            f"{coordinate} is deprecated: name its replacement, in backticks, in the reason.",
            f"{coordinate} is deprecated: name `{coordinate}` in CHANGELOG.md.",
        ]

    # when there are both
    deprecate("Use `Plan.name`.")
    clone.tell(f"- `{coordinate}` is deprecated.")
    compare_schema()


def test_our_own_schema_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(BASE_DIR)

    compare_schema()
