"""The client of Zammad's REST API, and every way in which a call can fail.

https://github.com/zammad/zammad/blob/stable/app/controllers/user_access_token_controller.rb
https://github.com/zammad/zammad/blob/stable/app/controllers/users_controller.rb
https://github.com/zammad/zammad/blob/stable/app/controllers/application_controller/handles_errors.rb
"""

import json
import math
import re
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from functools import lru_cache
from http.cookiejar import DefaultCookiePolicy
from typing import Any, Final, Literal

import requests
from django.conf import settings
from prometheus_client import Histogram
from urllib3.exceptions import HTTPError

from zammad.deadline import Deadline, DeadlineAdapter

MAX_ANSWER_BYTES: Final = 1024 * 1024
# Tokens have no pages and include expired ones; a page of users is long.
MAX_LIST_BYTES: Final = 64 * 1024 * 1024
READ_BYTES: Final = 64 * 1024
# Seconds to wait before each retry of a request that is safe to repeat.
BACK_OFF: Final = (0.2, 0.6)
PASSING_STATUSES: Final = frozenset({429, 502, 503, 504})
FOUND_PER_PAGE: Final = 200  # the most a search returns

# A ticket that meets a trigger's condition sends the trigger's webhook.
Kind = Literal["webhook", "trigger"]
Unit = Literal["minute", "hour", "day"]

CALLS = Histogram(
    "family_plans_zammad_call_seconds",
    "Calls of Zammad's REST API, retries included, by outcome.",
    ["call", "outcome"],
    buckets=(0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0),
)


class ZammadError(Exception):
    """A call failed. The message is safe to log: it holds no credential."""

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class ZammadUnreachable(ZammadError):
    """No complete response arrived in time."""


class ZammadRefused(ZammadError):
    """Zammad refused the request; `reason` is its own message, in one line."""

    def __init__(self, *, status: int, reason: str, retry_after: float = 0) -> None:
        super().__init__(f"Zammad answered {status}: {reason or 'no reason given'}", status=status)
        self.reason = reason
        self.retry_after = retry_after


class ZammadUnreadable(ZammadError):
    """Zammad's response does not have the form that its API promises."""


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A personal access token as Zammad lists it, without its value."""

    id: int
    name: str
    created_at: datetime


class ZammadClient:
    """Call Zammad as the owner of one access token. Threads may share a client.

    Every method raises ZammadError.
    """

    def __init__(self, *, url: str, token: str, connect_timeout: float = 2.0, deadline: float = 8.0) -> None:
        """Times are in seconds; `deadline` covers one operation with its retries."""
        self._url = url.rstrip("/")
        self._token = token
        self._connect_timeout = connect_timeout
        self._deadline = deadline
        self._session = requests.Session()
        # The token goes to ZAMMAD_URL and nowhere else: no proxy from the environment sees it, and
        # no .netrc replaces it.
        self._session.trust_env = False
        # Zammad starts a browser session with every response; a token needs none.
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self._session.headers.update(
            {
                "Accept": "application/json",  # without it errors come as HTML
                "Accept-Encoding": "identity",  # so that the cap counts what arrives
                "Authorization": f"Token token={token}",
                "User-Agent": "family-plans",
            }
        )
        self._session.mount("http://", DeadlineAdapter())
        self._session.mount("https://", DeadlineAdapter())

    def __repr__(self) -> str:
        return f"<ZammadClient {self._url}>"

    def close(self) -> None:
        self._session.close()

    def create_access_token(self, *, name: str, expires_on: date) -> str:
        """Create a token without permissions, and return its value, which Zammad shows only once.

        It expires at the start of `expires_on`. Never retried: a lost response left a token behind.
        """
        # Versions up to about 6.0 take a label, and return the token as its name.
        values = {"name": name, "label": name, "permission": [], "expires_at": expires_on.isoformat()}
        answer = _object(self._call("POST", "user_access_token", json=values))
        for token in (answer.get("token"), answer.get("name")):
            if isinstance(token, str) and token and token != name:
                return token
        raise ZammadUnreadable("Zammad's response contains no token.", status=200)

    def list_access_tokens(self) -> list[AccessToken]:
        """List all tokens of the account, expired ones included; skip malformed items."""
        tokens = self._token_access().get("tokens")
        if not isinstance(tokens, list):
            raise ZammadUnreadable("Zammad's response contains no list of tokens.", status=200)
        return [token for token in map(_access_token, tokens) if token is not None]

    def owner_permissions(self) -> frozenset[str]:
        """List the permissions of the token's owner, whatever the token itself may do."""
        permissions = self._token_access().get("permissions")
        if not isinstance(permissions, list):
            raise ZammadUnreadable("Zammad's response contains no list of permissions.", status=200)
        return frozenset(filter(None, map(_permission, permissions)))

    def delete_access_token(self, token_id: int) -> bool:
        """Delete a token, and return whether Zammad knew it."""
        return self._delete(f"user_access_token/{int(token_id)}", unknown={404, 422})

    def me(self) -> dict[str, object]:
        """Return the owner of the token."""
        return _object(self._call("GET", "users/me"))

    def can_list_users(self) -> bool:
        """Return whether the token may see users other than its owner.

        Without ticket.agent and admin.user Zammad lists the owner alone, as if there were no other
        users. Every Zammad has at least two: user 1 is its own.
        """
        return len(self._page("users", page=1, per_page="2")) > 1

    def users(self, *, per_page: int = 500, start_page: int = 1) -> Iterator[list[object]]:
        """Fetch all users by ascending id, page by page, each page with its own deadline."""
        return self._pages("users", per_page=per_page, start_page=start_page, expand="true")

    def users_changed_within(
        self, value: int, unit: Unit, *, per_page: int = FOUND_PER_PAGE
    ) -> Iterator[list[object]]:
        """Fetch the users changed in the last minutes, hours or days, deactivated ones included.

        Each page has its own deadline. The newest come first: a user who changes during the search
        moves to the front, so that others come twice rather than never.
        """
        # Without a query Zammad searches its database, which is up to date, not Elasticsearch:
        # https://github.com/zammad/zammad/blob/stable/app/models/concerns/can_search.rb
        condition = "condition[user.updated_at]"
        parameters = {
            f"{condition}[operator]": "within last (relative)",
            f"{condition}[range]": unit,
            f"{condition}[value]": str(value),
            "sort_by": "updated_at",
            "order_by": "desc",
            "limit": str(per_page),
            "expand": "true",
        }
        page, before = 1, list[object]()
        # A short page may be due to Zammad's own limit: only an empty one is the end.
        while rows := self._page("users/search", page=page, **parameters):
            if rows == before:
                raise ZammadUnreadable("Zammad returns the same page again and again.", status=200)
            yield rows
            page, before = page + 1, rows

    def list_objects(self, kind: Kind) -> list[dict[str, Any]]:
        """List all webhooks or triggers; newer versions mask their secrets."""
        pages = self._pages(f"{kind}s", per_page=500)
        return [row for page in pages for row in page if isinstance(row, dict) and type(row.get("id")) is int]

    def create_object(self, kind: Kind, values: Mapping[str, object]) -> int:
        """Create a webhook or trigger, and return its id. Never retried."""
        created = _object(self._call("POST", f"{kind}s", json=dict(values))).get("id")
        if type(created) is not int:
            raise ZammadUnreadable("Zammad's response contains no id.", status=201)
        return created

    def update_object(self, kind: Kind, object_id: int, values: Mapping[str, object]) -> None:
        """Change the given fields of a webhook or trigger."""
        self._call("PUT", f"{kind}s/{int(object_id)}", json=dict(values))

    def delete_object(self, kind: Kind, object_id: int) -> bool:
        """Delete a webhook or trigger, and return whether Zammad knew it."""
        return self._delete(f"{kind}s/{int(object_id)}", unknown={404})

    def _delete(self, path: str, *, unknown: Collection[int]) -> bool:
        try:
            self._call("DELETE", path)
        except ZammadRefused as refusal:
            if refusal.status in unknown:
                return False
            raise
        return True

    def _token_access(self) -> dict[str, object]:
        return _object(self._call("GET", "user_access_token", cap=MAX_LIST_BYTES))

    def _pages(
        self, path: str, *, per_page: int, start_page: int = 1, **parameters: str
    ) -> Iterator[list[object]]:
        page = start_page
        while True:
            rows = self._page(path, page=page, per_page=str(per_page), **parameters)
            if rows:
                yield rows
            if len(rows) < per_page:  # Zammad returns no total
                return
            page += 1

    def _page(self, path: str, *, page: int, **parameters: str) -> list[object]:
        parameters["page"] = str(page)
        return _list(self._call("GET", path, params=parameters, cap=MAX_LIST_BYTES))

    def _call(self, method: str, path: str, *, cap: int = MAX_ANSWER_BYTES, **options: Any) -> object:
        """Send a request, retry where that is safe and useful, and record its outcome."""
        started, outcome = time.monotonic(), "OK"
        try:
            with Deadline(self._deadline) as deadline:
                return self._try(method, path, deadline=deadline, cap=cap, **options)
        except ZammadError as error:
            outcome = type(error).__name__.removeprefix("Zammad").upper()
            raise
        finally:
            endpoint = f"{method} {re.sub('[0-9]+', '{id}', path)}"
            CALLS.labels(endpoint, outcome).observe(time.monotonic() - started)

    def _try(self, method: str, path: str, *, deadline: Deadline, cap: int, **options: Any) -> object:
        if not self._url:
            raise ZammadUnreachable("Zammad is not configured: set ZAMMAD_URL.")
        # Zammad's messages may quote the value that they refuse.
        hidden = str(options.get("json", {}).get("signature_token", ""))
        waits = iter(() if method == "POST" else BACK_OFF)
        while True:
            wait = next(waits, math.inf)
            try:
                response, content = self._exchange(method, path, deadline=deadline, cap=cap, **options)
                return self._parse(response, content, hidden=hidden)
            except ZammadUnreachable:
                if wait >= deadline.remaining:
                    raise
            except ZammadRefused as refusal:
                wait = max(wait, refusal.retry_after)
                if refusal.status not in PASSING_STATUSES or wait >= deadline.remaining:
                    raise
            time.sleep(wait)

    def _exchange(
        self, method: str, path: str, *, deadline: Deadline, cap: int, **options: Any
    ) -> tuple[requests.Response, bytes]:
        try:
            deadline.check()  # earlier operations may have used up the shared time
            with self._session.request(
                method,
                f"{self._url}/api/v1/{path}",
                timeout=(self._connect_timeout, max(deadline.remaining, 0.001)),
                allow_redirects=False,
                stream=True,
                **options,
            ) as response:
                content = bytearray()
                while chunk := response.raw.read1(READ_BYTES):
                    content += chunk
                    if len(content) > cap:
                        raise ZammadUnreadable("Zammad's response is too long.", status=response.status_code)
                    deadline.check()
            # A header block that was cut off parses as an empty response.
            deadline.check()
            return response, bytes(content)
        except (requests.RequestException, HTTPError, OSError, UnicodeError) as error:
            cause = type(error).__name__
        # Raised out here, without its cause: the errors of requests hold the request, and it the token.
        if deadline.remaining <= 0:
            raise ZammadUnreachable(f"Zammad did not answer in time ({cause}).")
        raise ZammadUnreachable(f"Zammad could not be reached ({cause}).")

    def _parse(self, response: requests.Response, content: bytes, *, hidden: str) -> object:
        status = response.status_code
        try:
            answer: object = json.loads(content)
        except (ValueError, RecursionError):
            answer = None
        if not 200 <= status < 300:
            after = response.headers.get("Retry-After", "")
            raise ZammadRefused(
                status=status,
                reason=self._reason(answer, hidden=hidden),
                retry_after=float(after) if re.fullmatch(r"[0-9]{1,6}", after) else 0,
            )
        if answer is None:
            raise ZammadUnreadable("Zammad's response is not JSON.", status=status)
        return answer

    def _reason(self, answer: object, *, hidden: str) -> str:
        """Return Zammad's own message in one short line, without our secrets in it."""
        if not isinstance(answer, dict):
            return ""
        reason = answer.get("error_human") or answer.get("error")
        if not isinstance(reason, str):
            return ""
        for secret in filter(None, (self._token, hidden)):
            reason = reason.replace(secret, "***")
        line = " ".join(reason.split())
        return "".join(char for char in line if char.isprintable())[:200]


# One client for each set of settings, which keeps its connections open.
_client = lru_cache(maxsize=4)(ZammadClient)


def get_client(*, token: str = "", deadline: float | None = None) -> ZammadClient:
    """Return the client that the settings describe, shared by the whole process."""
    return _client(
        url=settings.ZAMMAD_URL,
        token=token or settings.ZAMMAD_API_TOKEN,
        connect_timeout=settings.ZAMMAD_CONNECT_TIMEOUT,
        deadline=settings.ZAMMAD_DEADLINE if deadline is None else deadline,
    )


def get_patient_client(*, token: str = "") -> ZammadClient:
    """Return a client for commands, whose lists take long; `token` replaces the one in the settings."""
    return get_client(token=token, deadline=settings.ZAMMAD_COMMAND_DEADLINE)


def _object(answer: object) -> dict[str, object]:
    if not isinstance(answer, dict):
        raise ZammadUnreadable("Zammad's response is not an object.", status=200)
    return answer


def _list(answer: object) -> list[object]:
    if not isinstance(answer, list):
        raise ZammadUnreadable("Zammad's response is not a list.", status=200)
    return answer


def _access_token(item: object) -> AccessToken | None:
    if not isinstance(item, dict) or type(item.get("id")) is not int:
        return None
    name = item.get("name") or item.get("label")  # the label of old versions
    try:
        created_at = datetime.fromisoformat(str(item.get("created_at")))
    except ValueError:
        return None
    if not isinstance(name, str) or created_at.tzinfo is None:
        return None
    return AccessToken(id=item["id"], name=name, created_at=created_at)


def _permission(item: object) -> str:
    """Return the name of a permission; a disabled one is listed only as the parent of others."""
    if not isinstance(item, dict) or not isinstance(item.get("name"), str):
        return ""
    preferences = item.get("preferences")
    disabled = isinstance(preferences, dict) and preferences.get("disabled") is True
    return "" if disabled else item["name"]
