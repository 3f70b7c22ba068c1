"""Forget what nobody needs any more: what the webhook took and refused, and addresses in old invites."""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from django.apps import apps
from django.utils import timezone

from plans.models import FamilyPlanInvite
from plans.quotas import Place
from zammad.models import RefusedDelivery, WebhookDelivery
from zammad.services import delete_deliveries, delete_refusals


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """What was forgotten."""

    deliveries: int
    refusals: int
    addresses: int


def prune(*, older_than: datetime.timedelta, dry_run: bool = False) -> Pruned:
    """Delete old receipts and refusals of deliveries, and blank the addresses in invites that ended long ago.

    The invites themselves stay: through them memberships are explained and ended. One that is
    reissued after its address was forgotten is for whoever has the new link.
    """
    until = timezone.now() - older_than
    addressed = FamilyPlanInvite.objects.ended_by(until).exclude(email="")
    if dry_run:
        deliveries = WebhookDelivery.objects.received_until(until).count()
        refusals = RefusedDelivery.objects.refused_until(until).count()
        return Pruned(deliveries=deliveries, refusals=refusals, addresses=addressed.count())
    # One statement, which looks again at the row of an invite that is being reissued meanwhile.
    addresses = addressed.update(email="")
    for kind in apps.get_models():
        if issubclass(kind, Place):
            kind.objects.filter(taken_at__lte=until).delete()  # nobody's limit counts them any more
    return Pruned(
        deliveries=delete_deliveries(until=until),
        refusals=delete_refusals(until=until),
        addresses=addresses,
    )
