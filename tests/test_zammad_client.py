"""What the client requests from Zammad, and that every failure ends in time with an error of its own."""

import io
import json
import logging
import shutil
import socket
import ssl
import subprocess
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from pytest_django import Settings

from zammad import sandbox as faulty
from zammad.client import (
    AccessToken,
    ZammadClient,
    ZammadError,
    ZammadRefused,
    ZammadUnreachable,
    ZammadUnreadable,
    get_client,
    get_patient_client,
)
from zammad.deadline import Deadline, shared_time
from zammad.sandbox import Fault, Reply, Sandbox, Version

TOKENS = "/api/v1/user_access_token"
NAME = "family-plan-invite-6ab4f0f8-0a3c-4ab7-b1b2-0f2c0a7b2a10"
EXPIRES_ON = date(2999, 1, 31)
SECRET = "sandbox-api-token"
SHORT = 0.5


@pytest.fixture
def client(sandbox: Sandbox) -> Iterator[ZammadClient]:
    client = ZammadClient(url=sandbox.url, token=sandbox.token)
    yield client
    client.close()


@pytest.fixture
def hurried(sandbox: Sandbox) -> Iterator[ZammadClient]:
    client = ZammadClient(url=sandbox.url, token=sandbox.token, connect_timeout=0.3, deadline=SHORT)
    yield client
    client.close()


@contextmanager
def listener(answer: Callable[[socket.socket], object], *, listen: bool = True) -> Iterator[str]:
    """Handle each connection by hand, once its request was received."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    try:
                        if listen:
                            connection.recv(65536)
                        answer(connection)
                    except OSError:
                        continue  # the client has left, as it should

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def drip(start: bytes, drop: bytes) -> Callable[[socket.socket], object]:
    def answer(connection: socket.socket) -> None:
        connection.sendall(start)
        while True:
            connection.sendall(drop)
            time.sleep(0.01)

    return answer


# --- What is asked, and what is understood ----------------------------------------------------


def test_a_token_is_asked_for_with_the_words_of_old_and_new_versions(
    sandbox: Sandbox, client: ZammadClient
) -> None:
    token = client.create_access_token(name=NAME, expires_on=EXPIRES_ON)

    [call] = sandbox.calls
    assert json.loads(call.body) == {
        "name": NAME,
        "label": NAME,
        "permission": [],
        "expires_at": "2999-01-31",
    }
    assert call.headers["accept"] == "application/json"
    assert call.headers["authorization"] == "Token token=sandbox-api-token"
    assert sandbox.records["tokens"][2]["value"] == token
    assert len(token) == 64


def test_an_old_version_answers_the_token_as_its_name(sandbox: Sandbox, client: ZammadClient) -> None:
    sandbox.version = Version.V6_0

    token = client.create_access_token(name=NAME, expires_on=EXPIRES_ON)

    assert token == sandbox.records["tokens"][2]["value"]


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"token": None},
        {"token": ""},
        {"token": 5},
        {"token": ["a"]},
        {"token": None, "name": NAME},  # our own name is not a token
        {"name": NAME},
    ],
)
def test_an_answer_without_a_token_is_unreadable(
    sandbox: Sandbox, client: ZammadClient, answer: object
) -> None:
    sandbox.faults.set(f"POST {TOKENS}", Reply(body=json.dumps(answer).encode()))

    with pytest.raises(ZammadUnreadable, match=r"^Zammad's response contains no token\.$"):
        client.create_access_token(name=NAME, expires_on=EXPIRES_ON)


def test_tokens_are_listed_without_their_values(sandbox: Sandbox, client: ZammadClient) -> None:
    created = sandbox.add_token(2, "value", name=NAME, expires_at="2020-01-01")

    tokens = client.list_access_tokens()

    # The token in use is the one changed last.
    assert [(token.id, token.name) for token in tokens] == [(1, "Family Plans"), (2, NAME)]
    assert tokens[1].created_at == datetime.fromisoformat(created["created_at"])


def test_an_odd_token_in_a_list_is_left_out(sandbox: Sandbox, client: ZammadClient) -> None:
    moment = "2026-08-03T08:15:02.230Z"
    odd: list[object] = [
        None,
        {"id": "1", "name": "a", "created_at": moment},
        {"id": True, "name": "a", "created_at": moment},
        {"id": 2, "name": None, "created_at": moment},
        {"id": 3, "name": "a"},
        {"id": 4, "name": "a", "created_at": "2026-08-03T08:15:02"},
        {"id": 5, "label": "of an old version", "created_at": moment},
    ]
    sandbox.faults.set(f"GET {TOKENS}", Reply(body=json.dumps({"tokens": odd}).encode()))

    assert client.list_access_tokens() == [
        AccessToken(
            id=5, name="of an old version", created_at=datetime(2026, 8, 3, 8, 15, 2, 230_000, tzinfo=UTC)
        )
    ]


def test_a_list_of_tokens_may_be_longer_than_other_answers(sandbox: Sandbox, client: ZammadClient) -> None:
    item = {"id": 7, "name": "n" * 2_000_000, "created_at": "2026-08-03T08:15:02Z"}
    sandbox.faults.set(f"GET {TOKENS}", Reply(body=json.dumps({"tokens": [item]}).encode()))

    assert [token.id for token in client.list_access_tokens()] == [7]


@pytest.mark.parametrize("body", [b"[]", b"{}", b'{"tokens": {}}', b'{"tokens": null}'])
def test_what_is_no_list_of_tokens_is_unreadable(sandbox: Sandbox, client: ZammadClient, body: bytes) -> None:
    sandbox.faults.set(f"GET {TOKENS}", Reply(body=body))

    with pytest.raises(ZammadUnreadable):
        client.list_access_tokens()


def test_a_token_is_deleted_once(sandbox: Sandbox, client: ZammadClient) -> None:
    sandbox.add_token(2, "value", name=NAME)

    assert client.delete_access_token(2) is True
    assert list(sandbox.records["tokens"]) == [1]
    assert client.delete_access_token(2) is False


def test_a_refusal_to_delete_is_not_taken_for_unknown(sandbox: Sandbox) -> None:
    sandbox.add_token(4, "of-bob", name="Bob's", permissions=frozenset())
    stranger = ZammadClient(url=sandbox.url, token="of-bob")

    with pytest.raises(ZammadRefused) as refusal:
        stranger.delete_access_token(1)

    assert refusal.value.status == 403
    stranger.close()
    assert list(sandbox.records["tokens"]) == [1, 2]


def test_me_is_the_owner_of_the_token(client: ZammadClient) -> None:
    assert client.me()["email"] == "kim.agent@helpdesk.example"


def test_users_are_read_page_by_page_until_a_short_one(sandbox: Sandbox, client: ZammadClient) -> None:
    pages = list(client.users(per_page=3))

    assert [[user["id"] for user in page] for page in pages] == [[1, 2, 3], [4, 5, 6], [7]]  # type: ignore[index]
    assert [call.query for call in sandbox.calls] == [
        {"page": page, "per_page": "3", "expand": "true"} for page in ("1", "2", "3")
    ]


def test_a_last_page_that_is_full_is_followed_by_an_empty_one(sandbox: Sandbox, client: ZammadClient) -> None:
    assert [len(page) for page in client.users(per_page=7)] == [7]
    assert len(sandbox.calls) == 2


def test_a_pull_can_go_on_in_the_middle(client: ZammadClient) -> None:
    assert [[user["id"] for user in page] for page in client.users(per_page=3, start_page=2)] == [  # type: ignore[index]
        [4, 5, 6],
        [7],
    ]


def test_a_token_that_sees_only_itself_is_noticed(sandbox: Sandbox, client: ZammadClient) -> None:
    sandbox.add_token(2, "powerless", name="without permissions")
    powerless = ZammadClient(url=sandbox.url, token="powerless")

    assert client.can_list_users() is True
    assert powerless.can_list_users() is False


def changed(sandbox: Sandbox, **updated_at: timedelta) -> None:
    """Let all users be changed long ago, except these IDs, changed this long ago."""
    now = datetime.now(UTC)
    ago = {int(user_id.removeprefix("user")): moment for user_id, moment in updated_at.items()}
    with sandbox.lock:
        for user_id, user in sandbox.records["users"].items():
            moment = now - ago.get(user_id, timedelta(days=400))
            user["updated_at"] = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def ids(pages: Iterator[list[object]]) -> list[list[int]]:
    return [[user["id"] for user in page] for page in pages]  # type: ignore[index]


def test_users_changed_lately_are_searched_newest_first(sandbox: Sandbox, client: ZammadClient) -> None:
    changed(
        sandbox,
        user3=timedelta(minutes=50),
        user4=timedelta(minutes=70),
        user5=timedelta(minutes=5),
        user6=timedelta(hours=30),
    )
    sandbox.records["users"][5].update(active=False, organization="Acme Example GmbH")

    pages = list(client.users_changed_within(1, "hour"))

    assert ids(iter(pages)) == [[5, 3]]
    assert {"active": False, "organization": "Acme Example GmbH"}.items() <= pages[0][0].items()  # type: ignore[attr-defined]
    assert [call.query for call in sandbox.calls] == [
        {
            "condition[user.updated_at][operator]": "within last (relative)",
            "condition[user.updated_at][range]": "hour",
            "condition[user.updated_at][value]": "1",
            "sort_by": "updated_at",
            "order_by": "desc",
            "limit": "200",
            "expand": "true",
            "page": page,
        }
        for page in ("1", "2")
    ]
    assert ids(client.users_changed_within(6, "minute")) == [[5]]
    assert ids(client.users_changed_within(2, "day")) == [[5, 3, 4, 6]]
    assert ids(client.users_changed_within(1, "minute")) == []


def test_a_search_goes_on_although_zammad_answers_fewer_a_page(
    sandbox: Sandbox, client: ZammadClient
) -> None:
    for number in range(450):
        sandbox.add_user(f"person{number}@example.com")

    pages = ids(client.users_changed_within(1, "hour", per_page=1000))

    assert [len(page) for page in pages] == [200, 200, 57]
    assert len({user_id for page in pages for user_id in page}) == 457


def test_a_user_who_changes_between_two_pages_makes_others_come_twice_rather_than_never(
    sandbox: Sandbox, client: ZammadClient
) -> None:
    changed(sandbox, **{f"user{number}": timedelta(minutes=number) for number in range(2, 8)})

    pages = client.users_changed_within(1, "hour", per_page=3)
    first = next(pages)
    sandbox.change_user(7)  # it moves from the end to the front

    assert ids(iter([first, *pages])) == [[2, 3, 4], [4, 5, 6]]


def test_a_search_that_answers_one_page_for_ever_ends(sandbox: Sandbox, client: ZammadClient) -> None:
    sandbox.faults.set("GET /api/v1/users/search", Reply(body=b'[{"id": 3}]'))

    with pytest.raises(ZammadUnreadable, match=r"^Zammad returns the same page again and again\.$"):
        list(client.users_changed_within(1, "hour"))
    assert len(sandbox.calls) == 2


def test_each_page_of_a_search_has_a_deadline(sandbox: Sandbox, hurried: ZammadClient) -> None:
    sandbox.faults.set("GET /api/v1/users/search", Fault.DRIP_BODY)

    with pytest.raises(ZammadUnreachable):
        list(hurried.users_changed_within(1, "hour"))


def test_a_token_that_may_not_search_is_refused(sandbox: Sandbox) -> None:
    sandbox.add_token(2, "powerless", name="without permissions")
    powerless = ZammadClient(url=sandbox.url, token="powerless")

    with pytest.raises(ZammadRefused, match=r"^Zammad answered 403: Token authorization failed\.$"):
        list(powerless.users_changed_within(1, "hour"))


@pytest.mark.parametrize("body", [b"{}", b"null", b"5"])
def test_what_is_no_list_of_users_is_unreadable(sandbox: Sandbox, client: ZammadClient, body: bytes) -> None:
    sandbox.faults.set("GET /api/v1/users", Reply(body=body))

    with pytest.raises(ZammadUnreadable):
        next(client.users())
    with pytest.raises(ZammadUnreadable):
        client.can_list_users()
    with pytest.raises(ZammadUnreadable):
        next(client.users_changed_within(1, "hour"))


# --- Errors ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        pytest.param(Fault.RESET, ZammadUnreachable, id="reset"),
        pytest.param(Fault.HANG, ZammadUnreachable, id="hang"),
        pytest.param(Fault.DRIP_HEADERS, ZammadUnreachable, id="drip-headers"),
        pytest.param(Fault.DRIP_BODY, ZammadUnreachable, id="drip-body"),
        pytest.param(Fault.TRUNCATE, ZammadUnreachable, id="truncate"),
        pytest.param(faulty.OVERSIZED, ZammadUnreadable, id="oversized"),
        pytest.param(faulty.HTML_PAGE, ZammadUnreadable, id="html"),
        pytest.param(faulty.BROKEN_JSON, ZammadUnreadable, id="broken-json"),
        pytest.param(faulty.WRONG_TYPE, ZammadUnreadable, id="wrong-type"),
        pytest.param(faulty.NULL_TOKEN, ZammadUnreadable, id="null-token"),
        pytest.param(Reply(body=b""), ZammadUnreadable, id="empty"),
        pytest.param(Reply(body=b"[" * 100_000), ZammadUnreadable, id="deep"),
        pytest.param(Reply(body=b"\xff\xfe"), ZammadUnreadable, id="not-utf-8"),
        pytest.param(faulty.REDIRECT, ZammadRefused, id="redirect"),
        *(
            pytest.param(Reply(status=status), ZammadRefused, id=str(status))
            for status in (400, 401, 403, 404, 422, 429, 500, 502, 503, 504)
        ),
        pytest.param(
            Reply(status=429, headers={"Retry-After": "0"}), ZammadRefused, id="429-with-retry-after"
        ),
    ],
)
def test_a_failed_creation_has_a_typed_error_in_time_and_is_not_tried_again(
    sandbox: Sandbox, hurried: ZammadClient, fault: Fault | Reply, error: type[ZammadError]
) -> None:
    sandbox.faults.set(f"POST {TOKENS}", fault)

    started = time.monotonic()
    with pytest.raises(ZammadError) as failure:
        hurried.create_access_token(name=NAME, expires_on=EXPIRES_ON)

    assert type(failure.value) is error
    assert time.monotonic() - started < SHORT + 0.4
    assert len(sandbox.calls) == 1
    assert isinstance(fault, Fault) or failure.value.status == fault.status


@pytest.mark.parametrize("fault", [Fault.HANG, Fault.DRIP_HEADERS, Fault.DRIP_BODY])
def test_what_takes_too_long_is_called_that(sandbox: Sandbox, hurried: ZammadClient, fault: Fault) -> None:
    sandbox.faults.set("GET /api/v1/users/me", fault)

    with pytest.raises(ZammadUnreachable, match=r"^Zammad did not answer in time "):
        hurried.me()


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), id="only-continue"),
        pytest.param(
            drip(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"), id="chunks"
        ),
        pytest.param(drip(b"HTTP/1.0 200 OK\r\nConnection: close\r\n\r\n{", b" "), id="until-close"),
        pytest.param(drip(b"HTTP/1.1 200 OK\r\n", b"X-Drip: 1\r\n"), id="whole-headers"),
    ],
)
def test_no_manner_of_dripping_holds_a_thread(answer: Callable[[socket.socket], object]) -> None:
    with listener(answer) as url:
        client = ZammadClient(url=url, token=SECRET, deadline=SHORT)

        started = time.monotonic()
        with pytest.raises(ZammadUnreachable):
            client.create_access_token(name=NAME, expires_on=EXPIRES_ON)

        assert time.monotonic() - started < SHORT + 0.4
        client.close()


def test_a_header_block_that_was_cut_is_not_taken_for_an_empty_answer(
    sandbox: Sandbox, hurried: ZammadClient
) -> None:
    sandbox.faults.set(f"DELETE {TOKENS}", Fault.DRIP_HEADERS)

    with pytest.raises(ZammadUnreachable, match="in time"):
        hurried.delete_access_token(1)


def test_an_endless_answer_is_left_at_its_cap() -> None:
    def flood(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            connection.sendall(b" " * 65536)

    with listener(flood) as url:
        client = ZammadClient(url=url, token=SECRET)

        with pytest.raises(ZammadUnreadable, match=r"^Zammad's response is too long\.$"):
            client.me()
        client.close()


def test_a_compressed_answer_is_neither_asked_for_nor_unpacked(
    sandbox: Sandbox, client: ZammadClient
) -> None:
    packed = Reply(body=b"\x1f\x8b\x08\x00", headers={"Content-Encoding": "gzip"})
    sandbox.faults.set("GET /api/v1/users/me", packed)

    with pytest.raises(ZammadUnreadable, match=r"^Zammad's response is not JSON\.$"):
        client.me()
    assert sandbox.calls[0].headers["accept-encoding"] == "identity"


def test_nobody_listening_is_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    client = ZammadClient(url=f"http://127.0.0.1:{port}", token=SECRET)

    with pytest.raises(ZammadUnreachable, match=r"^Zammad could not be reached "):
        client.create_access_token(name=NAME, expires_on=EXPIRES_ON)


def test_a_server_that_does_not_accept_is_left_within_the_connect_time_out() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        # The backlog is full: new connections wait.
        waiting = [socket.socket() for _ in range(3)]
        for sock in waiting:
            sock.setblocking(False)
            sock.connect_ex(server.getsockname())
        client = ZammadClient(
            url=f"http://127.0.0.1:{server.getsockname()[1]}", token=SECRET, connect_timeout=0.2
        )

        started = time.monotonic()
        with pytest.raises(ZammadUnreachable):
            client.create_access_token(name=NAME, expires_on=EXPIRES_ON)

        assert time.monotonic() - started < 1
        for sock in waiting:
            sock.close()


def test_a_slow_look_up_of_the_host_counts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    done = threading.Event()

    def slow(*args: object, **kwargs: object) -> list[object]:
        done.wait(5)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    client = ZammadClient(url="http://zammad.example", token=SECRET, connect_timeout=0.1)

    started = time.monotonic()
    with pytest.raises(ZammadUnreachable):
        client.create_access_token(name=NAME, expires_on=EXPIRES_ON)

    assert time.monotonic() - started < 1
    done.set()


@pytest.mark.parametrize("error", [socket.gaierror("no such host"), UnicodeError("no such name")])
def test_a_host_that_nobody_knows_is_unreachable(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    client = ZammadClient(url="http://zammad.example", token=SECRET)

    with pytest.raises(ZammadUnreachable):
        client.create_access_token(name=NAME, expires_on=EXPIRES_ON)


def test_each_address_of_a_host_is_tried(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    port = int(sandbox.url.rpartition(":")[2])
    dead, alive = ("127.0.0.2", port), ("127.0.0.1", port)
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in (dead, alive)]
    known = socket.getaddrinfo
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda host, *args, **kwargs: found if host == "zammad.example" else known(host, *args, **kwargs),
    )
    client = ZammadClient(url=f"http://zammad.example:{port}", token=sandbox.token)

    assert client.me()["id"] == 2
    client.close()


@pytest.mark.parametrize("url", ["", "nonsense", "http://", "http://[::1", "ftp://127.0.0.1"])
def test_an_address_that_is_none_is_unreachable_upon_use(url: str) -> None:
    client = ZammadClient(url=url, token=SECRET, deadline=SHORT)

    with pytest.raises(ZammadUnreachable):
        client.me()


def test_a_missing_address_is_said_plainly() -> None:
    with pytest.raises(ZammadUnreachable, match=r"^Zammad is not configured: set ZAMMAD_URL\.$"):
        ZammadClient(url="", token=SECRET).me()


def test_zammads_own_words_are_kept_in_one_short_line(sandbox: Sandbox, client: ZammadClient) -> None:
    sandbox.api_token_access = False

    with pytest.raises(ZammadRefused) as refusal:
        client.create_access_token(name=NAME, expires_on=EXPIRES_ON)

    assert refusal.value.status == 422
    assert refusal.value.reason == "API token access disabled!"
    assert str(refusal.value) == "Zammad answered 422: API token access disabled!"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({"error": "a\nb\r\n\tc\x07"}, "a b c"),
        ({"error": "x" * 5000}, "x" * 200),
        ({"error": "raw", "error_human": "for people"}, "for people"),
        ({"error": f"{SECRET} is unknown"}, "*** is unknown"),
        ({"error": {"a": 1}}, ""),
        ({}, ""),
        ([], ""),
    ],
)
def test_a_reason_is_safe_to_log(sandbox: Sandbox, client: ZammadClient, answer: object, reason: str) -> None:
    sandbox.faults.set(f"POST {TOKENS}", Reply(status=422, body=json.dumps(answer).encode()))

    with pytest.raises(ZammadRefused) as refusal:
        client.create_access_token(name=NAME, expires_on=EXPIRES_ON)

    assert refusal.value.reason == reason
    assert str(refusal.value) == f"Zammad answered 422: {reason or 'no reason given'}"


def test_a_client_without_a_token_hears_why(sandbox: Sandbox) -> None:
    client = ZammadClient(url=sandbox.url, token="")

    with pytest.raises(ZammadRefused) as refusal:
        client.me()

    assert (refusal.value.status, refusal.value.reason) == (403, "Authentication required")
    client.close()


# --- TLS ---------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create a certificate for this machine that no authority knows; its key is in the same file."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is missing")
    path = tmp_path_factory.mktemp("tls") / "localhost.pem"
    command = f"req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost -keyout {path} -out {path}.crt"
    alternatives = ["-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([openssl, *command.split(), *alternatives], check=True, capture_output=True)
    path.write_text(path.read_text() + Path(f"{path}.crt").read_text())
    return path


@contextmanager
def tls_listener(certificate: Path, answer: Callable[[socket.socket], object]) -> Iterator[str]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    def answer_encrypted(connection: socket.socket) -> None:
        # The listener has accepted nothing yet: a handshake comes first.
        with context.wrap_socket(connection, server_side=True) as encrypted:
            encrypted.recv(65536)
            answer(encrypted)

    with listener(answer_encrypted, listen=False) as url:
        yield url.replace("http://127.0.0.1", "https://localhost")


def test_an_authority_of_the_companys_own_can_be_trusted(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(connection: socket.socket) -> None:
        connection.recv(65536)  # a socket closed with something unread resets what it sent
        connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 18\r\n\r\n{"token": "value"}')

    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with tls_listener(certificate, answer) as url:
        client = ZammadClient(url=url, token=SECRET)

        assert client.create_access_token(name=NAME, expires_on=EXPIRES_ON) == "value"
        client.close()


def test_a_certificate_that_nobody_vouches_for_gets_no_token(certificate: Path) -> None:
    arrived: list[socket.socket] = []
    with tls_listener(certificate, arrived.append) as url:
        client = ZammadClient(url=url, token=SECRET)

        with pytest.raises(ZammadUnreachable, match="SSLError"):
            client.create_access_token(name=NAME, expires_on=EXPIRES_ON)

    assert arrived == []


@pytest.mark.parametrize(
    "start", [b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"]
)
def test_dripping_over_tls_holds_nobody_either(
    certificate: Path, monkeypatch: pytest.MonkeyPatch, start: bytes
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with tls_listener(certificate, drip(start, b" ")) as url:
        client = ZammadClient(url=url, token=SECRET, deadline=SHORT)

        started = time.monotonic()
        with pytest.raises(ZammadUnreachable, match="in time"):
            client.create_access_token(name=NAME, expires_on=EXPIRES_ON)

        assert time.monotonic() - started < SHORT + 0.4
        client.close()


def test_a_dripping_handshake_holds_nobody() -> None:
    with listener(drip(b"\x16\x03\x03\x40\x00", b"\x00")) as url:
        client = ZammadClient(url=url.replace("http", "https"), token=SECRET, deadline=SHORT)

        started = time.monotonic()
        with pytest.raises(ZammadUnreachable, match="in time"):
            client.create_access_token(name=NAME, expires_on=EXPIRES_ON)

        assert time.monotonic() - started < SHORT + 0.4


# --- Another attempt --------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [Reply(status=502), Reply(status=429), Fault.RESET, Fault.TRUNCATE])
def test_a_read_that_failed_in_passing_is_tried_again(
    sandbox: Sandbox, client: ZammadClient, fault: Fault | Reply
) -> None:
    sandbox.faults.set("GET /api/v1/users/me", fault, times=2)

    assert client.me()["id"] == 2
    assert len(sandbox.calls) == 3


def test_a_deletion_that_failed_in_passing_is_tried_again(sandbox: Sandbox, client: ZammadClient) -> None:
    sandbox.add_token(2, "value", name=NAME)
    sandbox.faults.set(f"DELETE {TOKENS}", Reply(status=503), times=1)

    assert client.delete_access_token(2) is True
    assert list(sandbox.records["tokens"]) == [1]


def test_tries_come_to_an_end(sandbox: Sandbox, client: ZammadClient) -> None:
    sandbox.faults.set("GET /api/v1/users/me", Reply(status=503))

    with pytest.raises(ZammadRefused):
        client.me()

    assert len(sandbox.calls) == 3


def test_a_refusal_for_good_is_not_questioned(sandbox: Sandbox, client: ZammadClient) -> None:
    sandbox.faults.set("GET /api/v1/users/me", Reply(status=500))

    with pytest.raises(ZammadRefused):
        client.me()

    assert len(sandbox.calls) == 1


def test_retry_after_is_obeyed_when_there_is_time(sandbox: Sandbox, client: ZammadClient) -> None:
    sandbox.faults.set("GET /api/v1/users/me", Reply(status=429, headers={"Retry-After": "1"}), times=1)

    started = time.monotonic()
    assert client.me()["id"] == 2

    assert time.monotonic() - started >= 1


@pytest.mark.parametrize("after", ["3600", "9" * 6])
def test_retry_after_beyond_the_deadline_ends_the_operation_at_once(
    sandbox: Sandbox, client: ZammadClient, after: str
) -> None:
    sandbox.faults.set("GET /api/v1/users/me", Reply(status=429, headers={"Retry-After": after}))

    started = time.monotonic()
    with pytest.raises(ZammadRefused):
        client.me()

    assert time.monotonic() - started < 1
    assert len(sandbox.calls) == 1


# --- Credentials -----------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [Fault.RESET, Fault.HANG, faulty.BROKEN_JSON, Reply(status=401)])
def test_the_token_is_in_nothing_that_is_logged(
    sandbox: Sandbox, hurried: ZammadClient, fault: Fault | Reply
) -> None:
    sandbox.faults.set(f"POST {TOKENS}", fault)

    with pytest.raises(ZammadError) as failure:
        hurried.create_access_token(name=NAME, expires_on=EXPIRES_ON)

    told = io.StringIO()
    shown = traceback.TracebackException.from_exception(failure.value, capture_locals=True)
    print("".join(shown.format()), repr(hurried), repr(failure.value), file=told)
    assert SECRET not in told.getvalue()
    # requests' errors hold the request, and with it the token.
    assert failure.value.__cause__ is None
    assert not hasattr(failure.value.__context__, "request")


def test_a_token_that_is_no_header_is_not_quoted(sandbox: Sandbox) -> None:
    client = ZammadClient(url=sandbox.url, token="two\nlines")

    with pytest.raises(ZammadUnreachable) as failure:
        client.me()

    assert "lines" not in str(failure.value)
    assert sandbox.calls == []


def test_urllib3_logs_nothing_of_the_token(client: ZammadClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    client.create_access_token(name=NAME, expires_on=EXPIRES_ON)

    assert SECRET not in caplog.text


def test_the_environment_sends_the_token_nowhere_else(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    client = ZammadClient(url=sandbox.url, token=sandbox.token)

    assert client.me()["id"] == 2
    client.close()


def test_zammads_browser_session_is_not_taken_up(sandbox: Sandbox, client: ZammadClient) -> None:
    cookie = {"Set-Cookie": "_zammad_session_0=abc; path=/", "Content-Type": "application/json"}
    sandbox.faults.set("GET /api/v1/users/me", Reply(headers=cookie), times=1)

    client.me()
    client.me()

    assert "cookie" not in sandbox.calls[1].headers


# --- One client for all ------------------------------------------------------------------------


def test_a_connection_serves_many_operations(sandbox: Sandbox, client: ZammadClient) -> None:
    connections = set()
    for _ in range(3):
        client.me()
        connections |= {sock.getpeername() for sock in sandbox.connections()}

    assert len(connections) == 1


def test_threads_share_a_client(sandbox: Sandbox, client: ZammadClient) -> None:
    names = [f"{NAME}-{number}" for number in range(16)]

    with ThreadPoolExecutor(8) as pool:
        tokens = list(
            pool.map(lambda name: client.create_access_token(name=name, expires_on=EXPIRES_ON), names)
        )

    stored = {row["name"]: row["value"] for row in sandbox.records["tokens"].values()}
    assert [stored[name] for name in names] == tokens


def test_a_deadline_that_ends_one_operation_spares_the_next(sandbox: Sandbox, hurried: ZammadClient) -> None:
    sandbox.faults.set("GET /api/v1/users/me", Fault.HANG, times=1)

    with pytest.raises(ZammadUnreachable):
        hurried.me()

    assert hurried.me()["id"] == 2


def test_a_connection_made_after_the_deadline_is_cut_at_once() -> None:
    ours, theirs = socket.socketpair()
    with Deadline(0) as deadline, ours, theirs:
        deadline.watch(ours)

        assert theirs.recv(1) == b""
        with pytest.raises(TimeoutError):
            deadline.check()


def test_the_settings_name_the_client(sandbox: Sandbox, settings: Settings) -> None:
    first = get_client()
    assert first is get_client()
    assert first.me()["id"] == 2

    settings.ZAMMAD_API_TOKEN = "another"
    other = get_client()

    assert other is not first
    with pytest.raises(ZammadRefused):
        other.me()


def test_commands_may_bring_a_token_of_their_own_and_more_patience(sandbox: Sandbox) -> None:
    sandbox.add_token(3, "alice's", name="a")

    assert get_patient_client().me()["id"] == 2
    assert get_patient_client(token="alice's").me()["id"] == 3
    assert get_patient_client() is not get_client()


def test_the_permissions_of_the_owner_are_told_whatever_the_token_may(
    sandbox: Sandbox, client: ZammadClient
) -> None:
    with sandbox.lock:
        sandbox.records["tokens"][1]["permissions"] = frozenset({"user_preferences.access_token"})

    # `admin` and `ticket` are only shown, as parents.
    assert client.owner_permissions() == {
        "admin.object",
        "admin.trigger",
        "admin.user",
        "admin.webhook",
        "ticket.agent",
        "user_preferences.access_token",
    }


@pytest.mark.parametrize(
    ("told", "understood"),
    [
        ([{"name": "admin"}, {"name": "a", "preferences": None}], {"admin", "a"}),
        ([{"name": 5}, {}, "admin.user", None], set()),
    ],
)
def test_odd_permissions_are_left_out(
    sandbox: Sandbox, client: ZammadClient, told: object, understood: set[str]
) -> None:
    sandbox.faults.set(f"GET {TOKENS}", Reply(body=json.dumps({"permissions": told}).encode()))

    assert client.owner_permissions() == understood


def test_an_answer_without_permissions_is_unreadable(sandbox: Sandbox, client: ZammadClient) -> None:
    sandbox.faults.set(f"GET {TOKENS}", Reply(body=b'{"permissions": {}}'))

    with pytest.raises(ZammadUnreadable, match="no list of permissions"):
        client.owner_permissions()


def test_webhooks_are_made_listed_changed_and_deleted(sandbox: Sandbox, client: ZammadClient) -> None:
    webhook_id = client.create_object("webhook", {"name": "a", "endpoint": "http://x.example/"})
    client.update_object("webhook", webhook_id, {"endpoint": "http://y.example/"})

    [row] = client.list_objects("webhook")
    assert (row["id"], row["name"], row["endpoint"]) == (webhook_id, "a", "http://y.example/")
    assert client.list_objects("trigger") == []
    assert client.delete_object("webhook", webhook_id) is True
    assert client.delete_object("webhook", webhook_id) is False


def test_all_webhooks_are_listed_however_many(sandbox: Sandbox, client: ZammadClient) -> None:
    with sandbox.lock:
        sandbox.records["webhooks"] = {number: {"id": number} for number in range(1, 502)}

    assert len(client.list_objects("webhook")) == 501
    assert [call.query["page"] for call in sandbox.calls] == ["1", "2"]


def test_odd_webhooks_are_left_out(sandbox: Sandbox, client: ZammadClient) -> None:
    sandbox.faults.set("GET /api/v1/webhooks", Reply(body=b'[{"id": "5"}, {}, null, "a", {"id": 5}]'))

    assert client.list_objects("webhook") == [{"id": 5}]


def test_a_webhook_that_is_still_sent_is_not_deleted(sandbox: Sandbox, client: ZammadClient) -> None:
    sandbox.install_webhook("http://x.example/", secret="s")

    with pytest.raises(ZammadRefused, match="422: Cannot delete! This webhook is referenced by Trigger: "):
        client.delete_object("webhook", 1)


def test_a_refusal_never_quotes_the_signature_token(sandbox: Sandbox, client: ZammadClient) -> None:
    sandbox.faults.set("POST /api/v1/webhooks", Reply(status=422, body=b'{"error": "hunter2 is too short"}'))

    with pytest.raises(ZammadRefused) as refusal:
        client.create_object("webhook", {"name": "a", "signature_token": "hunter2"})

    assert refusal.value.reason == "*** is too short"


def test_a_project_without_zammad_fails_upon_use(settings: Settings) -> None:
    settings.ZAMMAD_URL = ""

    with pytest.raises(ZammadUnreachable, match="not configured"):
        get_client().me()


# --- Operations that share their time --------------------------------------------------------------


def test_operations_of_one_request_wait_no_longer_together_than_one(
    hurried: ZammadClient, sandbox: Sandbox
) -> None:
    sandbox.faults.set(f"POST {TOKENS}", Fault.HANG)
    began = time.monotonic()

    with shared_time(SHORT):
        for _ in range(5):
            with pytest.raises(ZammadUnreachable, match="did not answer in time"):
                hurried.create_access_token(name=NAME, expires_on=EXPIRES_ON)

    # Five separate ones would take five times as long, and only the first one was sent at all.
    assert time.monotonic() - began < 3 * SHORT
    assert len(sandbox.calls) == 1


def test_whoever_shared_time_with_nobody_has_all_of_it_again(hurried: ZammadClient, sandbox: Sandbox) -> None:
    sandbox.faults.set(f"POST {TOKENS}", Fault.HANG, times=1)
    with shared_time(SHORT), pytest.raises(ZammadUnreachable):
        hurried.create_access_token(name=NAME, expires_on=EXPIRES_ON)

    assert hurried.create_access_token(name=NAME, expires_on=EXPIRES_ON)
