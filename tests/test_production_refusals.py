"""Several processes of the production server refuse concurrently, and every refusal is counted."""

from __future__ import annotations

import json
import os
import signal
import uuid
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import pytest
from django.db.models import Sum
from django.utils import timezone

from tests.production import KINDS, Production, at_once, production_server, wait_for
from tests.server import Answer, Server
from zammad.models import RefusedDelivery, WebhookDelivery

BODY = b'{"ticket": {"customer": {"id": 57}}}'
WRONG = "sha1=" + "0" * 40
ROUNDS, AT_ONCE = 15, 20


def refuse(server: Server, headers: Mapping[str, str] | None = None) -> tuple[str, Answer]:
    """Send a delivery on a connection of its own, and return its delivery ID with the refusal."""
    delivery_id = str(uuid.uuid4())
    sent = {"X-Hub-Signature": WRONG, "X-Zammad-Delivery": delivery_id, **(headers or {})}
    return delivery_id, server.request("POST", "/webhooks/zammad/", BODY, sent)


def counted() -> int:
    return RefusedDelivery.objects.aggregate(sum=Sum("count"))["sum"] or 0


def test_of_a_storm_over_several_processes_every_refusal_is_counted(production: Production) -> None:
    began_at = timezone.now()

    answers = [
        answer for _ in range(ROUNDS) for answer in at_once([partial(refuse, production.server)] * AT_ONCE)
    ]
    malformed = [refuse(production.server, {"X-Hub-Signature": "x"}) for _ in range(3)]

    assert {(answer.status, answer.body) for _, answer in answers} == {(403, b"signature wrong\n")}
    wait_for(lambda: counted() >= ROUNDS * AT_ONCE + len(malformed))
    by_reason = RefusedDelivery.objects.values_list("reason").annotate(sum=Sum("count")).order_by("reason")
    assert list(by_reason) == [("SIGNATURE_MALFORMED", 3), ("SIGNATURE_WRONG", ROUNDS * AT_ONCE)]
    last = RefusedDelivery.objects.filter(reason="SIGNATURE_WRONG").latest("last_at")
    assert began_at <= last.last_at <= timezone.now()
    assert str(last.last_delivery_id) in {delivery_id for delivery_id, _ in answers[-AT_ONCE:]}
    assert not WebhookDelivery.objects.exists()
    # and each has its line in the log
    told = [json.loads(line) for line in production.server.log.read_text().splitlines() if line[:1] == "{"]
    known = {line.get("delivery_id") for line in told if line.get("answer") == "signature wrong"}
    assert {delivery_id for delivery_id, _ in answers} <= known


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_stops_writes_what_it_counted(
    kind: str, tmp_path: Path, server_databases: None
) -> None:
    with production_server(kind, tmp_path) as server:
        at_once([partial(refuse, server)] * AT_ONCE)
        assert server.process is not None
        os.kill(server.process.pid, signal.SIGTERM)
        server.process.wait(timeout=30)

        assert counted() == AT_ONCE
        assert server.complaints() == []
