"""Sign-in and sign-up on the production server: crowds, guesses and floods, over all its processes."""

from __future__ import annotations

import json
import os
import signal
import statistics
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException
from itertools import count
from pathlib import Path

import pytest
from allauth.account.models import EmailAddress
from django.contrib.auth.models import User

from config.serving import STEP
from tests.api import JSON, node_id
from tests.factories import OwnerFactory
from tests.mail_server import Fault, MailServer
from tests.production import KINDS, ProductionServer, at_once, empty_database, running_server, wait_for
from tests.server import Answer
from tests.test_production_server import bound, everybody_else

API = "/_allauth/app/v1"
PASSWORD = "correct-horse-battery"
DANA = "dana@example.com"

clients = count(1)


@dataclass(frozen=True, slots=True)
class Doors:
    server: ProductionServer
    mails: MailServer

    def post(self, path: str, body: dict[str, str], token: str = "", **headers: str) -> Answer:
        """Send requests as a client of its own: limits by address do not matter here."""
        number = next(clients)
        address = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
        sent = {"Content-Type": JSON, "X-Forwarded-For": address, **headers}
        if token:
            sent["X-Session-Token"] = token
        return self.server.request("POST", f"{API}{path}", json.dumps(body).encode(), sent)

    def log_in(self, password: str = PASSWORD, email: str = DANA, **headers: str) -> Answer:
        return self.post("/auth/login", {"email": email, "password": password}, **headers)

    def sign_up(self, email: str) -> Answer:
        return self.post("/auth/signup", {"email": email, "password": PASSWORD})

    def reset(self, email: str = DANA, **headers: str) -> Answer:
        return self.post("/auth/password/request", {"email": email}, **headers)


@pytest.fixture(scope="module", params=KINDS)
def _doors(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    directory = tmp_path_factory.mktemp("doors")
    with (
        MailServer() as mails,
        running_server(
            request.param,
            directory,
            EMAIL_URL=f"smtp://127.0.0.1:{mails.port}",
            LOCKS_DIR=str(directory / "locks"),
            TRUSTED_PROXY_COUNT="1",
            WEB_CONCURRENCY="2",
            WEB_THREADS="16",
        ) as server,
    ):
        yield Doors(server, mails)


@pytest.fixture
def doors(_doors: Doors, server_databases: None) -> Iterator[Doors]:
    """Share a running server, empty but for dana's account."""
    before = len(_doors.server.complaints())
    with _doors.server.database():
        empty_database()
        _doors.server.make_account(DANA, PASSWORD)
        yield _doors
        _doors.mails.fault = None
    complaints = _doors.server.complaints()[before:]
    # A test may kill a worker.
    assert [line for line in complaints if "ended unexpectedly (-9)" not in line] == []


# --- Crowds -----------------------------------------------------------------------------------------


def test_people_who_sign_in_at_the_same_moment_all_get_in(doors: Doors) -> None:
    # given sixteen, or as many as this machine handles in the ten seconds that a request waits
    crowd = min(16, int(8 / doors.log_in().seconds))

    answers = at_once([doors.log_in] * crowd)

    longest = max(answer.seconds for answer in answers)
    print(f"{crowd} at once: {longest:.1f} s")  # noqa: T201  # shown with -rP
    assert Counter(answer.status for answer in answers) == {200: crowd}


def test_while_twenty_people_sign_up_everybody_else_is_answered_within_a_second(doors: Doors) -> None:
    # given the usual times
    bystander = OwnerFactory()
    session, plan_id = doors.server.session_of(bystander.user), node_id(bystander.family_plan)
    usual = everybody_else(doors.server, session, plan_id, rounds=5)

    # when twenty people sign up, and others send requests as well
    asking = [partial(everybody_else, doors.server, session, plan_id, rounds=8)]
    seconds, *answers = at_once(
        [*asking, *(partial(doors.sign_up, f"new{number}@example.com") for number in range(20))]
    )

    # then the others did not notice, and the twenty signed up or heard when to come back
    assert max(seconds) < bound(usual)
    assert {answer.status for answer in answers} <= {401, 503}
    for answer in answers:
        if answer.status == 503:
            assert answer.headers["Retry-After"] == "5"
            assert answer.json()["errors"][0]["code"] == "passwords_busy"
    made = EmailAddress.objects.filter(email__startswith="new").count()
    assert made == sum(answer.status == 401 for answer in answers) >= 8


def test_a_process_that_is_killed_while_it_hashes_keeps_no_place(doors: Doors) -> None:
    # given a worker that is killed while people sign in
    held = doors.server.environment["LOCKS_DIR"]

    def holders() -> list[int]:
        """List the processes that have a lock's file open, as Linux reports them."""
        found = []
        for opened in Path("/proc").glob("[0-9]*/fd/*"):
            with suppress(OSError):  # it has been closed in the meantime
                if os.readlink(opened).startswith(held):
                    found.append(int(opened.parts[2]))
        return found

    def sign_in_or_be_cut_off() -> None:
        with suppress(OSError, HTTPException):
            doors.log_in()

    def kill_the_holder() -> None:
        found: list[int] = []

        def somebody_holds_it() -> bool:
            found.extend(holders())
            return bool(found)

        wait_for(somebody_holds_it)
        os.kill(found[0], signal.SIGKILL)

    at_once([*[sign_in_or_be_cut_off] * 4, kill_the_holder])

    # then the next one gets in
    wait_for(doors.server.is_healthy)
    assert doors.log_in().status == 200


# --- Guesses ------------------------------------------------------------------------------------------


def test_of_many_wrong_passwords_at_the_same_moment_five_are_told_as_wrong(doors: Doors) -> None:
    token = doors.log_in().json()["meta"]["device_token"]

    answers = at_once([partial(doors.log_in, f"guess-{number}") for number in range(12)])

    codes = Counter(answer.json()["errors"][0]["code"] for answer in answers if answer.status in {400, 429})
    assert codes["email_password_mismatch"] == 5
    assert codes["too_many_login_attempts"] == 12 - 5 - sum(answer.status == 503 for answer in answers)
    # strangers are locked out even with the right password; the device is not
    locked = doors.log_in()
    assert (locked.status, locked.json()["status"]) == (429, 429)
    assert 0 < int(locked.headers["Retry-After"]) <= 300
    assert doors.log_in(**{"X-Device-Token": token}).status == 200


# --- Mails ----------------------------------------------------------------------------------------------


def mails_to(doors: Doors, address: str) -> int:
    return sum(recipient == address for recipient, _ in doors.mails.mails)


def test_a_flood_of_requests_mails_an_address_ten_times_and_its_owner_can_still_reset(doors: Doors) -> None:
    token = doors.log_in().json()["meta"]["device_token"]
    doors.mails.mails.clear()

    for _ in range(5):  # allauth lets five through in a minute, one by one
        assert doors.reset().status == 401
    answers = at_once([partial(doors.sign_up, DANA) for _ in range(12)])
    assert {answer.status for answer in answers} <= {401, 503}
    while sum(answer.status == 401 for answer in answers) < 8:
        answers.append(doors.sign_up(DANA))

    wait_for(lambda: mails_to(doors, DANA) == 10)
    for tagged in ("dana+more@example.com", "DANA+2@example.com"):
        assert doors.sign_up(tagged).status == 401
    own = doors.post("/auth/signup", {"email": DANA, "password": PASSWORD}, **{"X-Device-Token": token})
    assert own.status == 401
    wait_for(lambda: mails_to(doors, DANA) == 11)
    assert len(doors.mails.mails) == 11


@pytest.mark.parametrize("fault", [None, Fault.HANG])
def test_nobody_learns_by_time_status_or_text_whether_an_address_is_known(
    doors: Doors, fault: Fault | None
) -> None:
    doors.mails.fault = fault
    asked = {"sign-up": doors.sign_up, "reset": doors.reset}
    for name, ask in asked.items():
        seconds: dict[bool, list[float]] = {True: [], False: []}
        texts = set()
        for number in range(6):
            known = doors.server.make_account(f"{name}.known{number}@example.com", PASSWORD).email
            for known_one, address in ((True, known), (False, f"{name}.nobody{number}@example.com")):
                answer = ask(address)
                told = answer.json()
                token = told.get("meta", {}).pop("session_token", None)
                texts.add((answer.status, bool(token), json.dumps(told)))
                seconds[known_one].append(answer.seconds)
        medians = {known_one: statistics.median(times) for known_one, times in seconds.items()}
        print(name, fault, medians)  # noqa: T201  # shown with -rP
        assert len(texts) == 1, texts
        # The server rounds up what is left between the two.
        assert min(map(min, seconds.values())) >= STEP
        # Without a hash in both cases it would be ten times as much, with a mail in one five seconds more.
        assert max(medians.values()) < 2.5 * min(medians.values()) + 0.1


def test_a_server_that_stops_sends_the_mails_that_it_has_taken(
    tmp_path: Path, server_databases: None
) -> None:
    with (
        MailServer() as mails,
        running_server("sqlite", tmp_path, EMAIL_URL=f"smtp://127.0.0.1:{mails.port}") as server,
    ):
        doors = Doors(server, mails)
        with server.database():
            User.objects.all().delete()
            addresses = [server.make_account(f"a{number}@example.com", PASSWORD).email for number in range(4)]
        for address in addresses:
            body = json.dumps({"email": address}).encode()
            assert (
                doors.server.request(
                    "POST", f"{API}/auth/password/request", body, {"Content-Type": JSON}
                ).status
                == 401
            )
        assert server.process is not None
        os.kill(server.process.pid, signal.SIGTERM)
        server.process.wait(timeout=30)
        assert sorted(recipient for recipient, _ in mails.mails) == addresses
