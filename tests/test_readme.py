"""README and the pages of docs cannot rot: the journey is pasted into a shell, and the commands exist."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings
from django.contrib.admin.models import DELETION, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.core.management import get_commands
from django.utils import timezone

from plans.models import FamilyPlanInvite
from tests.factories import FamilyPlanFactory, InviteFactory, UserFactory
from zammad.models import ZammadUser

BASE_DIR = Path(__file__).resolve().parent.parent
README = (BASE_DIR / "README.md").read_text()
JOURNEY = (BASE_DIR / "docs" / "journey.md").read_text()
OPERATION = (BASE_DIR / "docs" / "operation.md").read_text()
SETTINGS = (BASE_DIR / "docs" / "settings.md").read_text()
PAGES = [BASE_DIR / "README.md", BASE_DIR / "CONTRIBUTING.md", *sorted((BASE_DIR / "docs").rglob("*.md"))]
MAKEFILE = (BASE_DIR / "Makefile").read_text()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310  # our own server
            return bool(answer.status == 200)
    except OSError:
        return False


@pytest.fixture
def running(tmp_path: Path) -> Iterator[int]:
    """Run what `make run` runs, with a database of its own; yield its port."""
    port, sandbox_port = free_port(), free_port()
    environment = {
        "PATH": os.environ["PATH"],
        "ENV_FILE": "",
        "DEBUG": "true",
        "PORT": str(port),
        "SANDBOX_PORT": str(sandbox_port),
        "DATABASE_URL": f"sqlite:///{tmp_path}/db.sqlite3",
    }
    log = tmp_path / "log"
    with log.open("w") as output:
        server = subprocess.Popen(
            [sys.executable, "manage.py", "demo_server"],
            cwd=BASE_DIR,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + 60
        while not answers(f"http://127.0.0.1:{port}/healthz"):
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        assert answers(f"http://127.0.0.1:{sandbox_port}/"), "/healthz speaks for the sandbox too"
        yield port
    finally:
        server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=20) == 0
    assert "Stopped." in log.read_text()
    assert not answers(f"http://127.0.0.1:{sandbox_port}/"), "nothing is left running"


def test_the_journey_does_what_it_says(running: int) -> None:
    # given the blocks of the journey, against this test's port
    script = "\n".join(re.findall(r"```sh\n(.*?)```", JOURNEY, re.DOTALL))
    assert "url=http://127.0.0.1:8000\n" in script
    script = script.replace("url=http://127.0.0.1:8000\n", f"url=http://127.0.0.1:{running}\n")

    # when they are pasted
    result = subprocess.run(
        ["/usr/bin/env", "bash", "-euo", "pipefail", "-c", script],
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    # then every step returns what the text promises
    assert result.returncode == 0, result.stdout + result.stderr
    answered = [json.loads(line)["data"] for line in result.stdout.splitlines() if line.startswith("{")]
    invited, accepted, looked, detached, told = answered
    created = invited["createInvite"]
    assert created["url"] == f"http://127.0.0.1:{running}/invites/{created['token']}/"
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", created["token"])
    assert created["invite"]["status"] == "OPEN"
    assert accepted == {
        "acceptInvite": {
            "plan": {"name": "The Archers"},
            "redirectUrl": f"http://127.0.0.1:{running}/invites/accepted/",
        }
    }
    assert [member["user"]["displayName"] for member in looked["plan"]["members"]] == [
        "Alice Archer",
        "Bob Baker",
        "Carol Carter",
    ]
    assert (looked["plan"]["seatsTaken"], looked["plan"]["seatsAvailable"]) == (3, 2)
    assert detached == {
        "detachMember": {"plan": {"seatsTaken": 2}, "invite": {"isUsed": False, "status": "EXPIRED"}}
    }
    assert told == {
        "viewer": {
            "membership": {"role": "MEMBER", "zammadUserId": 4, "zammadUser": {"firstname": "Bob"}},
            "plan": {"name": "The Archers"},
        }
    }


def test_the_pages_that_readme_and_journey_name_are_there(running: int) -> None:
    for page in re.findall(r"<http://127\.0\.0\.1:8000(/[^>]*)>", README + JOURNEY):
        assert answers(f"http://127.0.0.1:{running}{page}"), page


@pytest.mark.django_db
def test_what_erases_a_person_leaves_no_row_with_their_address() -> None:
    # given a person who is gone, and rows that name them
    staff = UserFactory(is_staff=True)
    plan = FamilyPlanFactory()
    InviteFactory(family_plan=plan, email="gone@example.com")
    InviteFactory(family_plan=plan, email="here@example.com")
    now = timezone.now()
    ZammadUser.objects.create(zammad_id=57, email="gone@example.com", updated_at=now)
    ZammadUser.objects.create(zammad_id=58, email="here@example.com", updated_at=now)
    deleted_user = ContentType.objects.get_for_model(staff)
    LogEntry.objects.create(
        user=staff,
        content_type=deleted_user,
        object_id="1",
        object_repr="gone@example.com",
        action_flag=DELETION,
    )

    # when the code on the page runs
    (lines,) = re.findall(r"```python\n(.*?)```", OPERATION, re.DOTALL)
    exec(lines, {})  # noqa: S102  # our own page

    # then only the others are left
    assert list(FamilyPlanInvite.objects.values_list("email", flat=True)) == ["here@example.com"]
    assert list(ZammadUser.objects.values_list("email", flat=True)) == ["here@example.com"]
    assert not LogEntry.objects.exists()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text()

    assert set(re.findall(r"manage\.py ([a-z_]+)", text)) <= set(get_commands())
    assert set(re.findall(r"`make ([a-z]+)|^    make ([a-z]+)", text, re.MULTILINE)) <= {
        pair
        for target in re.findall(r"^([a-z]+):", MAKEFILE, re.MULTILINE)
        for pair in ((target, ""), ("", target))
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_links_between_the_pages_lead_somewhere(page: Path) -> None:
    text = page.read_text()

    for target in re.findall(r"\]\((?!https?:)([^)#]+)|<img src=\"([^\"]+)", text):
        assert (page.parent / "".join(target)).exists(), target


def test_a_page_documents_each_setting_of_admin() -> None:
    for name in settings.CONSTANCE_CONFIG:
        assert f"`{name}`" in SETTINGS


def test_the_example_environment_documents_each_variable_that_the_settings_read() -> None:
    text = (BASE_DIR / "config/settings.py").read_text()
    read = set(re.findall(r'(?:env\.\w+|secret_list)\(\s*"([A-Z_]+)"', text))
    documented = set(re.findall(r"^# ([A-Z_]+)=", (BASE_DIR / ".env.example").read_text(), re.MULTILINE))

    assert read <= documented
    assert documented - read == {"WEB_CONCURRENCY"}
