"""The data of the sandbox: users, their tokens, webhooks and triggers."""

import threading
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from typing import Any, Final

Record = dict[str, Any]

ADMIN: Final = frozenset(
    {
        "admin.object",
        "admin.trigger",
        "admin.user",
        "admin.webhook",
        "ticket.agent",
        "user_preferences.access_token",
    }
)
CUSTOMER: Final = frozenset({"ticket.customer"})
PEOPLE: Final = (
    ("kim.agent@helpdesk.example", "Kim", "Agent", ADMIN),  # the owner of the sandbox's token
    ("alice@example.com", "Alice", "Archer", CUSTOMER),
    ("bob@example.com", "Bob", "Baker", CUSTOMER),
    ("carol@example.com", "Carol", "Carter", CUSTOMER),
    ("dave@example.com", "Dave", "Dyer", CUSTOMER),
    ("erin@example.com", "Erin", "Eaton", CUSTOMER),
)
# The fields of a customer that an agent may change, besides attributes added by an admin.
USER_FIELDS: Final = frozenset(
    {"login", "firstname", "lastname", "email", "phone", "mobile", "fax", "web", "department"}
    | {"street", "zip", "city", "country", "address", "vip", "verified", "active", "note"}
)
MASK: Final = "**********"
TICK: Final = timedelta(milliseconds=1)  # the precision of Zammad's times

WEBHOOK: Final[Mapping[str, object]] = {
    "name": "",
    "endpoint": "",
    "signature_token": None,
    "ssl_verify": True,
    "note": None,
    "active": True,
    "customized_payload": False,
    "custom_payload": None,
    "pre_defined_webhook_type": None,
    "basic_auth_username": None,
    "basic_auth_password": None,
    "preferences": {},
}
TRIGGER: Final[Mapping[str, object]] = {
    "name": "",
    "condition": {},
    "perform": {},
    "disable_notification": True,
    "localization": None,
    "timezone": None,
    "note": None,
    "activator": "action",
    "execution_condition_mode": "selective",
    "active": True,
}


class Version(IntEnum):
    """The oldest supported Zammad, the one that was tried, and the newest."""

    V6_0 = 60
    V6_5 = 65
    V7 = 70


class Records:
    """The tables, each record by its id."""

    def __init__(self, *, version: Version) -> None:
        self.version = version
        self.lock = threading.RLock()
        self.records: dict[str, dict[int, Record]] = {
            name: {}
            for name in ("users", "tokens", "webhooks", "triggers", "tickets", "articles", "attributes")
        }
        self._tokens_changed_at = datetime.min.replace(tzinfo=UTC)
        self.add("users", login="-", firstname="-", lastname="", email="", permissions=frozenset())
        for email, firstname, lastname, permissions in PEOPLE:
            self.add_user(email, firstname=firstname, lastname=lastname, permissions=permissions)

    def add(self, table: str, **values: object) -> Record:
        with self.lock:
            rows = self.records[table]
            now = format_time(datetime.now(UTC))
            row_id = next(reversed(rows), 0) + 1
            record = rows[row_id] = {"id": row_id, **values, "created_at": now, "updated_at": now}
            return record

    # --- People ----------------------------------------------------------------------------------

    def add_user(
        self, email: str, *, firstname: str = "", lastname: str = "", permissions: frozenset[str] = CUSTOMER
    ) -> Record:
        email = email.lower()
        return self.add(
            "users",
            login=email or str(uuid.uuid4()),
            email=email,
            firstname=firstname,
            lastname=lastname,
            permissions=permissions,
        )

    def change_user(self, user_id: int, **changes: object) -> None:
        with self.lock:
            user = self.records["users"][user_id]
            user.update(changes)
            touch(user)

    def user_fields(self) -> frozenset[str]:
        """List the fields of a user: an attribute has no column before its migration."""
        added = (row["name"] for row in self.records["attributes"].values() if not row["to_create"])
        return USER_FIELDS.union(added)

    def user_json(self, user_id: int, *, names: bool = True) -> Record:
        user = {
            "active": user_id != 1,
            "vip": False,
            "phone": "",
            "mobile": "",
            "updated_by_id": 1,
            **dict.fromkeys(self.user_fields() - USER_FIELDS),
            **self.records["users"][user_id],
        }
        roles = [
            (role_id, name)
            for role_id, name, permission in (
                (1, "Admin", "admin."),
                (2, "Agent", "ticket.agent"),
                (3, "Customer", "ticket.customer"),
            )
            if any(held.startswith(permission) for held in user["permissions"])
        ]
        del user["permissions"]
        organization = user.pop("organization", "")
        user |= {"organization_id": None, "role_ids": [role_id for role_id, _ in roles], "verified": False}
        if names:
            user["roles"] = [name for _, name in roles]
            if organization:
                user["organization"] = organization
        return user

    # --- Tokens ----------------------------------------------------------------------------------

    def add_token(
        self,
        user_id: int,
        value: str,
        *,
        name: str,
        permissions: frozenset[str] = frozenset(),
        expires_at: str | None = None,
    ) -> Record:
        """Create a token that expires at the start of the day `expires_at`."""
        with self.lock:
            token = self.add(
                "tokens",
                value=value,
                user_id=user_id,
                name=name,
                permissions=permissions,
                expires_at=expires_at,
                last_used_at=None,
            )
            self._touch_last(token)
            return token

    def use_token(self, token: Record) -> None:
        token["last_used_at"] = self._touch_last(token)

    def _touch_last(self, token: Record) -> str:
        """Make the token the most recently changed one."""
        self._tokens_changed_at = max(datetime.now(UTC), self._tokens_changed_at + TICK)
        token["updated_at"] = moment = format_time(self._tokens_changed_at)
        return moment

    # --- Webhooks and triggers --------------------------------------------------------------------

    def defaults(self, table: str) -> Mapping[str, object]:
        """Return the fields of a webhook or trigger with their defaults."""
        if table == "triggers":
            return TRIGGER
        return {**WEBHOOK, "http_method": "post"} if self.version >= Version.V7 else WEBHOOK

    def add_row(self, table: str, values: Mapping[str, object]) -> Record:
        """Add a webhook or trigger, and silently drop fields that this version lacks."""
        defaults = self.defaults(table)
        known = {name: value for name, value in values.items() if name in defaults}
        return self.add(table, **{**defaults, **known, "created_by_id": 2, "updated_by_id": 2})

    def install_webhook(self, endpoint: str, *, secret: str) -> None:
        """Install a webhook with its two triggers, as an admin would by hand."""
        values = {"name": "Family Plans", "endpoint": endpoint, "signature_token": secret}
        webhook = self.add_row("webhooks", values)
        for event, name in (("create", "ticket created"), ("update", "ticket updated")):
            trigger = {
                "name": f"Family Plans: {name}",
                "execution_condition_mode": "always",
                "condition": {"ticket.action": {"operator": "is", "value": event}},
                "perform": {"notification.webhook": {"webhook_id": webhook["id"]}},
            }
            self.add_row("triggers", trigger)

    def senders_of(self, webhook_id: int) -> list[Record]:
        """List the triggers that send a webhook."""
        return [row for row in self.records["triggers"].values() if webhook_id_of(row) == webhook_id]

    def row_json(self, row: Record) -> Record:
        masks = self.version >= Version.V7 and row.get("signature_token")
        return {**row, "signature_token": MASK} if masks else dict(row)


def webhook_id_of(trigger: Record) -> int | None:
    sent = trigger["perform"].get("notification.webhook", {}).get("webhook_id")
    return None if sent is None else int(sent)  # Zammad's admin pages send it as text


def touch(record: Record) -> None:
    """Advance updated_at, so that a later version is always newer."""
    before = datetime.fromisoformat(record["updated_at"])
    record["updated_at"] = format_time(max(datetime.now(UTC), before + TICK))


def format_time(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
