"""What the environment can set, and what no start accepts: each start is a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

BASE_DIR = Path(__file__).resolve().parent.parent
PRODUCTION = {
    "DEBUG": "false",
    "SECRET_KEY": "".join(chr(33 + n) for n in range(60)).replace("'", "x"),
    "PUBLIC_URL": "https://plans.example.com",
    "ZAMMAD_URL": "https://zammad.example.com",
    "ZAMMAD_API_TOKEN": "a-token-of-zammad-1234567890",
    "ZAMMAD_WEBHOOK_SECRETS": "first-long-webhook-secret,second-long-webhook-secret",
    "TRUSTED_PROXY_COUNT": "1",
}


DEVELOPMENT = {"DEBUG": "true"}


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python with only this environment."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=BASE_DIR,
        env={"PATH": os.defpath, "ENV_FILE": "", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def start(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return run("manage.py", *arguments, **environment)


def load_wsgi(**environment: str) -> subprocess.CompletedProcess[str]:
    """Load the application as a production server does."""
    return run("-c", "import config.wsgi", **environment)


def settings_of(*names: str, **environment: str) -> list[str]:
    """Return the settings that a process with this environment reads, in development if it does not say."""
    shown = "; ".join(f"print(repr(settings.{name}))" for name in names)
    code = f"from django.conf import settings; {shown}"
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=BASE_DIR,
        env={
            "PATH": os.defpath,
            "ENV_FILE": "",
            "DJANGO_SETTINGS_MODULE": "config.settings",
            **DEVELOPMENT,
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return result.stdout.splitlines()


def test_debug_is_all_that_development_needs() -> None:
    result = start("check", **DEVELOPMENT)

    assert result.returncode == 0, result.stderr
    assert settings_of("DEBUG", "PUBLIC_URL", "ZAMMAD_URL", "ZAMMAD_WEBHOOK_SECRETS") == [
        "True",
        "'http://127.0.0.1:8000'",
        "'http://127.0.0.1:8001'",
        "['demo-webhook-secret']",
    ]


NEEDED = ("SECRET_KEY", "ZAMMAD_URL", "ZAMMAD_API_TOKEN", "ZAMMAD_WEBHOOK_SECRETS")


@pytest.mark.parametrize(
    ("command", "environment"),
    [
        ("check", {"DEBUG": "false"}),
        ("check", {"HOST": "0.0.0.0"}),  # noqa: S104  # what is tested
        ("serve", {}),
        ("migrate", {}),
        ("demo_server", {}),
        ("runserver", {}),
    ],
)
def test_where_nobody_says_debug_a_start_names_what_it_needs(
    command: str, environment: dict[str, str]
) -> None:
    result = start(command, **environment)

    assert result.returncode == 1
    for name in NEEDED:
        assert f"Set {name}" in result.stderr
    assert "DEBUG is off unless the environment says DEBUG=true" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("environment", [{}, {"DEBUG": "true"}, {"DEBUG": "true", "HOST": "0.0.0.0"}])  # noqa: S104
def test_the_wsgi_application_starts_with_no_settings_of_development(environment: dict[str, str]) -> None:
    result = load_wsgi(**environment)

    assert result.returncode == 1
    for name in ("SECRET_KEY", "ZAMMAD_URL", "ZAMMAD_WEBHOOK_SECRETS"):
        assert f"Set {name}" in result.stderr


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SECRET_KEY", ""),
        ("SECRET_KEY", "insecure-development-key-that-no-production-start-accepts"),
        ("ZAMMAD_WEBHOOK_SECRETS", ""),
        ("ZAMMAD_WEBHOOK_SECRETS", "first-long-webhook-secret,demo-webhook-secret"),
        ("ZAMMAD_URL", ""),
    ],
)
def test_the_wsgi_application_takes_nothing_that_everybody_knows_with_debug_either(
    name: str, value: str
) -> None:
    environment = {**PRODUCTION, name: value, "DEBUG": "true"}
    if not value:
        del environment[name]

    result = load_wsgi(**environment)

    assert result.returncode == 1
    assert f"Set {name}" in result.stderr
    assert not value or value not in result.stderr


def test_the_wsgi_application_starts_with_its_settings() -> None:
    result = load_wsgi(**PRODUCTION)

    assert result.returncode == 0, result.stderr


def test_a_complete_production_environment_passes_the_deployment_check() -> None:
    result = start("check", "--deploy", "--fail-level", "WARNING", **PRODUCTION)

    assert result.returncode == 0, result.stderr
    assert "no issues" in result.stdout


def test_all_mistakes_of_a_production_start_are_told_at_once() -> None:
    result = start("check", DEBUG="false", PORT="eighty", ZAMMAD_URL="http://zammad.example.com")

    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    for sentence in (
        "Set PORT to a valid value",
        "Set SECRET_KEY to at least 50 random characters.",
        "Set ZAMMAD_URL to an https:// URL, or its token is sent unencrypted.",
        "Set ZAMMAD_API_TOKEN to a personal access token created in Zammad.",
        "Set ZAMMAD_WEBHOOK_SECRETS to secrets of at least 16 characters each.",
    ):
        assert sentence in result.stderr


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("SECRET_KEY", "weak-value", "Set SECRET_KEY"),
        ("SECRET_KEY_FALLBACKS", "weak-value", "Set SECRET_KEY_FALLBACKS"),
        ("SECRET_KEY", "insecure-development-key-that-no-production-start-accepts", "Set SECRET_KEY"),
        ("SECRET_KEY", "x" * 60, "Set SECRET_KEY"),
        ("PUBLIC_URL", "http://plans.example.com", "Set PUBLIC_URL to the https://"),
        ("PUBLIC_URL", "plans.example.com", "Set PUBLIC_URL to a URL"),
        ("ZAMMAD_URL", "", "Set ZAMMAD_URL to the https://"),
        ("ZAMMAD_URL", "http://weak.example.com", "Set ZAMMAD_URL to an https://"),
        ("ZAMMAD_API_TOKEN", "weak-value", "Set ZAMMAD_API_TOKEN"),
        ("ZAMMAD_WEBHOOK_SECRETS", "weak-value", "Set ZAMMAD_WEBHOOK_SECRETS"),
        ("ZAMMAD_WEBHOOK_SECRETS", "demo-webhook-secret", "Set ZAMMAD_WEBHOOK_SECRETS"),
        ("ZAMMAD_WEBHOOK_SECRETS", " , ", "Set ZAMMAD_WEBHOOK_SECRETS"),
        ("INVITE_URL", "https://weak.example.com/join", "Set INVITE_URL"),
        ("DATABASE_URL", "nosql://weak:value@localhost/x", "Set DATABASE_URL"),
        ("CACHE_URL", "nocache://weak:value@localhost", "Set CACHE_URL"),
        ("EMAIL_URL", "pigeon://weak:value@localhost", "Set EMAIL_URL"),
        ("LOGIN_RATE_PER_IP", "weak-value", "Set LOGIN_RATE_PER_IP"),
        ("METRICS_TOKEN", "weak-value", "Set METRICS_TOKEN"),
        ("LANGUAGE_CODE", "weak-value", "Set LANGUAGE_CODE to one of en, de."),
        ("PORT", "99999", "Set PORT to a valid value"),
        ("WEB_THREADS", "-77", "Set WEB_THREADS"),
    ],
)
def test_a_bad_value_is_refused_with_a_sentence_that_never_shows_it(
    name: str, value: str, sentence: str
) -> None:
    result = start("check", **{**PRODUCTION, name: value})

    assert result.returncode == 1
    assert sentence in result.stderr
    assert len(value.strip(" ,")) == 0 or value not in result.stderr
    assert "Traceback" not in result.stderr


def test_zammad_in_clear_is_accepted_on_loopback() -> None:
    result = start("check", **{**PRODUCTION, "ZAMMAD_URL": "http://127.0.0.1:3000"})

    assert result.returncode == 0, result.stderr


def test_the_demo_secret_counts_for_nobody_who_can_come_from_outside() -> None:
    assert settings_of("ZAMMAD_WEBHOOK_SECRETS", HOST="127.0.0.1") == ["['demo-webhook-secret']"]
    assert settings_of("ZAMMAD_WEBHOOK_SECRETS", HOST="0.0.0.0") == ["[]"]  # noqa: S104


def test_an_env_file_is_read_and_the_environment_wins(tmp_path: Path) -> None:
    env_file = tmp_path / "env"
    env_file.write_text("ZAMMAD_TOKEN_PREFIX=from-the-file\nSANDBOX_PORT=9001\n")

    assert settings_of(
        "ZAMMAD_TOKEN_PREFIX", "SANDBOX_PORT", ENV_FILE=str(env_file), SANDBOX_PORT="9002"
    ) == ["'from-the-file'", "9002"]


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("sqlite:///data.sqlite3", str(BASE_DIR / "data.sqlite3")),
        ("sqlite:////srv/data.sqlite3", "/srv/data.sqlite3"),
        ("postgres://plans:secret@db.example.com:5433/plans", "plans"),
    ],
)
def test_a_database_url_names_the_database_that_people_expect(url: str, name: str) -> None:
    assert settings_of("DATABASES['default']['NAME']", DATABASE_URL=url) == [repr(name)]


@pytest.mark.parametrize(
    ("url", "backend"),
    [
        ("redis://127.0.0.1:6379/1", "django.core.cache.backends.redis.RedisCache"),
        ("locmem://", "django.core.cache.backends.locmem.LocMemCache"),
        ("file:///var/tmp/plans", "django.core.cache.backends.filebased.FileBasedCache"),
    ],
)
def test_a_cache_url_chooses_the_cache(url: str, backend: str) -> None:
    assert settings_of("CACHES['default']['BACKEND']", CACHE_URL=url) == [repr(backend)]


def test_processes_of_a_production_machine_share_their_cache() -> None:
    assert settings_of("CACHES['default']['BACKEND']", **PRODUCTION) == [
        "'django.core.cache.backends.filebased.FileBasedCache'"
    ]


def test_a_redirect_to_https_needs_the_proxy_that_tells_about_it() -> None:
    without_proxy = {**PRODUCTION, "TRUSTED_PROXY_COUNT": "0"}

    assert settings_of("SECURE_SSL_REDIRECT", **without_proxy) == ["False"]
    assert settings_of("SECURE_SSL_REDIRECT", **PRODUCTION) == ["True"]


def test_cookies_are_for_this_host_alone_where_people_come_by_https() -> None:
    names = ("SESSION_COOKIE_NAME", "CSRF_COOKIE_NAME", "MESSAGES_COOKIE_NAME", "WAY_BACK_COOKIE_NAME")
    plain = ["sessionid", "csrftoken", "messages", "way-back"]

    assert settings_of(*names, **PRODUCTION) == [repr(f"__Host-{name}") for name in plain]
    # No browser accepts such a cookie without https.
    assert settings_of(*names) == [repr(name) for name in plain]


def test_templates_of_the_operators_own_come_before_ours(tmp_path: Path) -> None:
    ours = str(BASE_DIR / "config" / "templates")

    [found] = settings_of("TEMPLATES[0]['DIRS']", TEMPLATES_DIR=str(tmp_path))
    [without] = settings_of("TEMPLATES[0]['DIRS']")

    assert found == repr([str(tmp_path), Path(ours)])
    assert without == repr([Path(ours)])


@pytest.mark.parametrize("directory", ["templates", "/nowhere/at/all"])
def test_a_template_directory_that_is_not_there_is_refused(directory: str) -> None:
    result = start("check", TEMPLATES_DIR=directory, **DEVELOPMENT)

    assert result.returncode == 1
    assert "Set TEMPLATES_DIR to the full path of a directory, or leave it empty." in result.stderr


def test_the_sandbox_has_a_port_of_its_own() -> None:
    result = start("check", PORT="8302", SANDBOX_PORT="8302", **DEVELOPMENT)

    assert result.returncode == 1
    assert "Set SANDBOX_PORT to a port other than PORT." in result.stderr
