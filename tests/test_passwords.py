"""Half of the machine's cores hash passwords, in all processes together, and old hashes keep working."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.hashers import (
    PBKDF2PasswordHasher,
    PBKDF2SHA1PasswordHasher,
    ScryptPasswordHasher,
    check_password,
    make_password,
)
from django.contrib.auth.models import User
from django.core.exceptions import ImproperlyConfigured
from django.test import Client
from pytest_django import Settings

from config import passwords
from config.bodies import PASSWORDS_BUSY, REFUSAL
from config.passwords import MAY_WAIT, PasswordsBusy, place_to_hash
from config.settings import PASSWORD_HASHERS

PASSWORD = "correct-horse-battery"


@pytest.fixture(autouse=True)
def our_hashers(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.PASSWORD_HASHERS = PASSWORD_HASHERS
    settings.LOCKS_DIR = str(tmp_path / "locks")
    monkeypatch.setattr(passwords, "PLACES", 1)
    monkeypatch.setattr(passwords, "_turns", threading.BoundedSemaphore(1))
    monkeypatch.setattr(passwords, "PATIENCE", 0.05)


@contextmanager
def hold_in_another_process(directory: Path) -> Iterator[subprocess.Popen[str]]:
    """Let another process hold the machine's only place, until it is killed."""
    directory.mkdir(mode=0o700, exist_ok=True)
    code = (
        "import fcntl, sys, time; lock = open(sys.argv[1], 'w'); fcntl.flock(lock, fcntl.LOCK_EX); "
        "print('held', flush=True); time.sleep(600)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(directory / "hashing-0")], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("hasher", [PBKDF2PasswordHasher, PBKDF2SHA1PasswordHasher, ScryptPasswordHasher])
def test_hashes_of_before_keep_working(hasher: type[PBKDF2PasswordHasher]) -> None:
    encoded = hasher().encode(PASSWORD, "some-salt-of-before")

    assert check_password(PASSWORD, encoded)
    assert not check_password("wrong", encoded)


def test_new_passwords_are_hashed_as_django_does() -> None:
    assert PBKDF2PasswordHasher().verify(PASSWORD, make_password(PASSWORD))


def test_nobody_hashes_while_another_process_holds_the_place(settings: Settings) -> None:
    encoded = PBKDF2PasswordHasher().encode(PASSWORD, "some-salt-of-before")
    with hold_in_another_process(Path(settings.LOCKS_DIR)) as process:
        for ask in (lambda: make_password(PASSWORD), lambda: check_password(PASSWORD, encoded)):
            with pytest.raises(PasswordsBusy):
                ask()

        # and a killed process holds it no longer
        process.kill()
        process.wait()
        assert check_password(PASSWORD, encoded)


def test_within_a_process_one_waits_for_the_other() -> None:
    refused: list[bool] = []

    def ask() -> None:
        try:
            make_password(PASSWORD)
        except PasswordsBusy:
            refused.append(True)

    with place_to_hash():
        make_password(PASSWORD)  # a thread that has a place keeps it
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()

    assert refused == [True]


def test_a_quarter_of_the_threads_never_waits(settings: Settings) -> None:
    assert settings.WEB_THREADS - MAY_WAIT == settings.WEB_THREADS // 4
    with ExitStack() as held:
        for _ in range(MAY_WAIT):
            assert passwords._waiting.acquire(blocking=False)
            held.callback(passwords._waiting.release)
        with pytest.raises(PasswordsBusy):
            make_password(PASSWORD)
    assert make_password(PASSWORD)


def test_the_locks_lie_where_only_we_can_write(settings: Settings, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    for directory in (shared, link):
        settings.LOCKS_DIR = str(directory)
        with pytest.raises(ImproperlyConfigured, match="LOCKS_DIR"):
            make_password(PASSWORD)


@pytest.mark.django_db
def test_whoever_waits_in_vain_hears_when_to_come_back(settings: Settings, client: Client) -> None:
    forms = {
        "/accounts/login/": {"login": "dana@example.com", "password": PASSWORD},
        "/accounts/signup/": {"email": "dana@example.com", "password1": PASSWORD, "password2": PASSWORD},
    }
    with hold_in_another_process(Path(settings.LOCKS_DIR)):
        for path, form in forms.items():
            page = client.post(path, form)
            assert (page.status_code, page.headers["Retry-After"]) == (503, "5")
            assert "Too many people are signing in at the moment." in page.content.decode()
        for name in ("login", "signup"):
            body = {"email": "dana@example.com", "password": PASSWORD}
            answer = client.post(f"/_allauth/app/v1/auth/{name}", body, content_type="application/json")
            assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
            assert answer.json()["errors"][0]["code"] == "passwords_busy"
    assert not User.objects.exists()


@pytest.mark.django_db
def test_admin_takes_a_place_before_its_transaction(
    settings: Settings, client: Client, superuser: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_arguments: object, **_named: object) -> None:
        raise AssertionError("a transaction was begun")

    monkeypatch.setattr("django.contrib.auth.admin.UserAdmin.add_view", never)
    client.force_login(superuser)
    with hold_in_another_process(Path(settings.LOCKS_DIR)):
        answer = client.post("/admin/auth/user/add/", {"email": "erin@example.com"})

    assert answer.status_code == 503
    assert os.listdir(settings.LOCKS_DIR) == ["hashing-0"]


@pytest.mark.django_db
def test_whoever_waits_at_the_door_in_vain_hears_the_same(client: Client) -> None:
    turned_away: dict[str, Any] = {REFUSAL: PASSWORDS_BUSY}  # how the server marks a vain wait for a place

    for path in ("/accounts/login/", "/admin/auth/user/add/"):
        page = client.post(path, {}, **turned_away)
        assert (page.status_code, page.headers["Retry-After"]) == (503, "5")
        assert "Too many people are signing in at the moment." in page.content.decode()
        assert page.headers["Content-Type"].startswith("text/html")
    answer = client.post("/_allauth/app/v1/auth/login", {}, content_type="application/json", **turned_away)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert answer.json()["errors"][0]["code"] == "passwords_busy"
