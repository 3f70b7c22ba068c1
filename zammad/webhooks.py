"""The wire format of Zammad's webhooks: parses headers and bytes into checked data, without Django.

What Zammad sends, and when it retries:
https://github.com/zammad/zammad/blob/stable/app/jobs/trigger_webhook_job.rb
https://github.com/zammad/zammad/blob/stable/app/jobs/trigger_webhook_job/record_payload/base.rb
"""

import hashlib
import hmac
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple, Self
from uuid import UUID

# Zammad's ids are 32-bit integers. User 1 is its system user and never a person.
MIN_ZAMMAD_ID: Final = 2
MAX_ZAMMAD_ID: Final = 2**31 - 1

# Longer texts are cut. Zammad's columns are no longer than these:
# https://github.com/zammad/zammad/blob/stable/db/migrate/20120101000001_create_base.rb
TEXT_LENGTHS: Final = {
    "email": 255,
    "login": 255,
    "firstname": 100,
    "lastname": 100,
    "phone": 100,
    "mobile": 100,
    "organization": 150,
}

TRIGGER_LENGTH: Final = 250

# Zammad signs with SHA-1 in every version:
# https://github.com/zammad/zammad/blob/stable/lib/user_agent.rb (set_signature)
SIGNATURE: Final = re.compile(r"sha1=([0-9a-f]{40})", re.ASCII)
CLOCK_SKEW: Final = timedelta(days=1)


class BodyIncomplete(Exception):
    """Fewer bytes arrived than the headers announced."""


class SignatureInvalid(Exception):
    """A body is not signed with one of our secrets; code and message state the reason."""

    def __init__(self, code: str) -> None:
        self.code = code
        super().__init__(code.replace("_", " ").lower())


class Unusable(Exception):
    """An authentic payload contains nothing to store; the message never quotes it."""


def _(reason: str) -> str:
    """Mark a reason for translation; it is stored in English, and translated when displayed."""
    return reason


class UserData(NamedTuple):
    """The fields of a Zammad user that are stored."""

    zammad_id: int
    email: str
    login: str
    firstname: str
    lastname: str
    phone: str
    mobile: str
    organization: str
    active: bool
    vip: bool
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """The content of an authentic delivery. The body itself is not kept."""

    delivery_id: UUID | None
    trigger: str
    body_digest: str  # SHA-256, in hexadecimal
    customer: UserData | None
    problem: str = ""  # the reason if there is no customer

    @classmethod
    def from_http(
        cls, headers: Mapping[str, str], body: bytes, *, secrets: Sequence[str], now: datetime
    ) -> Self:
        """Verify and parse a delivery. `headers` ignore case, as Django's do.

        :raises BodyIncomplete:
        :raises SignatureInvalid:
        """
        announced = headers.get("Content-Length", "")
        if announced.isdecimal() and len(body) < int(announced[:15]):
            raise BodyIncomplete
        verify_signature(body, signature=headers.get("X-Hub-Signature"), secrets=secrets)
        customer, problem = None, ""
        try:
            customer = parse_customer(body, now=now)
        except Unusable as unusable:
            problem = str(unusable)
        return cls(
            delivery_id=read_delivery_id(headers),
            trigger=_trigger(headers.get("X-Zammad-Trigger", "")),
            body_digest=hashlib.sha256(body).hexdigest(),
            customer=customer,
            problem=problem,
        )


def read_delivery_id(headers: Mapping[str, str]) -> UUID | None:
    """Parse the delivery id, which retries share; return None for any form but Zammad's own."""
    header = headers.get("X-Zammad-Delivery", "")
    try:
        delivery_id = UUID(header)
    except ValueError:
        return None
    return delivery_id if str(delivery_id) == header else None


def verify_signature(body: bytes, *, signature: str | None, secrets: Sequence[str]) -> None:
    """Check that a body was signed with one of the secrets; an empty secret never counts.

    :raises SignatureInvalid:
    """
    if signature is None:
        raise SignatureInvalid("SIGNATURE_MISSING")
    match = SIGNATURE.fullmatch(signature)
    if match is None:
        raise SignatureInvalid("SIGNATURE_MALFORMED")
    received = match[1].encode("ascii")
    for secret in filter(None, secrets):
        expected = hmac.new(secret.encode(), body, hashlib.sha1).hexdigest().encode("ascii")
        if hmac.compare_digest(expected, received):
            return
    raise SignatureInvalid("SIGNATURE_WRONG")


def parse_customer(body: bytes, *, now: datetime) -> UserData:
    """Parse the customer of the ticket in Zammad's default payload.

    :raises Unusable:
    """
    try:
        payload: object = json.loads(body.decode("utf-8"))
    # ValueError: not JSON, not UTF-8, or an integer of thousands of digits.
    except (ValueError, RecursionError) as error:
        raise Unusable(_("the body is not readable JSON")) from error
    ticket = payload.get("ticket") if isinstance(payload, dict) else None
    customer = ticket.get("customer") if isinstance(ticket, dict) else None
    if not isinstance(customer, dict):
        raise Unusable(_("the body has no ticket with a customer"))
    return parse_user(customer, now=now)


def parse_user(record: object, *, now: datetime) -> UserData:
    """Parse one user, whom webhooks and REST (with `expand=true`) describe in the same form.

    Id and time must be valid, as every rule depends on them; any other missing or malformed field is
    empty.

    :raises Unusable:
    """
    if not isinstance(record, dict):
        raise Unusable(_("the user is not an object"))
    return UserData(
        zammad_id=_zammad_id(record.get("id")),
        email=_email(record.get("email")),
        login=_text(record, "login"),
        firstname=_text(record, "firstname"),
        lastname=_text(record, "lastname"),
        phone=_text(record, "phone"),
        mobile=_text(record, "mobile"),
        organization=_text(record, "organization"),
        active=record.get("active") is not False,
        vip=record.get("vip") is True,
        updated_at=_updated_at(record.get("updated_at"), now=now),
    )


def _trigger(header: str) -> str:
    """Decode a trigger's name: raw UTF-8 from Zammad, which WSGI decodes as latin-1."""
    name = header.encode("latin-1", "replace").decode("utf-8", "replace")
    return "".join(char for char in name if char.isprintable())[:TRIGGER_LENGTH]


def _zammad_id(value: object) -> int:
    # A bool is an int to Python.
    if type(value) is not int or not 1 <= value <= MAX_ZAMMAD_ID:
        raise Unusable(_("the user has no usable id"))
    if value < MIN_ZAMMAD_ID:
        raise Unusable(_("user 1 is Zammad's own"))
    return value


def _updated_at(value: object, *, now: datetime) -> datetime:
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
        if moment is None or moment.tzinfo is None:
            raise Unusable(_("the user has no usable updated_at"))
        moment = moment.astimezone(UTC)
    # OverflowError: an offset that leaves the years 1 to 9999.
    except (ValueError, OverflowError) as error:
        raise Unusable(_("the user has no usable updated_at")) from error
    # Accepting it would block every correct version until that time.
    if moment > now + CLOCK_SKEW:
        raise Unusable(_("updated_at is ahead of our clock"))
    return moment


def _text(record: dict[str, object], name: str) -> str:
    value = record.get(name)
    return _storable(value)[: TEXT_LENGTHS[name]] if isinstance(value, str) else ""


def _email(value: object) -> str:
    """Return an address as Zammad and allauth write it, or nothing: a cut address is somebody else's."""
    if not isinstance(value, str) or value != _storable(value):
        return ""
    email = value.strip().lower()
    return email if len(email) <= TEXT_LENGTHS["email"] else ""


def _storable(text: str) -> str:
    """Drop characters that a database refuses: NUL, and surrogates without their other half."""
    return text.replace("\0", "").encode("utf-8", "ignore").decode("utf-8")
