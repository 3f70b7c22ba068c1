"""Install our webhook and its triggers in Zammad, remove them, and check the account behind our token.

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
# The suffix of a trigger's name, by the event as Zammad calls it.
TRIGGERS: Final = {"create": "ticket created", "update": "ticket updated"}
NOTE: Final = "Made by install_zammad_webhook, which also changes and removes it."
# The lengths of Zammad's columns.
MAX_SIGNATURE_TOKEN: Final = 200
MAX_ENDPOINT: Final = 2000


class InstallationRefused(Exception):
    """Installing is impossible as things are; the message says what to do, and holds no secret."""


class Outcome(Enum):
    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    REMOVED = "removed"
    ABSENT = "not there"


# The consequence when a field of a webhook or trigger has an unwanted value.
MEANINGS: Final[dict[Kind, dict[str, str]]] = {
    "webhook": {
        "endpoint": "deliveries {are} sent elsewhere",
        "ssl_verify": "the certificate of the endpoint {is} not checked",
        "active": "nothing {is} sent",
        "customized_payload": "deliveries {are} of a shape that is ignored here",
        "pre_defined_webhook_type": "deliveries {are} made for another product, and ignored here",
        "http_method": "deliveries {are} refused, as only POST is accepted here",
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
    """A field whose value in Zammad is not the one we want."""

    kind: Kind
    field: str
    found: object
    wanted: object

    def describe(self, *, repaired: bool) -> str:
        """Describe the present (or former) value, the wanted one and the consequence in one sentence."""
        verb, verbs = ("was", "were") if repaired else ("is", "are")
        if self.field == "signature_token":  # neither value is shown
            if self.found:
                return f"signature_token {verb} not the first of ZAMMAD_WEBHOOK_SECRETS."
            return f"signature_token {verb} missing: deliveries {verbs} unsigned, and refused here."
        text = f"{self.field} {verb} {_format(self.found)}, not {_format(self.wanted)}"
        if meaning := MEANINGS[self.kind].get(self.field):
            text += f": {meaning.format_map({'is': verb, 'are': verbs})}"
        return f"{text}."


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """The result for one webhook or trigger."""

    kind: Kind
    name: str
    outcome: Outcome
    differences: tuple[Difference, ...] = ()
    # Newer versions mask the signature token, so it was set without a comparison.
    token_set_blindly: bool = False

    @property
    def title(self) -> str:
        return f'{self.kind.title()} "{self.name}"'

    def __str__(self) -> str:
        text = f"{self.title}: {self.outcome.value}"
        if self.differences:
            text += f" ({', '.join(difference.field for difference in self.differences)})"
        if self.token_set_blindly:
            text += "; Zammad does not show its signature_token, so that was set again"
        return f"{text}."


def check_endpoint(endpoint: str) -> None:
    """Check that Zammad can send webhooks to an endpoint without exposing them to a network.

    :raises InstallationRefused:
    """
    try:
        parts = urlsplit(endpoint)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise InstallationRefused("The endpoint is not a URL.") from error
    if parts.scheme not in {"http", "https"} or not host or len(endpoint) > MAX_ENDPOINT:
        raise InstallationRefused("The endpoint is not an https:// URL.")
    if parts.username is not None:
        raise InstallationRefused("The endpoint holds credentials, which would be shown: leave them out.")
    if parts.scheme == "http" and not _is_loopback(host):
        raise InstallationRefused(
            "The endpoint must be an https:// URL: the data of users would travel in clear."
        )


def install(
    *, client: ZammadClient, name: str, endpoint: str, signature_token: str, dry_run: bool = False
) -> Iterator[Step]:
    """Create or update the webhook and its triggers, and yield each result.

    Safe to repeat: a webhook is found by its name, a trigger by its name in any case.

    :raises InstallationRefused:
    :raises ZammadError:
    """
    check_endpoint(endpoint)
    if not signature_token or len(signature_token) > MAX_SIGNATURE_TOKEN:
        raise InstallationRefused(
            f"ZAMMAD_WEBHOOK_SECRETS must begin with a secret of 1 to {MAX_SIGNATURE_TOKEN} characters."
        )
    webhooks, triggers = _installed(client)
    webhook = _webhook(webhooks, name)
    wanted = _wanted_webhook(name=name, endpoint=endpoint, signature_token=signature_token)
    try:
        webhook_id, step = _put(client, "webhook", webhook, wanted, dry_run=dry_run)
    except ZammadRefused as refusal:
        if refusal.status != 422 or "resolve" not in refusal.reason:
            raise
        raise InstallationRefused(
            f"{str(refusal).removesuffix('.')}. Zammad, from its own machine, found no address for "
            f"{urlsplit(endpoint).hostname} that it would send to. Add the name to the DNS that Zammad uses, "
            "or name another host by PUBLIC_URL or --endpoint, and run this again. If the name is lost "
            "later, newer versions drop deliveries without a retry."
        ) from refusal
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
        # We read Zammad's own payload, sent by POST.
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
        # "selective" fires on an update only with a new article, as our condition names no attribute.
        "execution_condition_mode": "always",
        "disable_notification": True,
        "condition": {"ticket.action": {"operator": "is", "value": event}},
        "perform": {"notification.webhook": {"webhook_id": webhook_id or "(new)"}},
        "note": NOTE,
    }


def uninstall(*, client: ZammadClient, name: str, dry_run: bool = False) -> Iterator[Step]:
    """Remove the triggers, then the webhook: Zammad keeps a webhook that a trigger sends.

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
    """Return a warning about the account that mints invite tokens, or an empty string.

    A token without any permission still authenticates as its owner, and an owner with admin.user may
    act as any user by a From header:
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
    """Fetch the webhooks, and the triggers by their names in lower case."""
    client.me()  # every token may do this: a later refusal is about rights
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
        raise InstallationRefused(f"The token or its owner lacks {' and '.join(missing)} in Zammad.")
    return lists["webhook"], {str(trigger.get("name")).lower(): trigger for trigger in lists["trigger"]}


def _webhook(webhooks: list[dict[str, Any]], name: str) -> dict[str, Any] | None:
    named = [webhook for webhook in webhooks if webhook.get("name") == name]
    if len(named) > 1:
        # Names of webhooks are not unique in Zammad: changing one of them would be a guess.
        raise InstallationRefused(
            f'Zammad has several webhooks named "{name}": rename those that are not ours.'
        )
    return named[0] if named else None


def _put(
    client: ZammadClient,
    kind: Kind,
    found: dict[str, Any] | None,
    wanted: Mapping[str, Any],
    *,
    dry_run: bool,
) -> tuple[int | None, Step]:
    """Create what was not found, or update its differences; a dry run has no id for a new one."""
    name = str(wanted["name"])
    if found is None:
        created = None if dry_run else client.create_object(kind, wanted)
        return created, Step(kind=kind, name=name, outcome=Outcome.CREATED)
    differences = [
        Difference(kind=kind, field=field, found=found[field], wanted=value)
        for field, value in wanted.items()
        # A missing field is a secret, or unknown to this version of Zammad.
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
    """Compare two values as Zammad does: null equals an empty text, and an id may be text."""
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
        case int():  # Zammad's admin pages send ids as text
            return str(found) == str(wanted)
        case _:
            return found == wanted


def _is_hidden(webhook: dict[str, Any]) -> bool:
    """Return whether Zammad hides the signature token; null or "" means that there is none."""
    if "signature_token" not in webhook:
        return True
    shown = webhook["signature_token"]
    return isinstance(shown, str) and shown != "" and set(shown) == {"*"}


def _format(value: object) -> str:
    """Return a value as one printable line, without the credentials of a URL."""
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
