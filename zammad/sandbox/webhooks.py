"""Tickets, the triggers that watch them, and the webhooks that they send."""

import base64
import hashlib
import hmac
import json
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any, Final
from urllib.parse import urlsplit

from zammad.sandbox.records import Record, Records, Version, touch, webhook_id_of

# All in seconds.
RETRY_WAITS: Final = (10, 20, 30, 40)  # five sends in all
COUNTED_AFTER: Final = 5.0  # about as long as Zammad's own jobs take


@dataclass(slots=True)
class Delivery:
    """One webhook delivery, and the status each of its sends was answered with (None: no answer)."""

    delivery_id: str
    trigger: str
    statuses: list[int | None] = field(default_factory=list)


class Helpdesk(Records):
    """Records in which things happen."""

    def __init__(self, *, version: Version, retry_factor: float, count_after: float | None) -> None:
        super().__init__(version=version)
        self.retry_factor = retry_factor
        self.deliveries: list[Delivery] = []
        # Hosts that Zammad's resolver does not know.
        self.unknown_hosts: set[str] = set()
        self.stopping = threading.Event()
        self._count_after = count_after
        self._uncounted: set[int] = set()
        self._threads: list[threading.Thread] = []

    def create_ticket(self, customer: str, *, title: str = "A question", article: str = "") -> Record:
        """Open a ticket for an address, whose customer is made if need be; webhooks follow."""
        with self.lock:
            ticket = self.add("tickets", title=title, state="new", customer_id=self._customer(customer))
        self._happened(ticket, "create", changed=set(), article=article)
        return ticket

    def update_ticket(self, ticket_id: int, *, article: str = "", **changes: Any) -> Record:
        """Change a ticket, or write an article into it; where neither is new, nothing happens."""
        with self.lock:
            ticket = self.records["tickets"][ticket_id]
            if "customer" in changes:
                changes["customer_id"] = self._customer(str(changes.pop("customer")))
            changed = {name for name, value in changes.items() if ticket.get(name) != value}
            if changed or article:
                self._uncounted.add(ticket["customer_id"])
                ticket.update(changes)
                touch(ticket)
        if changed or article:
            self._happened(ticket, "update", changed=changed, article=article)
        return ticket

    def count_tickets(self) -> None:
        """Count the tickets of the customers who had any changed since, as Zammad does moments later.

        That alone makes their records newer.
        """
        with self.lock:
            while self._uncounted:
                touch(self.records["users"][self._uncounted.pop()])

    def settle(self) -> None:
        """Wait until every delivery is through, its retries included."""
        while self._threads:
            self._threads.pop().join()

    def payload(self, ticket_id: int, article_id: int | None = None) -> Record:
        """Render Zammad's default payload."""
        ticket = self.records["tickets"][ticket_id]
        customer = self.user_json(ticket["customer_id"])
        article = {} if article_id is None else {**self.records["articles"][article_id]}
        if article:
            article |= {"created_by": customer, "updated_by": customer, "attachments": []}
        return {
            "ticket": {
                **ticket,
                "number": str(31000 + ticket_id),
                "owner": self.user_json(1),
                "customer": customer,
                "created_by": customer,
                "updated_by": customer,
                "organization": {},
                "priority": {"id": 2, "name": "2 normal", "active": True},
                "group": {"id": 1, "name": "Users", "active": True},
            },
            "article": article,
        }

    def _customer(self, address: str) -> int:
        found = [row for row in self.records["users"].values() if row["email"] == address.lower()]
        return int((found[0] if found else self.add_user(address))["id"])

    def _happened(self, ticket: Record, event: str, *, changed: set[str], article: str) -> None:
        with self.lock:
            self._uncounted.add(ticket["customer_id"])
            written = self._write_article(ticket, article) if article else None
            # In alphabetical order of their names, in lower case.
            for trigger in sorted(self.records["triggers"].values(), key=lambda row: row["name"].lower()):
                webhook = self.records["webhooks"].get(webhook_id_of(trigger) or 0)
                if (
                    webhook
                    and webhook["active"]
                    and fires(trigger, ticket, event=event, changed=changed, has_article=bool(article))
                ):
                    delivery = Delivery(delivery_id=str(uuid.uuid4()), trigger=trigger["name"])
                    self.deliveries.append(delivery)
                    self._start(self._deliver, delivery, dict(webhook), ticket["id"], written)
        if self._count_after is not None:
            self._start(self._count_later, self._count_after)

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _count_later(self, seconds: float) -> None:
        if not self.stopping.wait(seconds):
            self.count_tickets()

    def _write_article(self, ticket: Record, body: str) -> int:
        article = self.add(
            "articles",
            ticket_id=ticket["id"],
            body=body,
            subject=ticket["title"],
            content_type="text/plain",
            internal=False,
            sender="Customer",
            type="web",
            created_by_id=ticket["customer_id"],
        )
        return int(article["id"])

    def _deliver(self, delivery: Delivery, webhook: Record, ticket_id: int, article_id: int | None) -> None:
        """Send until a 2xx is answered, five times at most, each time rendered anew."""
        unknown = urlsplit(webhook["endpoint"]).hostname in self.unknown_hosts
        for wait in (0, *RETRY_WAITS):
            if self.stopping.wait(wait * self.retry_factor):
                return
            with self.lock:
                body = _body(webhook, lambda: self.payload(ticket_id, article_id))
            status = None if unknown else _send(delivery, webhook, body, version=self.version)
            delivery.statuses.append(status)
            if unknown and self.version >= Version.V7:
                return
            if status is not None and 200 <= status < 300:
                return


def fires(trigger: Record, ticket: Record, *, event: str, changed: set[str], has_article: bool) -> bool:
    """Tell whether a trigger fires.

    A selective one fires on an update only with a new article, or where an attribute that its
    condition names was changed. The action itself is no attribute.
    """
    if not trigger["active"] or trigger["activator"] != "action":
        return False
    condition = trigger["condition"]
    named = {name.removeprefix("ticket.") for name in condition} - {"action"}
    selective = trigger["execution_condition_mode"] == "selective"
    if selective and event == "update" and not has_article and not named & changed:
        return False
    state = {**ticket, "action": event}
    return all(_holds(state.get(name.removeprefix("ticket.")), test) for name, test in condition.items())


def _holds(found: object, test: Record) -> bool:
    wanted = test.get("value")
    is_among = found in wanted if isinstance(wanted, list) else found == wanted
    return is_among is (test.get("operator") == "is")


def _body(webhook: Record, render: Callable[[], Record]) -> bytes:
    if webhook["customized_payload"]:
        return str(webhook["custom_payload"] or "{}").encode()
    payload = render()
    if webhook["pre_defined_webhook_type"]:
        payload = {"text": payload["ticket"]["title"]}  # each type has a shape of its own
    return _rails_json(payload)


def _rails_json(payload: Record) -> bytes:
    """Write JSON as Rails does: these three are escaped, other characters stay as they are."""
    text = json.dumps(payload, ensure_ascii=False)
    for char in "<>&":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text.encode()


def _send(delivery: Delivery, webhook: Record, body: bytes, *, version: Version) -> int | None:
    """Send a delivery as Zammad does, and return the status answered, if any.

    https://github.com/zammad/zammad/blob/stable/lib/user_agent.rb
    """
    endpoint = urlsplit(webhook["endpoint"])
    connect = HTTPSConnection if endpoint.scheme == "https" else HTTPConnection
    connection = connect(endpoint.hostname or "", endpoint.port, timeout=30)
    charset = b"; charset=utf-8" if version > Version.V6_0 else b""
    headers = {
        "User-Agent": b"Zammad User Agent",
        "Accept": b"*/*",
        "X-Zammad-Trigger": delivery.trigger.encode(),  # raw UTF-8
        "X-Zammad-Delivery": delivery.delivery_id.encode(),
        "Content-Type": b"application/json" + charset,
        "Connection": b"close",
        "Content-Length": str(len(body)).encode(),
    }
    if secret := webhook["signature_token"]:
        signature = hmac.new(secret.encode(), body, hashlib.sha1).hexdigest()
        headers["X-Hub-Signature"] = f"sha1={signature}".encode()
    if user := webhook["basic_auth_username"]:
        pair = f"{user}:{webhook['basic_auth_password'] or ''}".encode()
        headers["Authorization"] = b"Basic " + base64.b64encode(pair)
    method = str(webhook.get("http_method", "post")).upper()
    try:
        connection.putrequest(method, endpoint.path or "/", skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders(body)
        return connection.getresponse().status
    except (OSError, HTTPException):
        return None
    finally:
        connection.close()
