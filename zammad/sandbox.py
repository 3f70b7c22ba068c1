"""A stand-in for Zammad over real HTTP, for development and tests. It keeps everything in memory.

What it answers, it answers as Zammad does where this project asks; nothing more is there.
"""

import hashlib
import hmac
import json
import re
import secrets
import socket
import struct
import threading
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from enum import Enum, auto
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Final, Self, TypeVar
from urllib.parse import parse_qs, urlsplit

T = TypeVar("T")
Record = dict[str, Any]

ADMIN: Final = frozenset(
    {"admin.user", "admin.webhook", "admin.trigger", "ticket.agent", "user_preferences.access_token"}
)
CUSTOMER: Final = frozenset({"ticket.customer"})
RETRY_WAITS: Final = (10, 20, 30, 40)  # seconds; five sends in all
PEOPLE: Final = (
    ("kim.agent@helpdesk.example", "Kim", "Agent", ADMIN),  # the owner of the sandbox's token
    ("alice@example.com", "Alice", "Archer", CUSTOMER),
    ("bob@example.com", "Bob", "Baker", CUSTOMER),
    ("carol@example.com", "Carol", "Carter", CUSTOMER),
    ("dave@example.com", "Dave", "Dyer", CUSTOMER),
    ("erin@example.com", "Erin", "Eaton", CUSTOMER),
)


class Fault(Enum):
    """How a connection can go wrong; a wrong answer is a Reply."""

    HANG = auto()  # say nothing
    RESET = auto()  # cut the connection
    DRIP_HEADERS = auto()  # a byte now and then, without end
    DRIP_BODY = auto()
    TRUNCATE = auto()  # announce more than is sent


@dataclass(frozen=True, slots=True)
class Reply:
    """What is answered instead of what Zammad would."""

    status: int = 200
    body: bytes = b"{}"
    headers: Mapping[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})


HTML_PAGE: Final = Reply(body=b"<!doctype html><title>Zammad</title>", headers={"Content-Type": "text/html"})
BROKEN_JSON: Final = Reply(body=b'{"token": "abc')
WRONG_TYPE: Final = Reply(body=b'"a text"')
NULL_TOKEN: Final = Reply(body=b'{"token": null}')
OVERSIZED: Final = Reply(body=b'{"token": "' + b"x" * 1024 * 1024 + b'"}')
REDIRECT: Final = Reply(status=302, headers={"Location": "/api/v1/users/me"})


class Faults:
    """What goes wrong where: a route is a method and the start of a path."""

    def __init__(self) -> None:
        self._faults: dict[str, tuple[Fault | Reply, int | None]] = {}
        self._lock = threading.Lock()

    def set(self, route: str, fault: Fault | Reply, *, times: int | None = None) -> None:
        with self._lock:
            self._faults[route] = fault, times

    def clear(self) -> None:
        with self._lock:
            self._faults.clear()

    def take(self, called: str) -> Fault | Reply | None:
        with self._lock:
            for route, (fault, times) in self._faults.items():
                if called.startswith(route):
                    if times is not None:
                        if times > 1:
                            self._faults[route] = fault, times - 1
                        else:
                            del self._faults[route]
                    return fault
        return None


class Refusal(Exception):
    """An error answer of Zammad's API."""

    def __init__(self, status: int, error: str) -> None:
        super().__init__(error)
        self.status = status


@dataclass(frozen=True, slots=True)
class Call:
    """One request that arrived."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes


@dataclass(slots=True)
class Delivery:
    """One webhook delivery, and the status each of its sends was answered with (None: no answer)."""

    delivery_id: str
    trigger: str
    statuses: list[int | None] = field(default_factory=list)


class Sandbox:
    """A Zammad on a port of its own, from `with Sandbox() as sandbox:` to the end of the block."""

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        token: str = "sandbox-api-token",  # noqa: S107
        webhook_endpoint: str = "",
        webhook_secret: str = "",
        retry_factor: float = 1.0,
        old_tokens: bool = False,
        masked_signatures: bool = True,
    ) -> None:
        """`old_tokens` answers them as versions up to 6.0 did; `retry_factor` scales the waits."""
        self.faults = Faults()
        self.calls: list[Call] = []
        self.deliveries: list[Delivery] = []
        self.api_token_access = True
        self.search_conditions = True  # versions before 6.5 ignore them
        self.token = token
        self.retry_factor = retry_factor
        self.old_tokens = old_tokens
        self.masked_signatures = masked_signatures
        self.stopping = threading.Event()
        self.lock = threading.RLock()
        self.records: dict[str, dict[int, Record]] = {
            name: {} for name in ("users", "tokens", "webhooks", "triggers", "tickets")
        }
        self._senders: list[threading.Thread] = []
        self._server = _Server((host, port), self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

        self._add("users", login="-", firstname="-", lastname="", email="", permissions=frozenset())
        for email, firstname, lastname, permissions in PEOPLE:
            self.add_user(email, firstname=firstname, lastname=lastname, permissions=permissions)
        self.add_token(2, token, name="Family Plans", permissions=ADMIN)
        if webhook_endpoint:
            self.install_webhook(webhook_endpoint, secret=webhook_secret)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Cut every connection, end every thread and free the port."""
        self.stopping.set()
        self._server.shutdown()
        self._server.cut_connections()
        self._server.server_close()
        self._thread.join()
        self.settle()

    @property
    def url(self) -> str:
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}"

    # --- what a test or a launcher sets up ----------------------------------------------

    def add_user(
        self, email: str, *, firstname: str = "", lastname: str = "", permissions: frozenset[str] = CUSTOMER
    ) -> Record:
        email = email.lower()
        return self._add(
            "users",
            login=email or str(uuid.uuid4()),
            email=email,
            firstname=firstname,
            lastname=lastname,
            permissions=permissions,
        )

    def change_user(self, user_id: int, **changes: object) -> None:
        with self.lock:
            self.records["users"][user_id].update(changes, updated_at=_now())

    def add_token(
        self,
        user_id: int,
        value: str,
        *,
        name: str,
        permissions: frozenset[str] = frozenset(),
        expires_at: str | None = None,
    ) -> Record:
        return self._add(
            "tokens",
            value=value,
            user_id=user_id,
            name=name,
            permissions=permissions,
            expires_at=expires_at,
            last_used_at=None,
        )

    def install_webhook(self, endpoint: str, *, secret: str) -> None:
        """Install a webhook with its two triggers, as an admin would by hand."""
        webhook = self._add(
            "webhooks", name="Family Plans", endpoint=endpoint, signature_token=secret, active=True
        )
        for event, name in (("create", "ticket created"), ("update", "ticket updated")):
            self._add("triggers", **_trigger(f"Family Plans: {name}", event, webhook["id"]))

    def create_ticket(self, customer: str, *, title: str = "A question") -> Record:
        """Open a ticket for an address, whose customer is made if need be; webhooks follow."""
        with self.lock:
            found = [user for user in self.records["users"].values() if user["email"] == customer.lower()]
            user = found[0] if found else self.add_user(customer)
            ticket = self._add("tickets", title=title, customer_id=user["id"])
        self._fire(ticket, "create")
        return ticket

    def update_ticket(self, ticket_id: int, **changes: object) -> Record:
        with self.lock:
            ticket = self.records["tickets"][ticket_id]
            ticket.update(changes, updated_at=_now())
        self._fire(ticket, "update")
        return ticket

    def connections(self) -> list[socket.socket]:
        """List the connections that clients hold now."""
        return list(self._server.open_connections)

    def settle(self) -> None:
        """Wait until every delivery is through, its retries included."""
        while self._senders:
            self._senders.pop().join()

    def _add(self, table: str, **values: object) -> Record:
        with self.lock:
            rows = self.records[table]
            now = _now()
            row_id = next(reversed(rows), 0) + 1
            record = rows[row_id] = {"id": row_id, **values, "created_at": now, "updated_at": now}
            return record

    # --- the API ------------------------------------------------------------------------

    def answer(self, call: Call) -> tuple[int, object]:
        """Answer one call.

        :raises Refusal:
        """
        if call.path == "/":
            return 200, "Zammad sandbox"
        with self.lock:
            for method, pattern, permission, route in ROUTES:
                found = re.fullmatch(pattern, call.path)
                if found and method == call.method:
                    user, token = self._authenticate(call)
                    if permission and permission not in token["permissions"] & user["permissions"]:
                        raise Refusal(403, "Not authorized (user)!")
                    return route(self, call, token, *map(int, found.groups()))
        raise Refusal(404, "No route matches")

    def _authenticate(self, call: Call) -> tuple[Record, Record]:
        scheme = re.fullmatch(r"(?:Token token=|Bearer )(.+)", call.headers.get("authorization", ""))
        if scheme is None:
            raise Refusal(403, "Authentication required")
        if not self.api_token_access:
            if (call.method, call.path) == ("POST", "/api/v1/user_access_token"):
                raise Refusal(422, "API token access disabled!")
            raise Refusal(403, "API token access disabled!")
        for token in self.records["tokens"].values():
            if hmac.compare_digest(token["value"].encode(), scheme[1].encode()):
                # Dead from the start of its day.
                if token["expires_at"] and token["expires_at"] <= datetime.now(UTC).date().isoformat():
                    raise Refusal(401, "Not authorized (token expired)!")
                token["last_used_at"] = _now()
                return self.records["users"][token["user_id"]], token
        raise Refusal(401, "Not authorized")

    def list_tokens(self, call: Call, token: Record) -> tuple[int, object]:
        hidden = {"value", "permissions"}
        tokens = [
            {
                **{name: value for name, value in row.items() if name not in hidden},
                "action": "api",
                "preferences": {"permission": sorted(row["permissions"])},
            }
            for row in self.records["tokens"].values()
            if row["user_id"] == token["user_id"]
        ]
        held = self.records["users"][token["user_id"]]["permissions"]
        # Above what is held stand its parents, which are not.
        parents = {name.rpartition(".")[0] for name in held if "." in name} - held
        permissions = [
            {"name": name, "preferences": {} if name in held else {"disabled": True}, "active": True}
            for name in sorted(held | parents)
        ]
        return 200, {"tokens": tokens[::-1], "permissions": permissions}

    def create_token(self, call: Call, token: Record) -> tuple[int, object]:
        asked = _body(call)
        name = asked.get("label" if self.old_tokens else "name")
        if not name:
            raise Refusal(422, "The required parameter 'name' is missing.")
        if not isinstance(asked.get("permission"), list):
            raise Refusal(422, "The required parameter 'permission' is missing.")
        try:
            expires_at = (
                str(date.fromisoformat(asked["expires_at"][:10])) if asked.get("expires_at") else None
            )
        except ValueError:
            expires_at = None  # as old versions did
        value = secrets.token_urlsafe(48)
        permissions = frozenset(asked["permission"])
        self.add_token(token["user_id"], value, name=name, permissions=permissions, expires_at=expires_at)
        return 200, {"name" if self.old_tokens else "token": value}

    def delete_token(self, call: Call, token: Record, token_id: int) -> tuple[int, object]:
        found = self.records["tokens"].get(token_id)
        if found is None or found["user_id"] != token["user_id"]:
            raise Refusal(422, "The API token could not be found.")
        del self.records["tokens"][token_id]
        return 200, {}

    def me(self, call: Call, token: Record) -> tuple[int, object]:
        return 200, self.user_json(token["user_id"], names="expand" in call.query)

    def list_users(self, call: Call, token: Record) -> tuple[int, object]:
        allowed = token["permissions"] & self.records["users"][token["user_id"]]["permissions"]
        ids = (
            sorted(self.records["users"]) if allowed & {"ticket.agent", "admin.user"} else [token["user_id"]]
        )
        shown = _page(ids, call, size=100)
        return 200, [self.user_json(user_id, names="expand" in call.query) for user_id in shown]

    def search_users(self, call: Call, token: Record) -> tuple[int, object]:
        """Search as versions from 6.5 on do without a query: in the database, by a condition."""
        allowed = token["permissions"] & self.records["users"][token["user_id"]]["permissions"]
        if not allowed & {"ticket.agent", "admin.user"}:
            raise Refusal(403, "Token authorization failed.")
        users = [self.records["users"][user_id] for user_id in self.records["users"]]
        if self.search_conditions:
            since = _changed_since(call.query)
            users = [user for user in users if user["updated_at"] >= since]
        users.sort(key=lambda user: user["id"])
        users.sort(
            key=lambda user: user[call.query.get("sort_by", "updated_at")],
            reverse=call.query.get("order_by", "desc") == "desc",
        )
        shown = _page(users, call, size=50, most=200)
        return 200, [self.user_json(user["id"], names="expand" in call.query) for user in shown]

    def create_ticket_by_call(self, call: Call, token: Record) -> tuple[int, object]:
        asked = _body(call)
        customer = str(asked.get("customer") or asked.get("customer_id") or "")
        if customer.isdecimal():
            known = self.records["users"].get(int(customer))
            customer = known["email"] if known else ""
        customer = customer.removeprefix("guess:")
        if "@" not in customer or not asked.get("title"):
            raise Refusal(422, "A ticket needs a title and a customer.")
        return 201, self.create_ticket(customer, title=str(asked["title"]))

    def update_ticket_by_call(self, call: Call, token: Record, ticket_id: int) -> tuple[int, object]:
        if ticket_id not in self.records["tickets"]:
            raise Refusal(404, "Couldn't find Ticket")
        return 200, self.update_ticket(ticket_id, **_body(call))

    def list_rows(self, call: Call, token: Record) -> tuple[int, object]:
        return 200, [self.shown(row) for row in _page([*self.records[_table(call)].values()], call, size=500)]

    def show_row(self, call: Call, token: Record, row_id: int) -> tuple[int, object]:
        return 200, self.shown(self.row(_table(call), row_id))

    def create_row(self, call: Call, token: Record) -> tuple[int, object]:
        asked = _body(call)
        if not asked.get("name"):
            raise Refusal(422, "Missing required value for field 'name'!")
        if _table(call) == "triggers" and not (asked.get("condition") and asked.get("perform")):
            raise Refusal(422, "Missing required value for field 'condition' or 'perform'!")
        self.check_name(_table(call), asked["name"], but=None)
        return 201, self.shown(self._add(_table(call), **{"active": True, **asked}))

    def update_row(self, call: Call, token: Record, row_id: int) -> tuple[int, object]:
        row, asked = self.row(_table(call), row_id), _body(call)
        self.check_name(_table(call), asked.get("name") or row["name"], but=row_id)
        row.update(asked, id=row_id, updated_at=_now())
        return 200, self.shown(row)

    def delete_row(self, call: Call, token: Record, row_id: int) -> tuple[int, object]:
        self.row(_table(call), row_id)
        callers = [_webhook_id(trigger) for trigger in self.records["triggers"].values()]
        if _table(call) == "webhooks" and row_id in callers:
            raise Refusal(422, "Cannot delete! This object is referenced by other object(s).")
        del self.records[_table(call)][row_id]
        return 200, {}

    def row(self, table: str, row_id: int) -> Record:
        try:
            return self.records[table][row_id]
        except KeyError:
            raise Refusal(404, f"Couldn't find {table.title()[:-1]} with 'id'={row_id}") from None

    def check_name(self, table: str, name: str, *, but: int | None) -> None:
        """Names of triggers are unique, those of webhooks are not."""
        others = [row for row in self.records[table].values() if row["id"] != but]
        if table == "triggers" and any(row["name"].lower() == name.lower() for row in others):
            raise Refusal(422, "This object already exists.")

    def shown(self, row: Record) -> Record:
        if self.masked_signatures and row.get("signature_token"):
            return {**row, "signature_token": "**********"}
        return dict(row)

    def user_json(self, user_id: int, *, names: bool = True) -> Record:
        user = {
            "active": user_id != 1,
            "vip": False,
            "phone": "",
            "mobile": "",
            **self.records["users"][user_id],
        }
        permissions = user.pop("permissions")
        organization = user.pop("organization", "")
        user |= {
            "organization_id": None,
            "role_ids": [1, 2] if permissions == ADMIN else [3],
            "verified": False,
        }
        if names:
            user |= {
                "organization": organization,
                "roles": ["Admin"] if permissions == ADMIN else ["Customer"],
            }
        return user

    # --- webhooks -----------------------------------------------------------------------

    def _fire(self, ticket: Record, event: str) -> None:
        with self.lock:
            for trigger in self.records["triggers"].values():
                webhook = self.records["webhooks"].get(_webhook_id(trigger))
                wanted = trigger["active"] and trigger["condition"]["ticket.action"]["value"] == event
                if wanted and webhook and webhook["active"]:
                    delivery = Delivery(delivery_id=str(uuid.uuid4()), trigger=trigger["name"])
                    self.deliveries.append(delivery)
                    sender = threading.Thread(
                        target=self._deliver, args=(delivery, dict(webhook), ticket["id"]), daemon=True
                    )
                    self._senders.append(sender)
                    sender.start()

    def _deliver(self, delivery: Delivery, webhook: Record, ticket_id: int) -> None:
        """Send until a 2xx is answered, five times at most, each time rendered anew."""
        for wait in (0, *RETRY_WAITS):
            if self.stopping.wait(wait * self.retry_factor):
                return
            with self.lock:
                body = json.dumps(self.payload(ticket_id), ensure_ascii=False).encode()
            status = _send(delivery, webhook, body)
            delivery.statuses.append(status)
            if status is not None and 200 <= status < 300:
                return

    def payload(self, ticket_id: int) -> Record:
        """Render Zammad's default payload."""
        ticket = self.records["tickets"][ticket_id]
        customer = self.user_json(ticket["customer_id"])
        return {
            "ticket": {
                **ticket,
                "number": str(31000 + ticket_id),
                "state": "new",
                "owner": self.user_json(1),
                "customer": customer,
                "created_by": customer,
                "updated_by": customer,
                "organization": {},
                "priority": {"id": 2, "name": "2 normal", "active": True},
                "group": {"id": 1, "name": "Users", "active": True},
            },
            "article": {},
        }


Route = Callable[..., tuple[int, object]]
API: Final = "/api/v1/"
ROUTES: Final[list[tuple[str, str, str, Route]]] = [
    ("GET", API + "user_access_token", "user_preferences.access_token", Sandbox.list_tokens),
    ("POST", API + "user_access_token", "user_preferences.access_token", Sandbox.create_token),
    ("DELETE", API + r"user_access_token/(\d+)", "user_preferences.access_token", Sandbox.delete_token),
    ("GET", API + "users/me", "", Sandbox.me),
    ("GET", API + "users", "", Sandbox.list_users),
    ("GET", API + "users/search", "", Sandbox.search_users),
    ("POST", API + "tickets", "ticket.agent", Sandbox.create_ticket_by_call),
    ("PUT", API + r"tickets/(\d+)", "ticket.agent", Sandbox.update_ticket_by_call),
    *(
        (method, API + table + suffix, f"admin.{table[:-1]}", route)
        for table in ("webhooks", "triggers")
        for method, suffix, route in (
            ("GET", "", Sandbox.list_rows),
            ("POST", "", Sandbox.create_row),
            ("GET", r"/(\d+)", Sandbox.show_row),
            ("PUT", r"/(\d+)", Sandbox.update_row),
            ("DELETE", r"/(\d+)", Sandbox.delete_row),
        )
    ),
]


class _Server(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = False  # so that server_close() waits for them

    def __init__(self, address: tuple[str, int], sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.open_connections: set[socket.socket] = set()
        super().__init__(address, _Handler)

    def cut_connections(self) -> None:
        for connection in list(self.open_connections):
            with suppress(OSError):  # the other side was faster
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: clients in tests leave in the middle of answers."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.server.open_connections.add(self.connection)

    def finish(self) -> None:
        self.server.open_connections.discard(self.connection)
        super().finish()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing: `sandbox.calls` tells what arrived."""

    def respond(self) -> None:
        sandbox = self.server.sandbox
        parts = urlsplit(self.path)
        call = Call(
            method=self.command,
            path=parts.path,
            query={name: values[-1] for name, values in parse_qs(parts.query).items()},
            headers={name.lower(): value for name, value in self.headers.items()},
            body=self.rfile.read(int(self.headers.get("Content-Length") or 0)),
        )
        sandbox.calls.append(call)
        match sandbox.faults.take(f"{call.method} {call.path}"):
            case Reply() as reply:
                self.write(reply)
            case Fault() as fault:
                self.fail(fault)
            case _:
                self.write(self.reply(call))

    do_GET = do_POST = do_PUT = do_DELETE = respond  # noqa: N815

    def reply(self, call: Call) -> Reply:
        try:
            status, answer = self.server.sandbox.answer(call)
        except Refusal as refusal:
            status, answer = refusal.status, {"error": str(refusal), "error_human": str(refusal)}
        if isinstance(answer, str):
            return Reply(status, f"{answer}\n".encode(), {"Content-Type": "text/plain"})
        return Reply(status, json.dumps(answer, default=sorted).encode())

    def write(self, reply: Reply) -> None:
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        self.wfile.write(reply.body)

    def fail(self, fault: Fault) -> None:
        self.close_connection = True
        match fault:
            case Fault.HANG:
                self.server.sandbox.stopping.wait()
            case Fault.RESET:
                # Closing without lingering sends a reset.
                linger = struct.pack("ii", 1, 0)
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            case Fault.TRUNCATE:
                self.wfile.write(b'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"token": "abc')
            case Fault.DRIP_HEADERS:
                self.drip(b"HTTP/1.1 200 OK\r\nX-Drip: ")
            case _:
                self.drip(b'HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n{"token": "')

    def drip(self, start: bytes) -> None:
        self.wfile.write(start)
        while not self.server.sandbox.stopping.wait(0.02):
            self.wfile.write(b"x")


def _send(delivery: Delivery, webhook: Record, body: bytes) -> int | None:
    """Post a delivery as lib/user_agent.rb does, and return the status answered, if any."""
    endpoint = urlsplit(webhook["endpoint"])
    connect = HTTPSConnection if endpoint.scheme == "https" else HTTPConnection
    connection = connect(endpoint.hostname or "", endpoint.port, timeout=30)
    headers = {
        "User-Agent": b"Zammad User Agent",
        "Accept": b"*/*",
        "X-Zammad-Trigger": delivery.trigger.encode(),  # raw UTF-8
        "X-Zammad-Delivery": delivery.delivery_id.encode(),
        "Content-Type": b"application/json; charset=utf-8",
        "Connection": b"close",
        "Content-Length": str(len(body)).encode(),
    }
    if secret := webhook.get("signature_token"):
        signature = hmac.new(secret.encode(), body, hashlib.sha1).hexdigest()
        headers["X-Hub-Signature"] = f"sha1={signature}".encode()
    try:
        connection.putrequest("POST", endpoint.path or "/", skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders(body)
        return connection.getresponse().status
    except (OSError, HTTPException):
        return None
    finally:
        connection.close()


def _trigger(name: str, event: str, webhook_id: int) -> Record:
    return {
        "name": name,
        "active": True,
        "activator": "action",
        "execution_condition_mode": "selective",
        "condition": {"ticket.action": {"operator": "is", "value": event}},
        "perform": {"notification.webhook": {"webhook_id": webhook_id}},
    }


def _webhook_id(trigger: Record) -> int:
    webhook_id: int = trigger["perform"]["notification.webhook"]["webhook_id"]
    return webhook_id


def _page(rows: list[T], call: Call, *, size: int, most: int = 1000) -> list[T]:
    """Cut the page out that was asked for; `size` is Zammad's own, and `most` its limit."""
    asked = int(call.query.get("per_page") or call.query.get("limit") or size)
    page, size = int(call.query.get("page", 1)), min(asked, most)
    return rows[(page - 1) * size : page * size]


def _changed_since(query: Mapping[str, str]) -> str:
    """Read the only condition that is understood, and return the moment it names."""
    condition = {name: value for name, value in query.items() if name.startswith("condition")}
    if not condition:
        return ""
    known = "condition[user.updated_at]"
    unit, value = condition.get(f"{known}[range]"), condition.get(f"{known}[value]", "")
    if (
        condition.get(f"{known}[operator]") != "within last (relative)"
        or unit not in {"minute", "hour", "day"}
        or not value.isdecimal()
    ):
        raise Refusal(422, f"Error ID {secrets.token_urlsafe(6)}: Please contact your administrator.")
    return _written(datetime.now(UTC) - timedelta(**{f"{unit}s": int(value)}))


def _table(call: Call) -> str:
    return call.path.removeprefix(API).partition("/")[0]


def _body(call: Call) -> Record:
    try:
        asked = json.loads(call.body)
    except ValueError:
        asked = None
    if not isinstance(asked, dict):
        raise Refusal(400, "The body is not a JSON object.")
    return asked


def _now() -> str:
    return _written(datetime.now(UTC))


def _written(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
