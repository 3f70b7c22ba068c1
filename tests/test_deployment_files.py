"""The image, the compose file and the unit name only what exists; whether they run is not tested."""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.core.management import get_commands, load_command_class

BASE_DIR = Path(__file__).resolve().parent.parent
CONTAINERFILE = re.sub(r"\\\n\s*", "", (BASE_DIR / "Containerfile").read_text())
COMPOSE: dict[str, Any] = yaml.safe_load((BASE_DIR / "compose.yaml").read_text())
UNIT = BASE_DIR / "docs" / "systemd" / "family-plans.service"
EXAMPLE = (BASE_DIR / ".env.example").read_text()
# They are not ours to document.
ELSEWHERE = {"PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"}


def instructions(name: str, text: str = CONTAINERFILE) -> list[str]:
    return re.findall(rf"^{name} (.*)$", text, re.MULTILINE)


def documented() -> set[str]:
    return set(re.findall(r"^# ([A-Z_]+)=", EXAMPLE, re.MULTILINE)) | ELSEWHERE


def check_command(words: list[str]) -> None:
    """Check that a line runs a command of manage.py with options that it has."""
    python, manage, name, *options = words
    assert python.endswith(".venv/bin/python")
    assert (BASE_DIR / manage).exists()
    command = load_command_class(get_commands()[name], name)
    command.create_parser("manage.py", name).parse_args(options)


def test_the_image_is_made_of_what_is_there() -> None:
    ignored = (BASE_DIR / ".dockerignore").read_text().splitlines()
    _, build, _ = CONTAINERFILE.split("\nFROM ")
    copied = [path for line in instructions("COPY", build) for path in shlex.split(line)[:-1]]

    assert {"config", "graphql_api", "plans", "zammad", "manage.py", "requirements/base.txt"} <= set(copied)
    for path in copied:
        assert (BASE_DIR / path).exists(), path
        assert f"!{path}" in ignored, path
    assert ignored[1] == "*", "everything else stays out of the context: .env, databases"


def test_the_image_holds_no_build_tools_and_is_not_run_by_root() -> None:
    *_, result = CONTAINERFILE.split("\nFROM ")

    assert "pip uninstall --yes pip setuptools wheel" in result
    assert "--without-pip" in CONTAINERFILE
    assert instructions("COPY", result) == ["--from=build /app /app"]
    assert instructions("USER", result) == ["10001"]


def test_the_image_starts_the_server_that_was_prepared() -> None:
    [command] = instructions("CMD")
    [environment] = instructions("ENV")
    [health] = instructions("HEALTHCHECK")

    check_command(json.loads(command))
    assert {word.partition("=")[0] for word in shlex.split(environment)} <= documented()
    assert "/healthz" in health
    compile(json.loads(health.split("CMD ")[1])[2], "HEALTHCHECK", "exec")


def test_the_compose_file_names_what_there_is() -> None:
    services = COMPOSE["services"]

    assert set(services) == {"database", "cache", "migrate", "web"}
    check_command(services["migrate"]["command"])
    for service in (services["migrate"], services["web"]):
        assert (BASE_DIR / service["build"]["dockerfile"]).exists()
        assert set(service["environment"]) <= documented()
        assert set(service["depends_on"]) <= set(services)
    # Only web is reachable, and only from this machine's proxy.
    assert [service.get("ports") for service in services.values()].count(None) == 3
    assert services["web"]["ports"] == ["127.0.0.1:8000:8000"]
    assert services["web"]["environment"]["DATABASE_URL"].endswith("@database:5432/plans")
    assert services["web"]["environment"]["CACHE_URL"] == "redis://cache:6379/0"


def test_the_unit_runs_what_there_is() -> None:
    unit = UNIT.read_text()

    started = re.findall(r"^ExecStart\w*=(.*)$", unit, re.MULTILINE)
    assert len(started) == 2
    for line in started:
        check_command(shlex.split(line))
    assert re.findall(r"^User=(.*)$", unit, re.MULTILINE) == ["family-plans"]
    [environment] = re.findall(r"^Environment=(.*)$", unit, re.MULTILINE)
    assert {word.partition("=")[0] for word in shlex.split(environment)} <= documented()


ANALYZE = shutil.which("systemd-analyze") or ""


@pytest.mark.skipif(not ANALYZE, reason="systemd is missing")
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / UNIT.name
    unit.write_text(
        UNIT.read_text().replace("/srv/family-plans/.venv/bin/python", shutil.which("true") or "")
    )

    result = subprocess.run(
        [ANALYZE, "verify", str(unit)], capture_output=True, text=True, timeout=60, check=False
    )

    assert result.returncode == 0, result.stderr
    assert UNIT.name not in result.stderr
