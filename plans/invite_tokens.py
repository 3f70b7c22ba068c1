"""Invite tokens and the Zammad tokens behind them: derive them, and delete those no longer needed."""

from __future__ import annotations

import base64
import datetime
import logging
import re
import uuid
from dataclasses import dataclass

from django.conf import settings
from django.utils import timezone
from django.utils.crypto import salted_hmac

from plans.models import DAY, FamilyPlanInvite
from plans.outside import TooManyWaiting, outside_world
from plans.rules import InviteTokenUnavailable
from zammad.client import ZammadError, get_client, get_patient_client

logger = logging.getLogger(__name__)

# Zammad issues the token before the invite is written: a young token may belong to such an invite.
GRACE = datetime.timedelta(hours=1)


def fetch_invite_token(*, expires_at: datetime.datetime) -> tuple[str, str]:
    """Create a token in Zammad, and return its name and the invite token derived from it.

    The Zammad token would authenticate as its owner in Zammad, so it never leaves this function;
    the derivation cannot be reversed.

    :raises InviteTokenUnavailable:
    """
    name = f"{settings.ZAMMAD_TOKEN_PREFIX}-{uuid.uuid4()}"
    # Zammad's token expires at the start of that day, in a time zone of Zammad's choice: two days
    # later is after our own expiry in every zone.
    expires_on = expires_at.date() + 2 * DAY
    try:
        with outside_world():
            zammad_token = get_client().create_access_token(name=name, expires_on=expires_on)
    except (ZammadError, TooManyWaiting) as error:
        logger.warning("Zammad gave no invite token: %s", error)
        raise InviteTokenUnavailable from error
    mac = salted_hmac("plans.invite", f"{name}:{zammad_token}", algorithm="sha256")
    return name, base64.urlsafe_b64encode(mac.digest()).rstrip(b"=").decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciliation:
    """How many of our account's tokens in Zammad were deleted, and how many stay for which reason."""

    needed: int
    young: int
    deleted: int
    foreign: int


def reconcile_invites(*, dry_run: bool = False) -> Reconciliation:
    """Delete the tokens in Zammad that we created and that no open invite needs any longer.

    Tokens with other names are never touched.

    :raises ZammadError:
    """
    now = timezone.now()
    ours = re.compile(re.escape(settings.ZAMMAD_TOKEN_PREFIX) + r"-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
    # Read before the list of tokens, so that it holds the name of every invite written until then.
    open_names = set(
        FamilyPlanInvite.objects.open(now=now).values_list("zammad_token_name", flat=True).iterator()
    )
    client = get_patient_client()
    needed = young = deleted = foreign = 0
    for token in client.list_access_tokens():
        if not ours.fullmatch(token.name):
            foreign += 1
        elif token.name in open_names:
            needed += 1
        elif token.created_at > now - GRACE:
            young += 1
        else:
            # One that somebody else has deleted counts, too.
            if not dry_run:
                client.delete_access_token(token.id)
            deleted += 1
    return Reconciliation(needed=needed, young=young, deleted=deleted, foreign=foreign)
