"""How request bodies reach the production server: whole, in chunks, too large, too slow, or too many."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import signal
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

import pytest
from django.utils import timezone

from tests.api import JSON, node_id
from tests.benchmarks.processes import memory_of
from tests.factories import OwnerFactory
from tests.production import ProductionServer, at_once, production_server, running_server, wait_for
from tests.server import Answer
from tests.wire import Wire, ask, chunk, head, in_chunks
from zammad.models import WebhookDelivery, ZammadUser

MIB = 1024 * 1024
WEBHOOK, GRAPHQL, LOGIN = "/webhooks/zammad/", "/graphql/", "/_allauth/app/v1/auth/login"
SIGN_IN_PAGE = "/accounts/login/"
CAPS = {WEBHOOK: 16 * MIB, GRAPHQL: 100 * 1024, SIGN_IN_PAGE: MIB, LOGIN: MIB}
QUERY = b'{"query": "{ viewer { plan { id } } }"}'
WINDOW = 2.0  # seconds, instead of ten
ROOM = 36 * MIB  # instead of 256, of which large bodies may take all but 16

# Zammad sends up to forty at once: LARGE_DELIVERIES=40 .venv/bin/pytest tests/test_bodies.py -rP -k large
LARGE_DELIVERIES = int(os.environ.get("LARGE_DELIVERIES", "10"))
PLAN = "query($id: ID!) { plan(id: $id) { name seatsTaken } }"

pytestmark = pytest.mark.xdist_group("production-bodies")


@pytest.fixture(scope="module")
def _server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProductionServer]:
    directory = tmp_path_factory.mktemp("bodies")
    (directory / "temporary").mkdir()
    more = {
        "BODY_WINDOW_SECONDS": str(WINDOW),
        "BODY_SECONDS": str(3 * WINDOW),
        "BODIES_MAX_BYTES": str(ROOM),
        "WEB_CONCURRENCY": "2",
        "WEB_THREADS": "4",
        "TMPDIR": f"{directory}/temporary",
        "LOCKS_DIR": f"{directory}/locks",
    }
    with running_server("sqlite", directory, **more) as server:
        yield server
        assert server.complaints() == []


@pytest.fixture
def server(_server: ProductionServer, server_databases: None) -> Iterator[ProductionServer]:
    with _server.database():
        WebhookDelivery.objects.all().delete()
        ZammadUser.objects.all().delete()
        yield _server


def signed_delivery(server: ProductionServer, zammad_id: int, size: int) -> tuple[list[str], bytes]:
    """Return the lines of the head and the body of a delivery about a customer, padded to a size."""
    customer = {"id": zammad_id, "email": "", "updated_at": timezone.now().isoformat()}
    article = {"attachment": ""}
    data = {"ticket": {"customer": customer}, "article": article}
    article["attachment"] = "A" * (size - len(json.dumps(data)))
    body = json.dumps(data).encode()
    signature = hmac.new(server.webhook_secret.encode(), body, hashlib.sha1).hexdigest()
    lines = [
        f"Content-Type: {JSON}",
        f"X-Hub-Signature: sha1={signature}",
        f"X-Zammad-Delivery: {uuid.uuid4()}",
    ]
    return lines, body


def send(server: ProductionServer, lines: list[str], body: bytes) -> Answer:
    return ask(server.port, head("POST", WEBHOOK, *lines, f"Content-Length: {len(body)}"), body)


def deliver(server: ProductionServer, zammad_id: int, size: int) -> Answer:
    return send(server, *signed_delivery(server, zammad_id, size))


def temporary_files(server: ProductionServer) -> int:
    """Count the nameless files that the server's processes hold."""
    count = 0
    for process in processes(server):
        with suppress(OSError):
            for opened in (process / "fd").iterdir():
                with suppress(OSError):
                    count += str(opened.readlink()).startswith(server.environment["TMPDIR"])
    return count


def message_of(path: str, answer: Answer) -> str:
    """Return the text of a refusal, where the clients of a path look for it."""
    if path == GRAPHQL:
        [error] = answer.json()["errors"]
        assert error["extensions"]["code"] in {"INVALID_INPUT", "SERVICE_UNAVAILABLE"}
        return str(error["message"])
    if path == LOGIN:
        [error] = answer.json()["errors"]
        assert answer.json()["status"] == answer.status
        return str(error["message"])
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    return answer.body.decode().removesuffix("\n")


# --- Sizes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", CAPS)
def test_a_body_of_just_the_cap_is_read_and_one_byte_more_is_not(server: ProductionServer, path: str) -> None:
    cap = CAPS[path]
    too_large = "body too large" if path == WEBHOOK else "The request is too large."
    for lengths in (True, False):

        def post(size: int, announces: bool = lengths) -> Answer:
            lines = [f"Content-Type: {JSON}"]
            lines += [f"Content-Length: {size}" if announces else "Transfer-Encoding: chunked"]
            body = b"a" * size
            return ask(server.port, head("POST", path, *lines), body if announces else in_chunks(body))

        assert post(cap).status in {400, 403}  # it was read: it is not JSON, not a form, and not signed
        refused = post(cap + 1)
        assert refused.status == 413
        assert message_of(path, refused) == too_large
        assert refused.headers["Connection"] == "close"
        assert refused.headers["X-Request-ID"]


@pytest.mark.parametrize("path", CAPS)
def test_what_announces_too_much_is_refused_before_any_of_it_was_sent(
    server: ProductionServer, path: str
) -> None:
    for length in (CAPS[path] + 1, 10**14, 10**18):
        answer = ask(server.port, head("POST", path, f"Content-Length: {length}"))
        assert answer.status == 413


@pytest.mark.parametrize("path", CAPS)
def test_chunks_are_refused_as_soon_as_they_are_too_many(server: ProductionServer, path: str) -> None:
    with Wire(server.port, head("POST", path, "Transfer-Encoding: chunked")) as wire:
        wire.send(chunk(b"a" * (CAPS[path] + 1)))  # and no end

        assert wire.answer().status == 413
        wire.send(chunk(b"a"))
        wire.socket.close()


def test_a_client_that_waits_to_be_asked_for_its_body_is_not_asked_for_too_much(
    server: ProductionServer,
) -> None:
    expects = "Expect: 100-continue"
    with Wire(server.port, head("POST", GRAPHQL, f"Content-Length: {MIB}", expects)) as wire:
        assert wire.answer().status == 413

    lines = [f"Content-Type: {JSON}", f"Content-Length: {len(QUERY)}", expects]
    with Wire(server.port, head("POST", GRAPHQL, *lines)) as wire:
        assert wire.socket.recv(25, 0x100) == b"HTTP/1.1 100 Continue\r\n\r\n"  # MSG_WAITALL
        wire.send(QUERY)
        assert wire.answer().status == 200


# --- Chunks --------------------------------------------------------------------------------------


def test_an_operation_in_chunks_is_answered(server: ProductionServer) -> None:
    lines = [f"Content-Type: {JSON}", "Transfer-Encoding: chunked"]

    answer = ask(server.port, head("POST", GRAPHQL, *lines), in_chunks(QUERY[:9], QUERY[9:]))

    assert (answer.status, answer.json()) == (200, {"data": {"viewer": None}})


def test_a_delivery_in_chunks_is_taken(server: ProductionServer) -> None:
    lines, body = signed_delivery(server, 57, 3 * MIB)

    answer = ask(
        server.port,
        head("POST", WEBHOOK, *lines, "Transfer-Encoding: chunked"),
        in_chunks(*[body[start : start + 100_000] for start in range(0, len(body), 100_000)]),
    )

    assert (answer.status, answer.body) == (200, b"APPLIED\n")
    assert ZammadUser.objects.get().zammad_id == 57


def test_forms_and_accounts_in_chunks_are_read(server: ProductionServer) -> None:
    account = b'{"email": "nobody@example.com", "password": "a guess of mine"}'
    lines = [f"Content-Type: {JSON}", "Transfer-Encoding: chunked"]
    answer = ask(server.port, head("POST", LOGIN, *lines), in_chunks(account))
    assert answer.json()["errors"][0]["code"] == "email_password_mismatch"

    page = server.get(SIGN_IN_PAGE)
    csrf = page.headers["Set-Cookie"].split(";")[0].partition("=")[2]
    form = f"csrfmiddlewaretoken={csrf}&login=nobody@example.com&password=a+guess".encode()
    lines = [
        "Content-Type: application/x-www-form-urlencoded",
        "Transfer-Encoding: chunked",
        f"Cookie: csrftoken={csrf}",
        f"Origin: {server.url}",
    ]
    answer = ask(server.port, head("POST", SIGN_IN_PAGE, *lines, host=server.url[7:]), in_chunks(form))
    assert answer.status == 200
    assert b"not correct" in answer.body


# --- What can be read in two ways ------------------------------------------------------------------

SMUGGLED = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


@pytest.mark.parametrize("path", [WEBHOOK, GRAPHQL, SIGN_IN_PAGE, "/healthz"])
@pytest.mark.parametrize(
    "lines",
    [
        ["Content-Length: 5", "Transfer-Encoding: chunked"],
        ["Transfer-Encoding: chunked", "Content-Length: 5"],
        ["Content-Length: 5", "Content-Length: 5"],
        ["Content-Length: 5", "Content-Length: 6"],
        ["Content-Length: 5, 5"],
        ["Content-Length: -1"],
        ["Content-Length: +5"],
        ["Content-Length: 1e3"],
        ["Content-Length: \u0665"],
        ["Content-Length: "],
        ["Content-Length: " + "9" * 5000],
        ["Transfer-Encoding: identity"],
        ["Transfer-Encoding: xchunked"],
        ["Transfer-Encoding: gzip, chunked"],
        ["Transfer-Encoding: chunked, identity"],
        ["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"],
        ["Transfer-Encoding: identity", "Transfer-Encoding: chunked"],
        ["Transfer-Encoding : chunked"],
        ["Transfer-Encoding:\r\n chunked"],
    ],
)
def test_a_length_that_can_be_read_in_two_ways_ends_the_connection(
    server: ProductionServer, path: str, lines: list[str]
) -> None:
    with Wire(server.port, head("POST", path, *lines) + b"0\r\n\r\n" + SMUGGLED) as wire:
        answer = wire.answer()

        assert answer.status == 400
        assert answer.headers["Connection"] == "close"
        assert wire.has_ended()
    assert not WebhookDelivery.objects.exists()


@pytest.mark.parametrize("bad", [b"zz\r\n", b"-1\r\n", b"f" * 17 + b"\r\n", b"5\r\nhelloX\r\n0\r\n\r\n"])
def test_chunks_that_are_none_end_the_connection(server: ProductionServer, bad: bytes) -> None:
    with Wire(server.port, head("POST", GRAPHQL, "Transfer-Encoding: chunked") + bad + SMUGGLED) as wire:
        assert wire.answer().status == 400
        assert wire.has_ended()


@pytest.mark.parametrize(
    "request_line",
    [
        "BREW {path} HTTP/1.1",
        "post {path} HTTP/1.1",
        "POST {path}?next=x HTTP/9.9",
        "POST {path} HTTP/1.1\r\nNo header",
    ],
)
@pytest.mark.parametrize("path", [LOGIN, "/_allauth/", GRAPHQL, SIGN_IN_PAGE])
def test_what_is_no_http_is_refused_in_the_form_of_its_path(
    server: ProductionServer, request_line: str, path: str
) -> None:
    with Wire(server.port, request_line.format(path=path).encode() + b"\r\nHost: 127.0.0.1\r\n\r\n") as wire:
        answer = wire.answer()

        assert answer.status == 400
        assert wire.has_ended()
    if path == SIGN_IN_PAGE:
        assert answer.headers["Content-Type"].startswith("text/plain")
        return
    assert answer.headers["Content-Type"].startswith(JSON)
    told = answer.json()
    assert told["errors"][0]["message"]
    assert path == GRAPHQL or (told["status"], told["errors"][0]["code"]) == (400, "bad_request")


def test_http_1_0_has_no_chunks(server: ProductionServer) -> None:
    request = head("POST", GRAPHQL, "Transfer-Encoding: chunked").replace(b"HTTP/1.1", b"HTTP/1.0")

    assert ask(server.port, request, in_chunks(QUERY)).status == 400


def test_a_head_that_does_not_end_is_not_kept(server: ProductionServer) -> None:
    with Wire(server.port, b"GET / HTTP/1.1\r\n" + b"X-More: " + b"a" * 80_000) as wire:
        assert wire.answer().status == 400
        assert wire.has_ended()


def test_a_header_with_an_underscore_is_no_other(server: ProductionServer) -> None:
    token = f"X_Session_Token: {uuid.uuid4().hex}"
    lines = [f"Content-Type: {JSON}", f"Content-Length: {len(QUERY)}"]

    assert ask(server.port, head("POST", GRAPHQL, *lines, token.replace("_", "-")), QUERY).status == 401
    assert ask(server.port, head("POST", GRAPHQL, *lines, token), QUERY).status != 401


def test_a_client_that_closes_its_half_is_answered(server: ProductionServer) -> None:
    with Wire(server.port, head("GET", "/healthz")) as wire:
        wire.socket.shutdown(1)  # SHUT_WR

        assert wire.answer().body == b"ok\n"
        assert wire.has_ended()


# --- Time ------------------------------------------------------------------------------------------


def test_dripping_bodies_hold_nobody_up_and_are_given_up(server: ProductionServer) -> None:
    # given far more connections than threads, each sending a byte now and then
    paths = [WEBHOOK, GRAPHQL, SIGN_IN_PAGE, LOGIN] * 16
    with ExitStack() as stack:
        wires = [stack.enter_context(Wire(server.port)) for _ in paths]
        for path, wire in zip(paths, wires, strict=True):
            wire.send(head("POST", path, f"Content-Type: {JSON}", "Content-Length: 5000"), b"{")

        # when other people send requests, then they get responses as usual
        seconds = []
        for number in range(5):
            answers = at_once([partial(server.get, "/healthz"), partial(deliver, server, 60 + number, 2000)])
            assert [answer.status for answer in answers] == [200, 200]
            seconds += [answer.seconds for answer in answers]
            for wire in wires:
                wire.send(b" ")
        assert max(seconds) < WINDOW

        # and each slow client hears that it was too slow, in the form it speaks
        for path, wire in zip(paths, wires, strict=True):
            answer = wire.answer()
            assert answer.status == 408
            assert answer.seconds >= WINDOW
            too_slow = "body too slow" if path == WEBHOOK else "The request took too long to arrive."
            assert message_of(path, answer) == too_slow
    assert Counter(WebhookDelivery.objects.values_list("outcome", flat=True)) == {"APPLIED": 5}


def test_a_body_that_would_take_for_ever_at_a_good_pace_is_given_up(server: ProductionServer) -> None:
    with Wire(server.port, head("POST", WEBHOOK, f"Content-Length: {16 * MIB}")) as wire:
        wire.socket.setblocking(False)
        ends_at = time.monotonic() + 4 * 3 * WINDOW
        answered = False
        while not answered:
            assert time.monotonic() < ends_at
            wire.send(b" " * 10_000)
            time.sleep(0.25)  # twice as fast as necessary
            try:
                answered = bool(wire.socket.recv(1, 2))  # MSG_PEEK
            except BlockingIOError:
                continue
        wire.socket.settimeout(10)

        answer = wire.answer()
    assert (answer.status, answer.body) == (408, b"body too slow\n")
    assert answer.seconds >= 3 * WINDOW


# --- Room ------------------------------------------------------------------------------------------


def test_what_finds_no_room_hears_it_and_room_is_free_again_once_a_client_hangs_up(
    server: ProductionServer,
) -> None:
    # given two deliveries that do not end, in any processes
    with ExitStack() as stack:
        for _ in range(2):
            wire = stack.enter_context(
                Wire(server.port, head("POST", WEBHOOK, f"Content-Length: {10 * MIB}"))
            )
            wire.send(b" " * (9 * MIB))
        wait_for(lambda: temporary_files(server) == 2)

        # when a third one arrives, then there is no room for it, but room for everybody else
        refused = deliver(server, 57, 5 * MIB)
        assert (refused.status, refused.body) == (503, b"too many bodies at once, try again\n")
        assert refused.headers["Retry-After"] == "5"
        assert deliver(server, 58, 2000).body == b"APPLIED\n"
        assert server.get(SIGN_IN_PAGE).status == 200
        assert list(ZammadUser.objects.values_list("zammad_id", flat=True)) == [58]

    # when the two hang up, then it is accepted
    wait_for(lambda: temporary_files(server) == 0)
    assert deliver(server, 57, 5 * MIB).body == b"APPLIED\n"
    wait_for(lambda: temporary_files(server) == 0)
    assert list(Path(server.environment["TMPDIR"]).iterdir()) == []


def test_a_process_that_is_killed_leaves_neither_files_nor_its_share_of_the_room(
    tmp_path: Path, server_databases: None
) -> None:
    (tmp_path / "temporary").mkdir()
    more = {"BODIES_MAX_BYTES": str(ROOM), "WEB_CONCURRENCY": "2", "TMPDIR": f"{tmp_path}/temporary"}
    more["LOCKS_DIR"] = f"{tmp_path}/locks"
    with production_server("sqlite", tmp_path, **more) as server:
        wait_for(lambda: server.log.read_text().count("Started worker-") == 2)
        # given deliveries that use up the room
        with ExitStack() as stack:
            for _ in range(2):
                begun = Wire(server.port, head("POST", WEBHOOK, f"Content-Length: {10 * MIB}"))
                stack.enter_context(begun).send(b" " * (9 * MIB))
            wait_for(lambda: temporary_files(server) == 2)

            # when the processes that handle them are killed
            for pid in workers(server):
                os.kill(pid, signal.SIGKILL)
            wait_for(lambda: server.log.read_text().count("Started worker-") == 4)

        # then others replace them, and find the room empty
        assert temporary_files(server) == 0
        assert list(Path(server.environment["TMPDIR"]).iterdir()) == []
        assert deliver(server, 57, 12 * MIB).body == b"APPLIED\n"


def processes(server: ProductionServer) -> list[Path]:
    """Return the directory in which Linux describes the server's processes."""
    assert server.process is not None
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has just ended
            if os.getpgid(int(process.name)) == server.process.pid:
                found.append(process)
    return found


def workers(server: ProductionServer) -> list[int]:
    """Return the processes that handle requests: those with threads."""
    return [int(process.name) for process in processes(server) if len(list((process / "task").iterdir())) > 4]


# --- Many large ones ---------------------------------------------------------------------------------


def memory(server: ProductionServer) -> float:
    """Return the memory of all processes together, in MB."""
    total = 0.0
    for process in processes(server):
        with suppress(OSError):
            total += memory_of(process).pss
    return total


@pytest.mark.xdist_group("production-large-bodies")
def test_many_large_deliveries_at_once_take_little_memory_and_hold_nobody_up(
    tmp_path: Path, server_databases: None
) -> None:
    with production_server("sqlite", tmp_path) as server, ThreadPoolExecutor(1) as pool:
        # given a server that has handled requests before
        for number in range(6):
            assert deliver(server, 1000 + number, MIB // 2).status == 200
        owner = OwnerFactory()
        session, plan_id = server.session_of(owner.user), node_id(owner.family_plan)
        ask_for_plan = partial(server.ask, session, PLAN, id=plan_id)
        usual = [ask_for_plan().seconds for _ in range(10)]
        before = memory(server)

        ids = range(57, 57 + LARGE_DELIVERIES)
        deliveries = [signed_delivery(server, zammad_id, 9_000_000) for zammad_id in ids]

        def deliver_until_taken(lines: list[str], body: bytes) -> list[int]:
            statuses = [send(server, lines, body).status]
            while statuses[-1] == 503:
                time.sleep(0.2)  # Zammad waits longer
                statuses.append(send(server, lines, body).status)
            return statuses

        # when many large deliveries arrive concurrently, and others send requests as well
        delivering = pool.submit(at_once, [partial(deliver_until_taken, *each) for each in deliveries])
        seconds, most = [], before
        while not delivering.done():
            answer = ask_for_plan()
            assert answer.json()["data"]["plan"]["seatsTaken"] == 1
            seconds.append(answer.seconds)
            most = max(most, memory(server))
        statuses = Counter(status for each in delivering.result() for status in each)

        figures = f"{most - before:.0f} MB more, plan query at most {max(seconds):.2f} s, {dict(statuses)}"
        print(figures)  # noqa: T201  # shown with -rP
        # then each was stored in the end, and nobody noticed
        assert statuses.keys() <= {200, 503}
        assert statuses[200] == LARGE_DELIVERIES
        assert ZammadUser.objects.filter(zammad_id__lt=1000).count() == LARGE_DELIVERIES
        assert most - before < 500
        assert max(seconds) < max(1.0, 3 * max(usual))
        assert server.complaints() == []
