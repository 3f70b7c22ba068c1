"""GraphiQL in a real browser: for whom it opens, and that it runs queries, explains and changes things."""

import fcntl
import json
import re
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from django.contrib.auth.models import Permission, User
from pytest_django import Settings
from pytest_django.live_server_helper import LiveServer
from selenium.webdriver.common.by import By

from plans.models import FamilyPlan
from tests.api import codes_by_mutation
from tests.browser import LOOPBACK_ONLY, Visitor, visit
from tests.factories import PASSWORD, UserFactory

pytestmark = [pytest.mark.browser, pytest.mark.node, pytest.mark.django_db(transaction=True)]

PACKAGES = Path(__file__).parent / "graphiql"
# The host of the JavaScript in Strawberry's page, and how it names a file there.
CDN = "unpkg.com"
FILE_OF_A_PACKAGE = re.compile(r"/((?:@[a-z-]+/)?[a-z-]+)@[0-9.]+/([a-z./-]+)")
KINDS = {".js": "text/javascript", ".css": "text/css"}


class PackageFiles(BaseHTTPRequestHandler):
    """Serve the CDN's URLs. The page's integrity hashes prove that a file is the right one."""

    def do_GET(self) -> None:
        found = FILE_OF_A_PACKAGE.fullmatch(self.path)
        file = PACKAGES / "node_modules" / found[1] / found[2] if found else PACKAGES / "nothing"
        if not file.is_file():
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Access-Control-Allow-Origin", "*")
        self.send_header("Content-Type", KINDS[file.suffix])
        self.end_headers()
        self.wfile.write(file.read_bytes())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture(scope="module")
def node_modules() -> None:
    """Install what package-lock.json locks, once, in however many processes tests run."""
    with (PACKAGES / "package-lock.json").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # npm writes this file last.
        if not (PACKAGES / "node_modules" / ".package-lock.json").is_file():
            subprocess.run(
                ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"],  # noqa: S607
                cwd=PACKAGES,
                check=True,
                capture_output=True,
            )


@pytest.fixture(scope="module")
def cdn(node_modules: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Serve the packages over TLS; return the port."""
    folder = tmp_path_factory.mktemp("cdn")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-nodes", "-days", "1", "-subj", f"/CN={CDN}"),
            *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-keyout", "key.pem", "-out", "certificate.pem"),
        ],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    with ThreadingHTTPServer(("127.0.0.1", 0), PackageFiles) as server:
        # The handshake belongs to the thread of its connection: browsers open some that they never use.
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.fixture
def visitor(cdn: int) -> Iterator[Visitor]:
    hosts = f"MAP {CDN} 127.0.0.1:{cdn}, {LOOPBACK_ONLY}"
    with visit(width=1280, height=900, hosts=hosts, insecure=True) as visitor:
        yield visitor


@pytest.fixture
def staff(db: None) -> User:
    """A member of staff who may create plans. The group Support is gone after a live server has run."""
    user = UserFactory(email="staff@example.com", is_staff=True)
    rights = Permission.objects.filter(codename__in=["add_familyplan", "view_familyplan"])
    user.user_permissions.set(rights)
    return user


@pytest.fixture
def graphiql(live_server: LiveServer) -> str:
    return f"{live_server.url}/graphql/"


def run(visitor: Visitor) -> dict[str, Any]:
    """Click the button next to the query, and return the response as the page shows it."""
    visitor.find(".graphiql-execute-button").click()
    visitor.find(".result-window .cm-punctuation")
    shown: str = visitor.driver.execute_script(
        "return document.querySelector('.result-window .CodeMirror').CodeMirror.getValue()"
    )
    answer: dict[str, Any] = json.loads(shown)
    return answer


def open_documentation(visitor: Visitor) -> None:
    """Open the schema's documentation, which GraphiQL gets by introspection."""
    visitor.find("[aria-label='Show Documentation Explorer']").click()
    visitor.until_reads("All Schema Types")


def asked_for(visitor: Visitor) -> set[str]:
    """Return the URLs that pages have fetched from the network so far."""
    entries = [json.loads(entry["message"])["message"] for entry in visitor.log("performance")]
    addresses = [
        entry["params"]["request"]["url"]
        for entry in entries
        if entry["method"] == "Network.requestWillBeSent"
    ]
    return {address for address in addresses if not address.startswith("data:")}


def test_staff_are_led_to_sign_in_and_back_to_the_query_they_came_with(
    visitor: Visitor, graphiql: str, staff: User
) -> None:
    # given a link with a query in it, opened by a person who is signed out
    link = f"{graphiql}?q={quote('{ viewer { email } }')}"
    visitor.open(link)
    assert "/accounts/login/?next=/graphql/" in visitor.driver.current_url

    # when they sign in
    visitor.fill(login=staff.email, password=PASSWORD)
    visitor.click("Sign In")

    # then the query is on the page, and the response names them
    assert visitor.driver.current_url == link
    assert run(visitor) == {"data": {"viewer": {"email": "staff@example.com"}}}
    assert visitor.complaints() == []


def test_the_page_asks_for_nothing_but_the_files_it_names_and_the_api(
    visitor: Visitor, live_server: LiveServer, graphiql: str, staff: User
) -> None:
    visitor.sign_in(live_server.url, staff)
    asked_for(visitor)  # on the way here

    visitor.open(graphiql)

    open_documentation(visitor)
    named = set(re.findall(rf"https://{CDN}/[^\"]+", visitor.driver.page_source))
    assert len(named) == 7
    assert asked_for(visitor) == named | {graphiql}
    assert visitor.complaints() == []


def test_its_windows_open_under_its_policy(
    visitor: Visitor, live_server: LiveServer, graphiql: str, staff: User
) -> None:
    visitor.sign_in(live_server.url, staff)
    visitor.open(graphiql)

    for button, words in (
        ("Open short keys dialog", "Short Keys"),
        ("Open settings dialog", "Settings"),
    ):
        visitor.find(f"[aria-label='{button}']").click()
        visitor.find(".graphiql-dialog", words=words)
        visitor.find(".graphiql-dialog-close").click()

    # A window writes a style that stops the page behind from scrolling: it is refused, and nothing scrolls.
    known = ("style-src", "react-remove-scroll-bar")
    assert [text for text in visitor.complaints() if not any(word in text for word in known)] == []


def test_the_documentation_describes_types_fields_and_arguments(
    visitor: Visitor, live_server: LiveServer, graphiql: str, staff: User
) -> None:
    visitor.sign_in(live_server.url, staff)
    visitor.open(graphiql)

    open_documentation(visitor)
    visitor.driver.find_element(By.LINK_TEXT, "Query").click()
    visitor.until_reads("Everything you can read.")
    visitor.until_reads("A plan; null unless you are in it, or are staff who may read every plan.")

    visitor.driver.find_element(By.LINK_TEXT, "plan").click()
    visitor.until_reads("The node ID of the plan.")

    visitor.driver.find_element(By.LINK_TEXT, "FamilyPlan").click()
    visitor.until_reads("A plan that its owner shares with the people they invite. Each member takes")
    visitor.until_reads("How many people fit, including the owner: the limit in force, from 1 to 100.")


def test_the_documentation_of_a_mutation_tells_its_codes_and_of_repetition(
    visitor: Visitor, live_server: LiveServer, graphiql: str, staff: User
) -> None:
    visitor.sign_in(live_server.url, staff)
    visitor.open(graphiql)

    open_documentation(visitor)
    visitor.driver.find_element(By.LINK_TEXT, "Mutation").click()
    visitor.until_reads("Everything you can do.")
    visitor.driver.find_element(By.LINK_TEXT, "createInvite").click()
    visitor.until_reads("Repeated: not safe. Each call holds another seat")

    codes = [code.text for code in visitor.driver.find_elements(By.CSS_SELECTOR, "p:last-child > code")]
    assert codes == codes_by_mutation()["createInvite"]


def test_a_mutation_carries_the_csrf_token_of_the_page(
    visitor: Visitor, live_server: LiveServer, graphiql: str, staff: User, carol: User
) -> None:
    mutation = """mutation {
      createPlan(input: {name: "The Carvers", ownerEmail: "carol@example.com"}) {
        ... on CreatedPlan { plan { name owner { email } } }
      }
    }"""
    visitor.sign_in(live_server.url, staff)
    visitor.open(f"{graphiql}?q={quote(mutation)}")

    answer = run(visitor)

    assert answer == {
        "data": {"createPlan": {"plan": {"name": "The Carvers", "owner": {"email": "carol@example.com"}}}}
    }
    assert FamilyPlan.objects.get().memberships.get().user == carol


def test_a_mutation_without_the_csrf_cookie_is_refused(
    visitor: Visitor, live_server: LiveServer, graphiql: str, staff: User, carol: User, settings: Settings
) -> None:
    mutation = """mutation {
      createPlan(input: {name: "The Carvers", ownerEmail: "carol@example.com"}) { __typename }
    }"""
    visitor.sign_in(live_server.url, staff)
    visitor.open(f"{graphiql}?q={quote(mutation)}")
    visitor.find(".graphiql-execute-button")

    visitor.driver.delete_cookie(settings.CSRF_COOKIE_NAME)
    answer = run(visitor)

    assert [error["extensions"]["code"] for error in answer["errors"]] == ["CSRF_FAILED"]
    assert not FamilyPlan.objects.exists()


def test_somebody_who_is_not_staff_is_told_so(
    visitor: Visitor, live_server: LiveServer, graphiql: str, alice: User
) -> None:
    visitor.sign_in(live_server.url, alice)

    visitor.open(graphiql)

    assert "Your account is not allowed to open this page." in visitor.reads
    assert visitor.status == 403
    assert not visitor.driver.find_elements(By.ID, "graphiql")


def test_with_debug_it_opens_for_everybody(visitor: Visitor, graphiql: str, settings: Settings) -> None:
    settings.DEBUG = True

    visitor.open(f"{graphiql}?q={quote('{ viewer { email } }')}")

    assert run(visitor) == {"data": {"viewer": None}}
    open_documentation(visitor)
    assert visitor.complaints() == []
