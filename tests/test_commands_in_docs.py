"""The commands on the pages run as written, in the environment that the pages state."""

import os
import re
import secrets
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from django.core.management import get_commands, load_command_class

from tests.server import Server, free_port
from tests.test_readme import answers
from zammad.sandbox import Sandbox

BASE_DIR = Path(__file__).resolve().parent.parent
CONTRIBUTING = BASE_DIR / "CONTRIBUTING.md"
FOR_OPERATORS = [BASE_DIR / "README.md", *sorted((BASE_DIR / "docs").rglob("*.md"))]
PAGES = [CONTRIBUTING, *FOR_OPERATORS]
# The environment of a person who has set nothing, with the interpreter where the pages name it.
NOTHING_SET = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "ENV_FILE": ""}
PASSWORD = "correct-horse-battery-staple"


def commands_in(page: Path) -> list[str]:
    """Return the commands of manage.py on a page, each once, with what precedes it."""
    text = page.read_text()
    code = [
        line
        for block in re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        for line in block.splitlines()
    ]
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    code += re.findall(r"^ {4,}(\S.*)$", text, re.MULTILINE)
    text = re.sub(r"^ {4,}\S.*$", "", text, flags=re.MULTILINE)
    code += [span for part in text.split("\n\n") for span in re.findall(r"`([^`]+)`", part)]
    lines = (" ".join(line.split()) for line in code)
    return list(dict.fromkeys(line for line in lines if re.search(r"manage\.py [a-z]", line)))


def as_it_stands(line: str) -> str:
    """Return a line for a shell here: without cron's times, and in our directory instead of the page's."""
    line = re.sub(r"^(?:[\d*/]+ ){5}", "", line).replace("cd /srv/family-plans && ", "")
    return line.replace(".venv/bin/python", shlex.quote(sys.executable))


def run(line: str, environment: dict[str, str], *, typed: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/usr/bin/env", "bash", "-c", line],
        cwd=BASE_DIR,
        env=environment,
        input=typed,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        start_new_session=True,  # without a terminal to prompt for passwords
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_have_the_options_that_pages_name(page: Path) -> None:
    for line in commands_in(page):
        before, _, after = line.partition("manage.py ")
        assert not before or before.endswith((".venv/bin/python ", "PYTHON ")), line
        name, *options = shlex.split(after)
        load_command_class(get_commands()[name], name).create_parser("manage.py", name).parse_args(options)


def test_developers_commands_run_with_nothing_but_what_the_page_says() -> None:
    lines = commands_in(CONTRIBUTING)
    assert lines

    for line in lines:
        assert line.startswith("DEBUG=true .venv/bin/python manage.py "), line
        dry = " --check --dry-run" if "makemigrations" in line else ""
        result = run(as_it_stands(line) + dry, NOTHING_SET)
        assert result.returncode == 0, line + result.stderr

        # and not without it
        result = run(as_it_stands(line).removeprefix("DEBUG=true "), NOTHING_SET)
        assert result.returncode == 1
        assert "Set SECRET_KEY" in result.stderr


def test_developers_tools_run_with_nothing_set() -> None:
    tools = re.findall(r"`(\.venv/bin/python \.ci/[^`]+)`", CONTRIBUTING.read_text())
    assert tools

    for line in tools:
        result = run(as_it_stands(line), NOTHING_SET)
        assert result.returncode == 0, line + result.stderr


def test_operators_commands_run_in_the_environment_of_production(tmp_path: Path) -> None:
    lines = list(dict.fromkeys(line for page in FOR_OPERATORS for line in commands_in(page)))
    assert len(lines) >= 8
    with Sandbox(retry_factor=0.001) as zammad:
        database = f"sqlite:///{tmp_path}/db.sqlite3"
        server = Server(tmp_path, database, zammad.url, {"ZAMMAD_API_TOKEN": zammad.token})
        environment = {**NOTHING_SET, **server.environment, "PATH": NOTHING_SET["PATH"]}
        del environment["DEBUG"]
        assert run(f"{shlex.quote(sys.executable)} manage.py migrate", environment).returncode == 0

        for line in lines:
            if "manage.py serve" in line:
                continue  # it keeps running: tests/test_serve.py starts it
            if not line.partition("manage.py")[0]:
                line = f".venv/bin/python {line}"  # a page that names it in passing
            told = as_it_stands(line).replace("INSTALLING=... ", f"INSTALLING={shlex.quote(zammad.token)} ")
            result = run(told, environment, typed=f"{PASSWORD}\n" * 2 * ("create_admin" in line))
            assert result.returncode == 0, line + result.stdout + result.stderr

        # and none of them without it
        result = run(as_it_stands(lines[0]), NOTHING_SET)
        assert result.returncode == 1
        assert "Set SECRET_KEY" in result.stderr


def test_the_image_is_built_in_an_environment_that_its_command_accepts() -> None:
    containerfile = re.sub(r"\\\n\s*", "", (BASE_DIR / "Containerfile").read_text())
    [line] = re.findall(r"^RUN (.* manage\.py collectstatic) --no-input$", containerfile, re.MULTILINE)

    result = run(as_it_stands(line).replace(" collectstatic", " check"), NOTHING_SET)

    assert result.returncode == 0, result.stderr


def make(*arguments: str) -> list[str]:
    """Return the command line of make that installs nothing and uses this Python."""
    installed = [f"-o.venv/installed-{kind}" for kind in ("base", "dev")]
    return ["make", *installed, *arguments, f"BIN={Path(sys.executable).parent}"]


def test_make_run_works_with_nothing_set(tmp_path: Path) -> None:
    port, sandbox_port = free_port(), free_port()
    log = tmp_path / "log"
    with log.open("w") as output:
        running = subprocess.Popen(
            make("run", f"PORT={port}", f"SANDBOX_PORT={sandbox_port}"),
            cwd=BASE_DIR,
            env={**NOTHING_SET, "DATABASE_URL": f"sqlite:///{tmp_path}/db.sqlite3"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        ends_at = time.monotonic() + 90
        while not answers(f"http://127.0.0.1:{port}/healthz"):
            assert running.poll() is None, log.read_text()
            assert time.monotonic() < ends_at, log.read_text()
            time.sleep(0.1)
    finally:
        os.killpg(running.pid, signal.SIGINT)  # as Ctrl-C does
        running.wait(timeout=30)
    assert "4 accounts made" in log.read_text()
    assert "Stopped." in log.read_text()


def test_make_test_works_with_nothing_set() -> None:
    result = subprocess.run(
        make("test", "PYTEST_ARGS=--collect-only -q tests/test_seats.py"),
        cwd=BASE_DIR,
        env={**NOTHING_SET, "HOME": os.environ.get("HOME", "/")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert result.returncode == 0, result.stdout + result.stderr
    assert "tests collected" in result.stdout


def test_a_production_environment_needs_no_word_about_debug(tmp_path: Path) -> None:
    """An operator's .env that does not mention DEBUG is enough for each command."""
    server = Server(tmp_path, f"sqlite:///{tmp_path}/db.sqlite3")
    del server.environment["DEBUG"]
    (tmp_path / "env").write_text("".join(f"{name}={value}\n" for name, value in server.environment.items()))

    result = run(
        f"{shlex.quote(sys.executable)} manage.py shell --no-imports -c "
        "'from django.conf import settings; print(settings.DEBUG)'",
        {"PATH": os.defpath, "ENV_FILE": str(tmp_path / "env"), "UNUSED": secrets.token_hex(4)},
    )

    assert result.stdout == "False\n", result.stderr
