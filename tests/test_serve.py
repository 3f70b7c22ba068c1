"""The production server, as `make serve` starts it."""

import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent


def environment(tmp_path: Path, port: int, **more: str) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "ENV_FILE": "",
        "DEBUG": "false",
        "SECRET_KEY": secrets.token_urlsafe(50),
        "PUBLIC_URL": f"http://127.0.0.1:{port}",
        "PORT": str(port),
        "WEB_CONCURRENCY": "1",
        "DATABASE_URL": f"sqlite:///{tmp_path}/db.sqlite3",
        "CACHE_URL": f"file://{tmp_path}/cache",
        "ZAMMAD_URL": "http://127.0.0.1:9",
        "ZAMMAD_API_TOKEN": secrets.token_hex(16),
        "ZAMMAD_WEBHOOK_SECRETS": secrets.token_hex(16),
        **more,
    }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310  # our own server
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError:
        return 0, ""


def test_the_production_server_serves_pages_and_static_files_and_stops_when_asked(tmp_path: Path) -> None:
    # given a server on an empty database
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    log = tmp_path / "log"
    with log.open("w") as output:
        server = subprocess.Popen(
            [sys.executable, "manage.py", "serve"],
            cwd=BASE_DIR,
            env=environment(tmp_path, port),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + 90
        while get(f"{url}/healthz") != (200, "ok\n"):
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)

        # when somebody opens its pages, then they are there, and nothing of development is
        status, page = get(f"{url}/accounts/login/")
        assert status == 200
        assert "Sign In" in page
        status, page = get(f"{url}/nothing-here/")
        assert status == 404
        assert "Not found" in page
        assert "DEBUG" not in page
        manifest = (BASE_DIR / "staticfiles" / "staticfiles.json").read_text()
        hashed = re.search(r'"admin/css/base\.css": "([^"]+)"', manifest)
        assert hashed
        assert get(f"{url}/static/{hashed[1]}")[0] == 200
    finally:
        server.send_signal(signal.SIGTERM)
        code = server.wait(timeout=30)

    # and it stops in good order
    assert code == 0
    assert "shutdown completed" in log.read_text()


def test_a_number_of_processes_that_is_none_is_refused(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "manage.py", "serve"],
        cwd=BASE_DIR,
        env=environment(tmp_path, free_port(), WEB_CONCURRENCY="many"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert result.returncode == 1
    assert "Set WEB_CONCURRENCY to the number of processes" in result.stderr
    assert not (tmp_path / "db.sqlite3").exists()


def test_development_is_not_served_as_production(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "manage.py", "serve"],
        cwd=BASE_DIR,
        env=environment(tmp_path, free_port(), DEBUG="true"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert result.returncode == 1
    assert "Set DEBUG=false to serve" in result.stderr
