"""The endpoint speaks GraphQL over HTTP: the audits of npm's graphql-http pass."""

import json
import subprocess
from pathlib import Path

import pytest
from pytest_django import Settings
from pytest_django.live_server_helper import LiveServer

AUDITS = Path(__file__).parent / "graphql_http"


@pytest.fixture
def node_modules() -> None:
    """Install what package-lock.json locks, once."""
    if not (AUDITS / "node_modules" / "graphql-http").is_dir():
        subprocess.run(
            ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"],  # noqa: S607
            cwd=AUDITS,
            check=True,
            capture_output=True,
        )


@pytest.mark.node
@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("node_modules")
def test_no_audit_of_graphql_http_fails_or_warns(live_server: LiveServer, settings: Settings) -> None:
    settings.DEBUG = True  # some audits introspect, which otherwise only staff may do

    audit = subprocess.run(
        ["node", "audit.mjs", f"{live_server.url}/graphql/"],  # noqa: S607
        cwd=AUDITS,
        check=True,
        capture_output=True,
        timeout=120,
    )

    results = json.loads(audit.stdout)
    assert len(results) >= 60
    remarks = [(result["status"], result["id"]) for result in results if result["status"] != "ok"]
    # Two audits of MAY: variables in the URL of a GET. Queries by GET are off.
    assert sorted(remarks) == [("notice", "6A70"), ("notice", "D6D5")]
