"""Put our webhook and its triggers into Zammad, take them out again, and judge the tokens we use."""

import ipaddress
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What became of one webhook or trigger."""

    kind: Kind
    name: str
    outcome: Outcome
    # The fields in which Zammad's version differed.
    differed: tuple[str, ...] = ()
    # Newer versions mask the signature token: it was set without knowing whether it differed.
    token_set_blindly: bool = False

    def __str__(self) -> str:
        told = f'{self.kind.title()} "{self.name}": {self.outcome.value}'
        if self.differed:
            told += f" ({', '.join(self.differed)})"
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
    wanted = {
        "name": name,
        "endpoint": endpoint,
        "signature_token": signature_token,
        "ssl_verify": True,
        "active": True,
        "customized_payload": False,  # we read the default one
        "note": NOTE,
    }
    webhook_id, step = _put(client, "webhook", webhook, wanted, dry_run=dry_run)
    yield step
    for event, suffix in TRIGGERS.items():
        trigger_name = f"{name}: {suffix}"
        wanted = {
            "name": trigger_name,
            "active": True,
            "activator": "action",
            "execution_condition_mode": "selective",
            "disable_notification": True,
            "condition": {"ticket.action": {"operator": "is", "value": event}},
            "perform": {"notification.webhook": {"webhook_id": webhook_id}},
            "note": NOTE,
        }
        yield _put(client, "trigger", triggers.get(trigger_name.lower()), wanted, dry_run=dry_run)[1]


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
    may act as anybody by a From header: app/controllers/application_controller/authenticates.rb.

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
    # A field that is not shown is one that this version of Zammad does not have, or a secret.
    differed = [field for field, value in wanted.items() if field in found and found[field] != value]
    blindly = "signature_token" in wanted and _is_hidden(found.get("signature_token"))
    if blindly:
        differed = [field for field in differed if field != "signature_token"]
    changed = [*differed, "signature_token"] if blindly else differed
    if changed and not dry_run:
        client.update_object(kind, found["id"], {field: wanted[field] for field in changed})
    step = Step(
        kind=kind,
        name=name,
        outcome=Outcome.UPDATED if differed else Outcome.UNCHANGED,
        differed=tuple(differed),
        token_set_blindly=blindly,
    )
    return found["id"], step


def _remove(
    client: ZammadClient, kind: Kind, name: str, found: dict[str, Any] | None, *, dry_run: bool
) -> Step:
    removed = found is not None and (dry_run or client.delete_object(kind, found["id"]))
    return Step(kind=kind, name=name, outcome=Outcome.REMOVED if removed else Outcome.ABSENT)


def _is_hidden(shown: object) -> bool:
    return shown is None or (isinstance(shown, str) and set(shown) == {"*"})


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
