"""The endpoints of Zammad's REST API that this project uses, and the permissions they need."""

import hmac
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final
from urllib.parse import urlsplit

from zammad.sandbox.calls import Call, Refusal
from zammad.sandbox.records import Record, Version, format_time, touch
from zammad.sandbox.webhooks import Helpdesk

Answer = tuple[int, object]
Caller = tuple[Record, frozenset[str]]  # the user and their permissions in this request


def answer(desk: Helpdesk, call: Call, *, token_access: bool) -> Answer:
    """:raises Refusal:"""
    for method, pattern, permission, route in ROUTES:
        match = re.fullmatch(pattern, call.path)
        if match and method == call.method:
            user, permissions = _authenticate(desk, call, token_access=token_access)
            if permission and permission not in permissions:
                raise Refusal(403, "Token authorization failed.")
            return route(Request(desk, call, user, permissions), *map(int, match.groups()))
    raise Refusal(404, "No route matches")


def _authenticate(desk: Helpdesk, call: Call, *, token_access: bool) -> Caller:
    scheme = re.fullmatch(r"(?:Token token=|Bearer )(.+)", call.headers.get("authorization", ""))
    if scheme is None:
        raise Refusal(403, "Authentication required")
    if not token_access:
        creates = (call.method, call.path) == ("POST", TOKENS)
        raise Refusal(422 if creates else 403, "API token access disabled!")
    for token in desk.records["tokens"].values():
        if hmac.compare_digest(token["value"].encode(), scheme[1].encode()):
            # It expires at the start of the day.
            if token["expires_at"] and token["expires_at"] <= datetime.now(UTC).date().isoformat():
                raise Refusal(401, "Not authorized (token expired)!")
            desk.use_token(token)
            owner = desk.records["users"][token["user_id"]]
            if behalf := call.headers.get("from") or call.headers.get("x-on-behalf-of"):
                return _on_behalf(desk, owner, behalf)
            return owner, token["permissions"] & owner["permissions"]
    raise Refusal(401, "Can't find User for Token")


def _on_behalf(desk: Helpdesk, owner: Record, behalf: str) -> Caller:
    """Let the owner act as another user, with that user's permissions, whatever the token may do."""
    if "admin.user" not in owner["permissions"]:
        raise Refusal(403, "Current user has no permission to use 'From'/'X-On-Behalf-Of'!")
    for user in desk.records["users"].values():
        if behalf.lower() in {str(user["id"]), user["email"], user["login"]}:
            return user, user["permissions"]
    raise Refusal(403, f"No such user '{behalf}'")


@dataclass(frozen=True, slots=True)
class Request:
    """An authenticated call, with a method for each endpoint."""

    desk: Helpdesk
    call: Call
    user: Record
    permissions: frozenset[str]

    @property
    def sees_users(self) -> bool:
        return bool(self.permissions & {"ticket.agent", "admin.user"})

    # --- Tokens -----------------------------------------------------------------------------------

    def list_tokens(self) -> Answer:
        own = [row for row in self.desk.records["tokens"].values() if row["user_id"] == self.user["id"]]
        own.sort(key=lambda row: str(row["name"]))
        own.sort(key=lambda row: str(row["updated_at"]), reverse=True)
        tokens = [
            {
                **{name: value for name, value in row.items() if name not in {"value", "permissions"}},
                "action": "api",
                "preferences": {"permission": sorted(row["permissions"])},
                "expires_at": row["expires_at"] and f"{row['expires_at']}T00:00:00.000Z",
            }
            for row in own
        ]
        held = self.user["permissions"]
        # The parents of permissions are listed, too, but disabled.
        parents = {name.rpartition(".")[0] for name in held if "." in name} - held
        permissions = [
            {"name": name, "preferences": {} if name in held else {"disabled": True}, "active": True}
            for name in sorted(held | parents)
        ]
        return 200, {"tokens": tokens, "permissions": permissions}

    def create_token(self) -> Answer:
        body = self.call.json()
        is_old = self.desk.version <= Version.V6_0
        name = body.get("label" if is_old else "name")
        if not name:
            raise Refusal(422, "Name can't be blank")
        if not isinstance(body.get("permission"), list):
            raise Refusal.masked()
        expires_at = None
        try:
            if body.get("expires_at"):
                expires_at = str(date.fromisoformat(body["expires_at"][:10]))
        except (TypeError, ValueError):
            if not is_old:
                raise Refusal.masked() from None
        value = secrets.token_urlsafe(48)
        permissions = frozenset(body["permission"])
        self.desk.add_token(self.user["id"], value, name=name, permissions=permissions, expires_at=expires_at)
        return 200, {"name" if is_old else "token": value}

    def delete_token(self, token_id: int) -> Answer:
        token = self.desk.records["tokens"].get(token_id)
        if token is None or token["user_id"] != self.user["id"]:
            raise Refusal(422, "The API token could not be found.")
        del self.desk.records["tokens"][token_id]
        return 200, {}

    # --- Users ------------------------------------------------------------------------------------

    def show_me(self) -> Answer:
        return 200, self._user(self.user["id"])

    def show_user(self, user_id: int) -> Answer:
        self._row("users", user_id)
        if not self.sees_users and user_id != self.user["id"]:
            raise Refusal(403, "Not authorized")
        return 200, self._user(user_id)

    def list_users(self) -> Answer:
        ids = sorted(self.desk.records["users"]) if self.sees_users else [self.user["id"]]
        return 200, [self._user(user_id) for user_id in self.call.page(ids, size=100)]

    def search_users(self) -> Answer:
        """Search as Zammad does without a query: in its database, by a condition."""
        if not self.sees_users:
            raise Refusal(403, "Token authorization failed.")
        since = _changed_since(self.call.query) if self.desk.version >= Version.V6_5 else ""
        users = [user for user in self.desk.records["users"].values() if user["updated_at"] >= since]
        sort_by = self.call.query.get("sort_by", "updated_at")
        if sort_by not in {"id", "email", "created_at", "updated_at"}:
            raise Refusal.masked()
        users.sort(key=lambda user: user[sort_by], reverse=self.call.query.get("order_by") != "asc")
        return 200, [self._user(user["id"]) for user in self.call.page(users, size=50, most=200)]

    def update_user(self, user_id: int) -> Answer:
        """Change a user; an agent may change customers, but neither staff nor themselves."""
        user, body = self._row("users", user_id), self.call.json()
        is_customer = not any(name.startswith(("ticket.agent", "admin")) for name in user["permissions"])
        may = "ticket.agent" in self.permissions and is_customer and user_id != self.user["id"]
        if not may and "admin.user" not in self.permissions:
            raise Refusal(403, "Not authorized")
        known = self.desk.user_fields()
        user.update({name: value for name, value in body.items() if name in known})
        user["updated_by_id"] = self.user["id"]
        touch(user)
        return 200, self._user(user_id)

    def list_attributes(self) -> Answer:
        return 200, list(self.desk.records["attributes"].values())

    def create_attribute(self) -> Answer:
        """Create an attribute of users, which has no column before the migration."""
        body = self.call.json()
        if body.get("object") != "User" or not re.fullmatch("[a-z][a-z0-9_]*", str(body.get("name", ""))):
            raise Refusal.masked()
        if any(row["name"] == body["name"] for row in self.desk.records["attributes"].values()):
            raise Refusal(422, "already exists")
        own = {"to_create": True, "to_migrate": True, "to_delete": False, "editable": True}
        return 201, self.desk.add("attributes", **{**body, **own})

    def execute_migrations(self) -> Answer:
        for row in self.desk.records["attributes"].values():
            row.update(to_create=False, to_migrate=False)
        return 200, {}

    # --- Tickets ----------------------------------------------------------------------------------

    def create_ticket(self) -> Answer:
        body = self.call.json()
        customer = self._customer(body)
        if "@" not in customer or not body.get("title"):
            raise Refusal(422, "A ticket needs a title and a customer.")
        return 201, self.desk.create_ticket(customer, title=str(body["title"]), article=_article(body))

    def update_ticket(self, ticket_id: int) -> Answer:
        self._row("tickets", ticket_id)
        body = self.call.json()
        changes: dict[str, object] = {name: body[name] for name in ("title", "state") if name in body}
        if customer := self._customer(body):
            changes["customer"] = customer
        return 200, self.desk.update_ticket(ticket_id, article=_article(body), **changes)

    def _customer(self, body: Record) -> str:
        customer = str(body.get("customer") or body.get("customer_id") or "")
        if customer.isdecimal():
            known = self.desk.records["users"].get(int(customer))
            return str(known["email"]) if known else ""
        return customer.removeprefix("guess:")

    # --- Webhooks and triggers --------------------------------------------------------------------

    def list_rows(self) -> Answer:
        rows = self.call.page([*self.desk.records[self._table()].values()], size=500)
        return 200, [self.desk.row_json(row) for row in rows]

    def show_row(self, row_id: int) -> Answer:
        return 200, self.desk.row_json(self._row(self._table(), row_id))

    def create_row(self) -> Answer:
        table, body = self._table(), self.call.json()
        self._check({**self.desk.defaults(table), **body}, but=None)
        return 201, self.desk.row_json(self.desk.add_row(table, body))

    def update_row(self, row_id: int) -> Answer:
        table = self._table()
        row, body = self._row(table, row_id), self.call.json()
        changes = {name: value for name, value in body.items() if name in self.desk.defaults(table)}
        self._check({**row, **changes}, but=row_id)
        row.update(changes)
        touch(row)
        return 200, self.desk.row_json(row)

    def delete_row(self, row_id: int) -> Answer:
        table = self._table()
        self._row(table, row_id)
        senders = self.desk.senders_of(row_id) if table == "webhooks" else []
        if senders:
            named = ", ".join(f"{trigger['name']} (#{trigger['id']})" for trigger in senders)
            raise Refusal(422, f"Cannot delete! This webhook is referenced by Trigger: {named}")
        del self.desk.records[table][row_id]
        return 200, {}

    def _check(self, row: Record, *, but: int | None) -> None:
        """Validate as Zammad's models do; names of triggers are unique, those of webhooks are not."""
        if not row["name"]:
            raise Refusal(422, "Name can't be blank")
        if self._table() == "webhooks":
            if urlsplit(str(row["endpoint"])).hostname in self.desk.unknown_hosts:
                raise Refusal(
                    422, "The provided endpoint is invalid, it could not be resolved to a safe IP address."
                )
            return
        if not (row["condition"] and row["perform"]):
            raise Refusal(422, "Missing required value for field 'condition' or 'perform'!")
        others = [other for other in self.desk.records["triggers"].values() if other["id"] != but]
        if any(other["name"].lower() == row["name"].lower() for other in others):
            raise Refusal(422, "Name has already been taken")

    def _user(self, user_id: int) -> Record:
        return self.desk.user_json(user_id, names="expand" in self.call.query)

    def _row(self, table: str, row_id: int) -> Record:
        try:
            return self.desk.records[table][row_id]
        except KeyError:
            name = table.title().removesuffix("s")
            raise Refusal(404, f"Couldn't find {name} with 'id'=\"{row_id}\"") from None

    def _table(self) -> str:
        return self.call.path.removeprefix(API).partition("/")[0]


def _changed_since(query: Mapping[str, str]) -> str:
    """Parse the only condition that is supported, and return its moment."""
    attribute = "condition[user.updated_at]"
    condition = {name: value for name, value in query.items() if name.startswith("condition")}
    if not condition:
        return ""
    unit, value = condition.get(f"{attribute}[range]"), condition.get(f"{attribute}[value]", "")
    if (
        condition.get(f"{attribute}[operator]") != "within last (relative)"
        or unit not in {"minute", "hour", "day"}
        or not value.isdecimal()
    ):
        raise Refusal.masked()
    return format_time(datetime.now(UTC) - timedelta(**{f"{unit}s": int(value)}))


def _article(body: Record) -> str:
    article = body.get("article")
    return str(article.get("body") or "") if isinstance(article, dict) else ""


API: Final = "/api/v1/"
TOKENS, ATTRIBUTES = API + "user_access_token", API + "object_manager_attributes"
ROUTES: Final[list[tuple[str, str, str, Callable[..., Answer]]]] = [
    ("GET", TOKENS, "user_preferences.access_token", Request.list_tokens),
    ("POST", TOKENS, "user_preferences.access_token", Request.create_token),
    ("DELETE", TOKENS + r"/(\d+)", "user_preferences.access_token", Request.delete_token),
    ("GET", API + "users/me", "", Request.show_me),
    ("GET", API + "users/search", "", Request.search_users),
    ("GET", API + "users", "", Request.list_users),
    ("GET", API + r"users/(\d+)", "", Request.show_user),
    ("PUT", API + r"users/(\d+)", "", Request.update_user),
    ("GET", ATTRIBUTES, "admin.object", Request.list_attributes),
    ("POST", ATTRIBUTES, "admin.object", Request.create_attribute),
    ("POST", ATTRIBUTES + "_execute_migrations", "admin.object", Request.execute_migrations),
    ("POST", API + "tickets", "ticket.agent", Request.create_ticket),
    ("PUT", API + r"tickets/(\d+)", "ticket.agent", Request.update_ticket),
    *(
        (method, API + table + suffix, f"admin.{table[:-1]}", route)
        for table in ("webhooks", "triggers")
        for method, suffix, route in (
            ("GET", "", Request.list_rows),
            ("POST", "", Request.create_row),
            ("GET", r"/(\d+)", Request.show_row),
            ("PUT", r"/(\d+)", Request.update_row),
            ("DELETE", r"/(\d+)", Request.delete_row),
        )
    ),
]
