"""The edge of the production server: headers, cookies, hosts, sizes, limits, and logs without secrets.

Most tests use a server behind a proxy that terminates TLS, as a company runs it: PUBLIC_URL is
https, and X-Forwarded-For holds the client's address.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
import socket
from collections.abc import Iterator, Mapping
from http.cookies import SimpleCookie
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest
from django.urls import reverse
from django.utils import timezone

from tests.api import JSON, node_id
from tests.factories import OwnerFactory
from tests.production import OK, ProductionServer, production_server, running_server
from tests.server import Answer, free_port
from zammad.models import WebhookDelivery
from zammad.sandbox import Reply, Sandbox

HOST = "plans.example.com"
PROXIED = {"Host": HOST, "X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.9"}
PASSWORD = "correct horse battery staple"
LOGIN = "/_allauth/app/v1/auth/login"
FORM = "application/x-www-form-urlencoded"
MIB = 1024 * 1024
COOKIES = ("sessionid", "csrftoken", "messages", "way-back", "device")

TWO_LOG_INS = f"""
import secrets
from django.test import Client
for _ in range(2):
    account = {{"email": secrets.token_hex(8) + "@example.com", "password": "a guess of mine"}}
    client = Client(headers={{"host": "127.0.0.1"}})
    print(client.post("{LOGIN}", account, content_type="application/json").status_code)
"""


class Browser:
    """Keep cookies, and send the CSRF token with each form."""

    def __init__(self, server: ProductionServer, headers: Mapping[str, str]) -> None:
        self.server = server
        self.headers = headers
        self.cookies: SimpleCookie = SimpleCookie()

    def get(self, path: str) -> Answer:
        return self._request("GET", path, None)

    def post(self, path: str, **form: str) -> Answer:
        return self._request("POST", path, urlencode(form).encode())

    def _request(self, method: str, path: str, body: bytes | None) -> Answer:
        jar = {name: morsel.value for name, morsel in self.cookies.items()}
        cookie = "; ".join(f"{name}={value}" for name, value in jar.items())
        headers = {
            **self.headers,
            "Cookie": cookie,
            "Content-Type": FORM,
            "X-CSRFToken": jar.get("__Host-csrftoken") or jar.get("csrftoken", ""),
        }
        answer = self.server.request(method, path, body, headers)
        for line in answer.headers.get_all("Set-Cookie", []):
            self.cookies.load(line)
        return answer


behind_a_proxy = pytest.mark.xdist_group("production-proxy")


@pytest.fixture(scope="module")
def _proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProductionServer]:
    more = {"PUBLIC_URL": f"https://{HOST}", "TRUSTED_PROXY_COUNT": "1", "LOGIN_RATE_PER_IP": "5/m"}
    with running_server("sqlite", tmp_path_factory.mktemp("proxied"), **more) as server:
        yield server
        assert server.complaints() == []


@pytest.fixture
def proxied(_proxied: ProductionServer, server_databases: None) -> Iterator[ProductionServer]:
    """Share a server behind one proxy, with a log-in limit that a test reaches."""
    with _proxied.database():
        yield _proxied


# --- Headers and cookies -------------------------------------------------------------------------


@behind_a_proxy
@pytest.mark.parametrize("path", ["/accounts/login/", "/accounts/signup/", "/healthz", "/nothing-here/"])
def test_every_page_carries_the_security_headers(proxied: ProductionServer, path: str) -> None:
    answer = proxied.get(path, **PROXIED)

    assert answer.headers["Strict-Transport-Security"] == "max-age=31536000"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert answer.headers["Referrer-Policy"] == "strict-origin"
    assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self'; ")
    assert "camera=()" in answer.headers["Permissions-Policy"]


@behind_a_proxy
def test_cookies_are_for_https_only_and_scripts_do_not_see_the_session(proxied: ProductionServer) -> None:
    proxied.make_account("dana@example.com", PASSWORD)
    browser = Browser(proxied, {**PROXIED, "Origin": f"https://{HOST}"})

    browser.get("/accounts/login/")
    signed_in = browser.post("/accounts/login/", login="dana@example.com", password=PASSWORD)

    session, csrf = browser.cookies["__Host-sessionid"], browser.cookies["__Host-csrftoken"]
    assert (signed_in.status, signed_in.headers["Location"]) == (302, "/")
    assert (session["secure"], session["httponly"], session["samesite"]) == (True, True, "Lax")
    # GraphiQL reads this one
    assert (csrf["secure"], csrf["httponly"], csrf["samesite"]) == (True, "", "Lax")


@behind_a_proxy
def test_every_cookie_belongs_to_this_very_host(proxied: ProductionServer) -> None:
    """Browsers accept a __Host- cookie only if it is Secure, for the path /, and names no domain."""
    proxied.make_account("erin@example.com", PASSWORD)
    browser = Browser(proxied, {**PROXIED, "Origin": f"https://{HOST}"})

    browser.get("/invites/unknown/")
    browser.get("/accounts/login/")
    browser.post("/accounts/login/", login="erin@example.com", password=PASSWORD)
    told = browser.cookies["__Host-messages"].value
    browser.get("/invites/unknown/")
    browser.post("/accounts/logout/")

    assert told
    assert set(browser.cookies) == {f"__Host-{name}" for name in COOKIES}
    for name, cookie in browser.cookies.items():
        assert (cookie["secure"], cookie["path"], cookie["domain"]) == (True, "/", ""), name


@behind_a_proxy
def test_a_host_that_is_not_ours_is_refused(proxied: ProductionServer) -> None:
    for host in ("evil.example", f"{HOST}.evil.example", "127.0.0.1", ""):
        answer = proxied.get("/accounts/login/", **{**PROXIED, "Host": host})
        assert answer.status == 400, host
        assert b"evil" not in answer.body


@behind_a_proxy
def test_people_are_sent_to_https_but_zammad_and_load_balancers_are_not(proxied: ProductionServer) -> None:
    plain = {**PROXIED, "X-Forwarded-Proto": "http"}

    page = proxied.get("/accounts/login/", **plain)
    assert (page.status, page.headers["Location"]) == (301, f"https://{HOST}/accounts/login/")

    assert proxied.get("/healthz", **plain).status == 200
    headers = {**plain, "X-Hub-Signature": "sha1=wrong", "Content-Type": JSON}
    assert proxied.request("POST", "/webhooks/zammad/", b"{}", headers).status == 403
    # nor is a request without the final slash sent elsewhere
    assert proxied.request("POST", "/webhooks/zammad", b"{}", headers).status == 404
    assert proxied.get("/healthz/", **plain).status in {404, 301}


# --- Sizes ---------------------------------------------------------------------------------------


@behind_a_proxy
@pytest.mark.parametrize(
    ("path", "size", "status"),
    [
        ("/webhooks/zammad/", 16 * MIB, 403),  # it is read, and then its signature is missing
        ("/graphql/", 100 * 1024, 400),  # it is read, and then it is not JSON
        ("/graphql/", 100 * 1024 + 1, 413),
    ],
)
def test_a_body_is_read_up_to_the_limit(proxied: ProductionServer, path: str, size: int, status: int) -> None:
    answer = proxied.request("POST", path, b"a" * size, {**PROXIED, "Content-Type": JSON})

    assert answer.status == status


@behind_a_proxy
@pytest.mark.parametrize(
    ("path", "cap"), [("/webhooks/zammad/", 16 * MIB), ("/graphql/", 100 * 1024), (LOGIN, MIB)]
)
def test_a_body_that_announces_too_much_is_refused_before_any_of_it_was_sent(
    proxied: ProductionServer, path: str, cap: int
) -> None:
    headers = {**PROXIED, "Content-Type": JSON, "Content-Length": str(cap + 1)}

    answer = proxied.request("POST", path, b"", headers)

    assert answer.status == 413
    assert answer.seconds < 5
    assert not WebhookDelivery.objects.exists()


@behind_a_proxy
@pytest.mark.parametrize("path", ["/accounts/login/", "/admin/login/"])
def test_a_form_that_announces_too_much_is_refused(proxied: ProductionServer, path: str) -> None:
    browser = Browser(proxied, {**PROXIED, "Origin": f"https://{HOST}"})
    browser.get("/accounts/login/")
    browser.headers = {**browser.headers, "Content-Length": str(MIB + 1)}

    assert browser.post(path).status == 413


# --- The log-in limit ----------------------------------------------------------------------------


@behind_a_proxy
def test_the_log_in_limit_counts_the_address_that_the_proxy_saw_whatever_was_forged(
    proxied: ProductionServer,
) -> None:
    # given an attacker who guesses, each time with a new forged address
    guesses = [attempt(proxied, f"198.51.100.{number}, 203.0.113.50") for number in range(6)]

    # then all three processes count them as one client
    assert guesses == [400] * 5 + [429]
    # and another person is not locked out
    assert attempt(proxied, "203.0.113.50, 203.0.113.51") == 400


def attempt(server: ProductionServer, forwarded_for: str) -> int:
    """Try to sign in, each time as another person, and return the statuses."""
    body = json.dumps({"email": f"{secrets.token_hex(8)}@example.com", "password": "a guess of mine"})
    headers = {**PROXIED, "X-Forwarded-For": forwarded_for, "Content-Type": JSON}
    return server.request("POST", LOGIN, body.encode(), headers).status


@pytest.mark.parametrize("cache", ["file", "redis"])
def test_the_log_in_limit_is_shared_by_all_processes_that_share_a_cache(tmp_path: Path, cache: str) -> None:
    # given two processes, on one database and one cache
    if cache == "redis" and not redis_answers():
        pytest.skip("nothing answers at 127.0.0.1:6379")
    server = ProductionServer(
        tmp_path,
        f"sqlite:///{tmp_path}/db.sqlite3",
        more={
            "LOGIN_RATE_PER_IP": "2/m",
            "CACHE_URL": f"file://{tmp_path}/cache"
            if cache == "file"
            else f"redis://127.0.0.1:6379/9?key_prefix={secrets.token_hex(8)}",
        },
    )
    assert server.manage("migrate").returncode == 0

    # when each signs in twice, then the first client has its two attempts, and the second none
    assert [log_in_twice(server), log_in_twice(server)] == [["400", "400"], ["429", "429"]]


def log_in_twice(server: ProductionServer) -> list[str]:
    done = server.manage("shell", "--no-imports", "-c", TWO_LOG_INS)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def redis_answers() -> bool:
    try:
        with socket.create_connection(("127.0.0.1", 6379), timeout=1):
            return True
    except OSError:
        return False


# --- Logs ----------------------------------------------------------------------------------------


def test_a_whole_journey_leaves_no_secret_in_the_production_servers_log(
    tmp_path: Path, server_databases: None
) -> None:
    # given a server whose mails fail
    more = {"EMAIL_URL": f"smtp://127.0.0.1:{free_port()}"}
    with (
        Sandbox() as zammad,
        production_server("sqlite", tmp_path, zammad_url=zammad.url, **more) as server,
    ):
        known = whole_journey(server, zammad)
        log = server.log.read_text()

    check_log(log, known)


def test_a_whole_journey_leaves_no_secret_in_the_development_servers_log(
    tmp_path: Path, server_databases: None
) -> None:
    with (
        Sandbox() as zammad,
        production_server(
            "sqlite", tmp_path, zammad_url=zammad.url, command="demo_server", DEBUG="true"
        ) as server,
    ):
        known = whole_journey(server, zammad)
        log = server.log.read_text()

    _banner, log = log.split("Press Ctrl-C to stop everything.")  # it shows the demo's accounts
    check_log(log, known)


def check_log(log: str, known: dict[str, str]) -> None:
    """Check that requests were logged, with the tokens in their paths masked, and nothing else shown."""
    assert "/invites/***/" in log
    assert "/webhooks/zammad/" in log
    assert "Zammad gave no invite token: Zammad answered 403: Not now." in log
    assert {what: value for what, value in known.items() if value in log} == {}
    # not in part either
    assert {what for what, value in known.items() if len(value) > 30 and value[:20] in log} == set()


def whole_journey(server: ProductionServer, zammad: Sandbox) -> dict[str, str]:
    """Go through everything that carries a secret, and return all secrets by their kind."""
    plan = OwnerFactory(user=server.make_account("owner@example.net", PASSWORD)).family_plan
    server.make_account("friend@example.net", PASSWORD)
    server.make_account("helper@example.net", PASSWORD, is_staff=True, is_superuser=True)
    known = {
        "password": PASSWORD,
        "wrong password": "a-wrong-password-of-mine",
        "webhook secret": server.webhook_secret,
        "secret key": server.environment["SECRET_KEY"],
        "Zammad's token": zammad.token,
        "unknown token": secrets.token_urlsafe(32),
        "wrong session": secrets.token_hex(16),
        **{f"address of {who}": f"{who}@example.net" for who in ("owner", "friend", "helper", "stranger")},
    }

    # the owner signs in by the API, at the second attempt
    for password, status in ((known["wrong password"], 400), (PASSWORD, 200)):
        body = json.dumps({"email": "owner@example.net", "password": password}).encode()
        signed_in = server.request("POST", LOGIN, body, {"Content-Type": JSON})
        assert signed_in.status == status
    session = known["session token"] = signed_in.json()["meta"]["session_token"]
    assert server.ask(known["wrong session"], "{ viewer { id } }").status == 401

    # and invites a person by mail, then another one, whose invite is lost and reissued
    for name, email in (("first", "friend@example.net"), ("second", "stranger@example.net")):
        code, answer = server.mutate(session, "createInvite", planId=node_id(plan), email=email)
        assert code == OK
        known[f"{name} invite"] = answer["token"]
    code, answer = server.mutate(session, "reissueInvite", inviteId=answer["invite"]["id"])
    assert code == OK
    known["reissued invite"] = answer["token"]

    # Zammad refuses once
    zammad.faults.set("POST /api/v1/user_access_token", Reply(403, b'{"error": "Not now."}'), times=1)
    code, _ = server.mutate(session, "createInvite", planId=node_id(plan))
    assert code == "INVITE_TOKEN_UNAVAILABLE"

    # the friend opens the link, signs in on the way, and accepts
    browser = Browser(server, {"Referer": server.url})
    page = f"/invites/{known['first invite']}/"
    sent = browser.get(page)
    assert (sent.status, sent.headers["Location"]) == (302, "/accounts/login/")
    assert browser.get(f"/accounts/login/?next={quote(page, safe='')}").status == 302
    assert browser.get("/accounts/login/").status == 200
    login = {"login": "friend@example.net", "next": page}
    assert browser.post(sent.headers["Location"], password=known["wrong password"], **login).status == 200
    back = browser.post(sent.headers["Location"], password=PASSWORD, **login)
    assert (back.status, back.headers["Location"]) == (302, page)
    assert browser.get(page).status == 200
    assert browser.post(page).status == 302
    assert browser.get(f"/invites/{known['unknown token']}/").status == 404
    assert server.mutate(session, "acceptInvite", token=known["unknown token"])[0] == "INVITE_NOT_FOUND"
    known |= {f"friend's {name}": morsel.value for name, morsel in browser.cookies.items()}

    # Zammad sends deliveries about them, and an attacker forges one
    assert server.deliver(57, timezone.now(), email="friend@example.net").status == 200
    known["signature"] = hmac.new(server.webhook_secret.encode(), b"{}", hashlib.sha1).hexdigest()
    for signature, body, status in ((known["signature"], b"{}", 200), (known["signature"], b"[]", 403)):
        headers = {"X-Hub-Signature": f"sha1={signature}", "Content-Type": JSON}
        assert server.request("POST", "/webhooks/zammad/", body, headers).status == status

    # staff sign in and reissue the second invite
    helper = Browser(server, {"Referer": server.url})
    helper.get("/accounts/login/")
    helper.post("/accounts/login/", login="helper@example.net", password=PASSWORD)
    invite = plan.invites.get(email="stranger@example.net")
    shown = helper.post(reverse("admin:plans_familyplaninvite_reissue", args=[invite.pk]))
    found = re.search(r"/invites/([\w-]{43})/", shown.body.decode())
    assert found, shown.body
    known["invite of staff"] = found[1]
    known |= {f"helper's {name}": morsel.value for name, morsel in helper.cookies.items()}
    known |= {f"raw token {row['id']}": str(row["value"]) for row in zammad.records["tokens"].values()}
    return {what: value for what, value in known.items() if value}  # a deleted cookie is empty
