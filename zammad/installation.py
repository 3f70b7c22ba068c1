"""Put our webhook and its triggers into Zammad, take them out again, and judge the tokens we use.

https://github.com/zammad/zammad/blob/stable/app/models/webhook.rb
https://github.com/zammad/zammad/blob/stable/app/models/trigger.rb
"""

import ipaddress
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final
from urllib.parse import urlsplit

from zammad.client import Kind, ZammadClient, ZammadRefused

DEFAULT_NAME: Final = "Family Plans"
# What follows the name, by the value that Zammad calls the event.
TRIGGERS: Final = {"create": "ticket created", "update": "ticket updated"}
NOTE: Final = "Made by install_zammad_webhook, which also changes and removes it."
# As long as Zammad's columns.
MAX_SIGNATURE_TOKEN: Final = 200
MAX_ENDPOINT: Final = 2000


class InstallationRefused(Exception):
    """It cannot be installed so; the message says what to do, and holds nothing secret."""


class RightsMissing(InstallationRefused):
    def __init__(self, missing: list[str]) -> None:
        super().__init__(f"The token or its owner lacks {' and '.join(missing)} in Zammad.")


class NameTaken(InstallationRefused):
    def __init__(self, name: str) -> None:
        # Names of webhooks are not unique in Zammad: changing one of them would be a guess.
        super().__init__(f'Zammad has several webhooks named "{name}": rename those that are not ours.')


class EndpointRefused(InstallationRefused):
    """Webhooks cannot go there, or would show what they tell on the way."""


class EndpointUnresolved(InstallationRefused):
    """Zammad found no address for the endpoint's host, or only one that it does not send to."""

    def __init__(self, endpoint: str, refusal: ZammadRefused) -> None:
        super().__init__(
            f"{str(refusal).removesuffix('.')}. Zammad, from its own machine, found no address for "
            f"{urlsplit(endpoint).hostname} that it would send to. Add the name to the DNS that Zammad asks, "
            "or name another host by PUBLIC_URL or --endpoint, and run this again. Where a name is lost "
            "later, newer versions drop deliveries without another try."
        )


class SignatureTokenRefused(InstallationRefused):
    def __init__(self) -> None:
        super().__init__(
            f"ZAMMAD_WEBHOOK_SECRETS must begin with a secret of 1 to {MAX_SIGNATURE_TOKEN} characters."
        )


class Outcome(Enum):
    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    REMOVED = "removed"
    ABSENT = "not there"


# What follows from a field of a webhook or trigger that holds something else than we want.
MEANINGS: Final[dict[Kind, dict[str, str]]] = {
    "webhook": {
        "endpoint": "deliveries {are} sent elsewhere",
        "ssl_verify": "the certificate of the endpoint {is} not checked",
        "active": "nothing {is} sent",
        "customized_payload": "deliveries {are} of a shape that is ignored here",
        "pre_defined_webhook_type": "deliveries {are} made for another product, and ignored here",
        "http_method": "deliveries {are} refused, as only POST is taken here",
    },
    "trigger": {
        "active": "nothing {is} sent",
        "activator": "nothing {is} sent when a ticket is created or updated",
        "execution_condition_mode": "updates {are} sent only with a new article",
        "condition": "it {is} sent for other events, or for fewer",
        "perform": "our webhook {is} not sent, or not alone",
    },
}
MAX_SHOWN: Final = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A field that holds something else in Zammad than we want."""

    kind: Kind
    field: str
    found: object
    wanted: object

    def describe(self, *, repaired: bool) -> str:
        """Say in a sentence what it is (or was), what it should be, and what follows from that."""
        verb, verbs = ("was", "were") if repaired else ("is", "are")
        if self.field == "signature_token":  # neither value is shown
            if self.found:
                return f"signature_token {verb} not the first of ZAMMAD_WEBHOOK_SECRETS."
            return f"signature_token {verb} missing: deliveries {verbs} unsigned, and refused here."
        told = f"{self.field} {verb} {_shown(self.found)}, not {_shown(self.wanted)}"
        if meaning := MEANINGS[self.kind].get(self.field):
            told += f": {meaning.format_map({'is': verb, 'are': verbs})}"
        return f"{told}."


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What became of one webhook or trigger."""

    kind: Kind
    name: str
    outcome: Outcome
    differences: tuple[Difference, ...] = ()
    # Newer versions mask the signature token: it was set without knowing whether it differed.
    token_set_blindly: bool = False

    @property
    def title(self) -> str:
        return f'{self.kind.title()} "{self.name}"'

    def __str__(self) -> str:
        told = f"{self.title}: {self.outcome.value}"
        if self.differences:
            told += f" ({', '.join(difference.field for difference in self.differences)})"
        if self.token_set_blindly:
            told += "; Zammad does not show its signature_token, so that was set again"
        return f"{told}."


def check_endpoint(endpoint: str) -> None:
    """Hold that Zammad can send webhooks there without showing them to a network.

    :raises EndpointRefused:
    """
    try:
        parts = urlsplit(endpoint)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise EndpointRefused("The endpoint is not a URL.") from error
    if parts.scheme not in {"http", "https"} or not host or len(endpoint) > MAX_ENDPOINT:
        raise EndpointRefused("The endpoint is not an https:// URL.")
    if parts.username is not None:
        raise EndpointRefused("The endpoint holds credentials, which would be shown: leave them out.")
    if parts.scheme == "http" and not _is_loopback(host):
        raise EndpointRefused(
            "The endpoint must be an https:// URL: the data of users would travel in clear."
        )


def install(
    *, client: ZammadClient, name: str, endpoint: str, signature_token: str, dry_run: bool = False
) -> Iterator[Step]:
    """Create or update the webhook and its triggers, and tell of each when it is done.

    Safe to repeat: a webhook is known by its name, a trigger by its name in any case.

    :raises InstallationRefused:
    :raises ZammadError:
    """
    check_endpoint(endpoint)
    if not signature_token or len(signature_token) > MAX_SIGNATURE_TOKEN:
        raise SignatureTokenRefused
    webhooks, triggers = _installed(client)
    webhook = _webhook(webhooks, name)
    try:
        webhook_id, step = _put(
            client,
            "webhook",
            webhook,
            _wanted_webhook(name=name, endpoint=endpoint, signature_token=signature_token),
            dry_run=dry_run,
        )
    except ZammadRefused as refusal:
        if refusal.status == 422 and "resolve" in refusal.reason:
            raise EndpointUnresolved(endpoint, refusal) from refusal
        raise
    yield step
    for event, suffix in TRIGGERS.items():
        wanted = _wanted_trigger(name=f"{name}: {suffix}", event=event, webhook_id=webhook_id)
        yield _put(client, "trigger", triggers.get(wanted["name"].lower()), wanted, dry_run=dry_run)[1]


def _wanted_webhook(*, name: str, endpoint: str, signature_token: str) -> dict[str, Any]:
    return {
        "name": name,
        "endpoint": endpoint,
        "signature_token": signature_token,
        "ssl_verify": True,
        "active": True,
        # Zammad's own payload, by POST, is what we read.
        "customized_payload": False,
        "pre_defined_webhook_type": "",
        "http_method": "post",
        "note": NOTE,
    }


def _wanted_trigger(*, name: str, event: str, webhook_id: int | None) -> dict[str, Any]:
    return {
        "name": name,
        "active": True,
        "activator": "action",
        # "selective" would fire on an update only with a new article: our condition names no attribute.
        "execution_condition_mode": "always",
        "disable_notification": True,
        "condition": {"ticket.action": {"operator": "is", "value": event}},
        "perform": {"notification.webhook": {"webhook_id": webhook_id or "(new)"}},
        "note": NOTE,
    }


def uninstall(*, client: ZammadClient, name: str, dry_run: bool = False) -> Iterator[Step]:
    """Remove the triggers and then the webhook, which Zammad keeps while a trigger sends it.

    :raises InstallationRefused:
    :raises ZammadError:
    """
    webhooks, triggers = _installed(client)
    webhook = _webhook(webhooks, name)
    for suffix in TRIGGERS.values():
        trigger_name = f"{name}: {suffix}"
        yield _remove(client, "trigger", trigger_name, triggers.get(trigger_name.lower()), dry_run=dry_run)
    yield _remove(client, "webhook", name, webhook, dry_run=dry_run)


def concern_about_minting(client: ZammadClient) -> str:
    """Say what is wrong with the account that mints invite tokens, or nothing.

    A token without any permission still authenticates as its owner, and whoever holds admin.user
    may act as anybody by a From header:
    https://github.com/zammad/zammad/blob/stable/app/controllers/application_controller/authenticates.rb

    :raises ZammadError:
    """
    if "admin.user" not in client.owner_permissions():
        return ""
    return (
        "The owner of ZAMMAD_API_TOKEN holds admin.user. In Zammad every token of such an account, "
        "also the powerless ones behind invites, can act as any user: make the token with an account "
        "without admin.user."
    )


def _installed(client: ZammadClient) -> tuple[list[dict[str, Any]], dict[str, dict[str, Any]]]:
    """List the webhooks, and the triggers by their names in lower case.

    :raises RightsMissing:
    :raises ZammadError:
    """
    client.me()  # any token may ask this: what is refused from here on is a matter of rights
    lists: dict[Kind, list[dict[str, Any]]] = {}
    missing = []
    kinds: tuple[Kind, Kind] = ("webhook", "trigger")
    for kind in kinds:
        try:
            lists[kind] = client.list_objects(kind)
        except ZammadRefused as refusal:
            if refusal.status != 403:
                raise
            missing.append(f"admin.{kind}")
    if missing:
        raise RightsMissing(missing)
    return lists["webhook"], {str(trigger.get("name")).lower(): trigger for trigger in lists["trigger"]}


def _webhook(webhooks: list[dict[str, Any]], name: str) -> dict[str, Any] | None:
    named = [webhook for webhook in webhooks if webhook.get("name") == name]
    if len(named) > 1:
        raise NameTaken(name)
    return named[0] if named else None


def _put(
    client: ZammadClient,
    kind: Kind,
    found: dict[str, Any] | None,
    wanted: Mapping[str, Any],
    *,
    dry_run: bool,
) -> tuple[int | None, Step]:
    """Create what is not found, or update it where it differs; a dry run has no id for what it lacks."""
    name = str(wanted["name"])
    if found is None:
        created = None if dry_run else client.create_object(kind, wanted)
        return created, Step(kind=kind, name=name, outcome=Outcome.CREATED)
    differences = [
        Difference(kind=kind, field=field, found=found[field], wanted=value)
        for field, value in wanted.items()
        # A field that is not shown is one that this version of Zammad does not have, or a secret.
        if field in found and not _is_same(found[field], value)
    ]
    blindly = "signature_token" in wanted and _is_hidden(found)
    if blindly:
        differences = [difference for difference in differences if difference.field != "signature_token"]
    changed = [difference.field for difference in differences] + ["signature_token"] * blindly
    if changed and not dry_run:
        client.update_object(kind, found["id"], {field: wanted[field] for field in changed})
    step = Step(
        kind=kind,
        name=name,
        outcome=Outcome.UPDATED if differences else Outcome.UNCHANGED,
        differences=tuple(differences),
        token_set_blindly=blindly,
    )
    return found["id"], step


def _remove(
    client: ZammadClient, kind: Kind, name: str, found: dict[str, Any] | None, *, dry_run: bool
) -> Step:
    removed = found is not None and (dry_run or client.delete_object(kind, found["id"]))
    return Step(kind=kind, name=name, outcome=Outcome.REMOVED if removed else Outcome.ABSENT)


def _is_same(found: object, wanted: object) -> bool:
    """Compare a field as Zammad understands it: null is no text, and an id may be text."""
    match wanted:
        case "" | False:
            return not found
        case dict():
            return (
                isinstance(found, dict)
                and found.keys() == wanted.keys()
                and all(_is_same(found[name], value) for name, value in wanted.items())
            )
        case bool():
            return found is wanted
        case int():  # admin's pages of Zammad send ids as text
            return str(found) == str(wanted)
        case _:
            return found == wanted


def _is_hidden(webhook: dict[str, Any]) -> bool:
    """Tell whether Zammad keeps its signature token to itself; null or "" tells that it has none."""
    if "signature_token" not in webhook:
        return True
    shown = webhook["signature_token"]
    return isinstance(shown, str) and shown != "" and set(shown) == {"*"}


def _shown(value: object) -> str:
    """Write a value as one printable line, without credentials of a URL."""
    if isinstance(value, str):
        value = re.sub(r"//[^/@]*@", "//***@", value)
    line = json.dumps(value, ensure_ascii=False)
    line = "".join(char if char.isprintable() else "?" for char in line)
    return line if len(line) <= MAX_SHOWN else f"{line[:MAX_SHOWN]}..."


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
