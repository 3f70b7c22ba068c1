"""What `make run` makes and starts: demo data, one process, and clear messages when it cannot."""

import datetime
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.utils import timezone
from pytest_django import Settings

from plans import services
from plans.models import FamilyPlan, FamilyPlanInvite, Membership, PlanEvent
from plans.queries import addresses_of
from tests.test_settings import PRODUCTION

BASE_DIR = Path(__file__).resolve().parent.parent
EVERYBODY = ["admin@example.com", "alice@example.com", "bob@example.com", "carol@example.com"]


@pytest.fixture
def _development(settings: Settings) -> None:
    settings.DEBUG = True


# --- The data -------------------------------------------------------------------------------------


@pytest.mark.django_db
@pytest.mark.usefixtures("_development")
def test_demo_data_is_four_people_and_a_plan_of_two() -> None:
    call_command("demo_data")

    people = {user.email: user for user in User.objects.all()}
    assert sorted(people) == EVERYBODY
    assert all(user.check_password("demo-password") for user in people.values())
    assert all(addresses_of(user.pk) == [email] for email, user in people.items())
    assert [email for email, user in people.items() if user.is_superuser] == ["admin@example.com"]
    assert list(Membership.objects.owner_first().values_list("user__email", "role")) == [
        ("alice@example.com", "OWNER"),
        ("bob@example.com", "MEMBER"),
    ]
    assert list(PlanEvent.objects.order_by("pk").values_list("kind", flat=True)) == [
        "PLAN_CREATED",
        "INVITE_CREATED",
        "INVITE_ACCEPTED",
    ]


@pytest.mark.django_db
@pytest.mark.usefixtures("_development")
def test_demo_data_made_again_changes_nothing() -> None:
    call_command("demo_data")
    alice = User.objects.get(email="alice@example.com")
    alice.set_password("a-password-of-her-own")
    alice.save()

    call_command("demo_data")

    alice.refresh_from_db()
    assert alice.check_password("a-password-of-her-own")
    assert (User.objects.count(), FamilyPlan.objects.count(), PlanEvent.objects.count()) == (4, 1, 3)


@pytest.mark.django_db
@pytest.mark.usefixtures("_development")
def test_an_account_that_was_there_already_is_put_into_no_plan() -> None:
    bob = User.objects.create_user("bob", "Bob@example.com", "a-password-of-his-own")

    call_command("demo_data")

    bob.refresh_from_db()
    assert bob.check_password("a-password-of-his-own")
    assert User.objects.count() == 4
    assert not Membership.objects.exists()


@pytest.mark.django_db
@pytest.mark.usefixtures("_development")
def test_detaching_the_demos_member_answers_the_invite_by_which_he_came() -> None:
    call_command("demo_data")
    seat = Membership.objects.get(user__email="bob@example.com")

    detached = services.detach_member(
        actor=User.objects.get(email="alice@example.com"), membership_id=seat.pk
    )

    invite = FamilyPlanInvite.objects.get()
    assert detached.invite is not None
    assert detached.invite.pk == invite.pk
    assert invite.expires_at <= timezone.now() < invite.created_at + datetime.timedelta(hours=1)


@pytest.mark.django_db
@pytest.mark.usefixtures("_development")
def test_a_database_of_other_people_gets_no_accounts_with_a_public_password() -> None:
    User.objects.create_user("somebody", "somebody@company.example", "a-password-of-their-own")

    with pytest.raises(CommandError, match="holds accounts of others"):
        call_command("demo_data")

    assert User.objects.count() == 1


@pytest.mark.django_db
def test_demo_data_is_refused_with_debug_off() -> None:
    with pytest.raises(CommandError, match="created only with DEBUG on"):
        call_command("demo_data")

    assert not User.objects.exists()


# --- The process ----------------------------------------------------------------------------------


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def environment_of(tmp_path: Path) -> dict[str, str]:
    return {
        "PATH": os.defpath,
        "ENV_FILE": "",
        "DEBUG": "true",
        "DATABASE_URL": f"sqlite:///{tmp_path}/db.sqlite3",
    }


def start(tmp_path: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "manage.py", "demo_server", *arguments],
        cwd=BASE_DIR,
        env={
            "PATH": os.environ["PATH"],
            "ENV_FILE": "",
            "DEBUG": "true",
            "DATABASE_URL": f"sqlite:///{tmp_path}/db.sqlite3",
            "PORT": free_port(),
            "SANDBOX_PORT": free_port(),
            **environment,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for(port: str, server: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", int(port))) == 0:
                return
        assert server.poll() is None, "it ended"
        assert time.monotonic() < deadline, "it never listened"
        time.sleep(0.1)


@pytest.mark.parametrize("name", ["PORT", "SANDBOX_PORT"])
def test_a_taken_port_is_told_by_the_name_of_its_variable(tmp_path: Path, name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])

        output, _ = start(tmp_path, **{name: port}).communicate(timeout=60)

    assert f"Cannot listen on 127.0.0.1:{port}" in output
    assert f"set {name} to another port" in output
    assert "Traceback" not in output


def test_a_dead_zammad_stops_no_start_and_a_deleted_file_ends_it(tmp_path: Path) -> None:
    port, running = free_port(), tmp_path / "running"
    server = start(tmp_path, "--while-exists", str(running), PORT=port, ZAMMAD_URL="http://127.0.0.1:9")
    wait_for(port, server)

    running.unlink()  # as make does when it is interrupted

    output, _ = server.communicate(timeout=20)
    assert server.returncode == 0
    assert "http://127.0.0.1:9/    Zammad" in output
    assert "Stopped." in output


def test_sixty_four_connections_at_once_are_all_answered(tmp_path: Path) -> None:
    port = free_port()
    server = start(tmp_path, PORT=port)
    wait_for(port, server)
    request = b"GET /accounts/login/ HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"

    with ExitStack() as stack:
        connections = [
            stack.enter_context(socket.create_connection(("127.0.0.1", int(port)), timeout=60))
            for _ in range(64)
        ]
        for connection in connections:
            connection.sendall(request)
        first_lines = {connection.makefile("rb").readline() for connection in connections}

    server.send_signal(signal.SIGTERM)
    server.communicate(timeout=20)
    assert first_lines == {b"HTTP/1.1 200 OK\r\n"}


def test_an_interrupt_stops_it_and_takes_its_file_away(tmp_path: Path) -> None:
    port, running = free_port(), tmp_path / "running"
    server = start(tmp_path, "--while-exists", str(running), PORT=port)
    wait_for(port, server)

    server.send_signal(signal.SIGINT)

    output, _ = server.communicate(timeout=20)
    assert server.returncode == 0, output
    assert not running.exists()


def test_a_server_that_is_open_to_others_has_no_demo_accounts(tmp_path: Path) -> None:
    port = free_port()
    server = start(tmp_path, PORT=port, HOST="0.0.0.0")  # noqa: S104  # what is tested
    wait_for(port, server)
    server.send_signal(signal.SIGTERM)

    output, _ = server.communicate(timeout=20)

    assert "No demo data: HOST=0.0.0.0 is open to others" in output
    assert "alice@example.com" not in output
    users = subprocess.run(
        [sys.executable, "manage.py", "shell", "-c", "print('users:', User.objects.count())"],
        cwd=BASE_DIR,
        env=environment_of(tmp_path),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "users: 0" in users.stdout


def test_a_database_with_demo_accounts_is_opened_to_nobody_else(tmp_path: Path) -> None:
    environment = environment_of(tmp_path)
    for command in ("migrate", "demo_data"):
        subprocess.run(
            [sys.executable, "manage.py", command],
            cwd=BASE_DIR,
            env=environment,
            check=True,
            capture_output=True,
        )
    server = start(tmp_path, HOST="0.0.0.0")  # noqa: S104  # what is tested

    output, _ = server.communicate(timeout=60)

    assert server.returncode == 1
    assert "this database has demo accounts" in output


def test_production_is_sent_to_make_serve(tmp_path: Path) -> None:
    output, _ = start(tmp_path, **{**PRODUCTION, "DEBUG": "false"}).communicate(timeout=60)

    assert "`make serve`" in output
    assert "Traceback" not in output
