"""Tickets, and the webhooks that their triggers send."""

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
COUNTED_AFTER: Final = 5.0  # roughly when Zammad's own jobs run


@dataclass(slots=True)
class Delivery:
    """A webhook delivery with the status of the response to each attempt (None: no response)."""

    delivery_id: str
    trigger: str
    statuses: list[int | None] = field(default_factory=list)


class Helpdesk(Records):
    """The records, with tickets that send webhooks."""

    def __init__(self, *, version: Version, retry_factor: float, count_after: float | None) -> None:
        super().__init__(version=version)
        self.retry_factor = retry_factor
        self.deliveries: list[Delivery] = []
        # Hosts that Zammad cannot resolve.
        self.unknown_hosts: set[str] = set()
        self.stopping = threading.Event()
        self._count_after = count_after
        self._uncounted: set[int] = set()
        self._threads: list[threading.Thread] = []

    def create_ticket(self, customer: str, *, title: str = "A question", article: str = "") -> Record:
        """Open a ticket for the customer with an address, a new one if need be, and send webhooks."""
        with self.lock:
            ticket = self.add("tickets", title=title, state="new", customer_id=self._customer(customer))
        self._fire(ticket, "create", changed=set(), article=article)
        return ticket

    def update_ticket(self, ticket_id: int, *, article: str = "", **changes: Any) -> Record:
        """Change a ticket or add an article, and send webhooks unless nothing is new."""
        with self.lock:
            ticket = self.records["tickets"][ticket_id]
            if "customer" in changes:
                changes["customer_id"] = self._customer(str(changes.pop("customer")))
            changed = {name for name, value in changes.items() if ticket.get(name) != value}
            if not changed and not article:
                return ticket
            self._uncounted.add(ticket["customer_id"])
            ticket.update(changes)
            touch(ticket)
        self._fire(ticket, "update", changed=changed, article=article)
        return ticket

    def count_tickets(self) -> None:
        """Count the tickets of customers whose tickets changed, which makes their records newer.

        Zammad does so moments after each change.
        """
        with self.lock:
            while self._uncounted:
                touch(self.records["users"][self._uncounted.pop()])

    def settle(self) -> None:
        """Wait until every delivery has ended, retries included."""
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

    def _fire(self, ticket: Record, event: str, *, changed: set[str], article: str) -> None:
        with self.lock:
            self._uncounted.add(ticket["customer_id"])
            article_id = self._add_article(ticket, article) if article else None
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
                    self._start(self._deliver, delivery, dict(webhook), ticket["id"], article_id)
        if self._count_after is not None:
            self._start(self._count_later, self._count_after)

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _count_later(self, seconds: float) -> None:
        if not self.stopping.wait(seconds):
            self.count_tickets()

    def _add_article(self, ticket: Record, body: str) -> int:
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
        """Send until the response is a 2xx, five times at most, each time rendered anew."""
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
    """Return whether a trigger fires.

    A selective one fires on an update only with a new article, or if an attribute in its condition
    has changed. The action itself is not an attribute.
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
    """Encode JSON as Rails does, which escapes only these three characters."""
    text = json.dumps(payload, ensure_ascii=False)
    for char in "<>&":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text.encode()


def _send(delivery: Delivery, webhook: Record, body: bytes, *, version: Version) -> int | None:
    """Send a delivery as Zammad does, and return the status of the response, if any.

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
