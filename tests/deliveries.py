"""Deliveries as Zammad sends them: signed without our own code, and applied without the endpoint."""

import hashlib
import hmac
from datetime import datetime

from zammad.models import WebhookDelivery
from zammad.services import apply_delivery
from zammad.webhooks import Delivery

SECRET = "the secret of these tests"


def signed(body: bytes, secret: str = SECRET) -> str:
    return "sha1=" + hmac.new(secret.encode(), body, hashlib.sha1).hexdigest()


def read(
    body: bytes, *, delivery_id: str | None = None, trigger: str | None = None, now: datetime
) -> Delivery:
    """Read a body with these headers; None leaves one out."""
    headers = {
        "X-Hub-Signature": signed(body),
        "X-Zammad-Delivery": delivery_id,
        "X-Zammad-Trigger": trigger,
    }
    sent = {name: value for name, value in headers.items() if value is not None}
    return Delivery.from_http(sent, body, secrets=[SECRET], now=now)


def deliver_body(
    body: bytes, *, delivery_id: str | None = None, trigger: str | None = None, now: datetime
) -> WebhookDelivery:
    """Apply a body that arrives with these headers."""
    return apply_delivery(delivery=read(body, delivery_id=delivery_id, trigger=trigger, now=now), now=now)
