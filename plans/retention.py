"""Delete what is no longer needed: receipts, refusals, addresses in old invites, abandoned sign-ups."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import TYPE_CHECKING

from allauth.account.models import EmailAddress
from django.apps import apps
from django.contrib.admin.models import ADDITION, LogEntry
from django.contrib.auth import get_user_model
from django.contrib.sessions.base_session import AbstractBaseSession
from django.db import transaction
from django.db.models import CharField, Exists, ForeignObjectRel, OuterRef
from django.db.models.functions import Cast
from django.utils import timezone

from plans.models import FamilyPlanInvite
from plans.quotas import Place
from zammad.models import RefusedDelivery, WebhookDelivery
from zammad.services import delete_deliveries, delete_refusals

if TYPE_CHECKING:
    from django.contrib.auth.models import User
    from django.db.models import QuerySet

ABANDONED_AFTER = datetime.timedelta(days=7)
BATCH = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """How many rows were deleted or blanked."""

    deliveries: int
    refusals: int
    addresses: int
    accounts: int


def prune(*, older_than: datetime.timedelta, dry_run: bool = False) -> Pruned:
    """Delete old receipts, refusals and abandoned accounts, and blank addresses in old invites.

    The invites themselves stay: memberships refer to them. An invite that is reissued after its
    address was blanked is for anyone with the new link.
    """
    until = timezone.now() - older_than
    addressed = FamilyPlanInvite.objects.ended_by(until).exclude(email="")
    if dry_run:
        return Pruned(
            deliveries=WebhookDelivery.objects.received_until(until).count(),
            refusals=RefusedDelivery.objects.refused_until(until).count(),
            addresses=addressed.count(),
            accounts=abandoned_accounts(until=timezone.now() - ABANDONED_AFTER).count(),
        )
    # One statement: it checks the row again if an invite is reissued concurrently.
    addresses = addressed.update(email="")
    for kind in apps.get_models():
        if issubclass(kind, Place):
            kind.objects.filter(taken_at__lte=until).delete()  # they no longer count
    return Pruned(
        deliveries=delete_deliveries(until=until),
        refusals=delete_refusals(until=until),
        addresses=addresses,
        accounts=delete_abandoned_accounts(until=timezone.now() - ABANDONED_AFTER),
    )


def abandoned_accounts(*, until: datetime.datetime) -> QuerySet[User]:
    """Select accounts made by sign-up that were never verified, never signed in and hold nothing.

    An account that staff created has an entry in admin's history, and no primary address until its
    user verifies one.
    """
    person = get_user_model()
    addresses = EmailAddress.objects.filter(user=OuterRef("pk"))
    made_in_admin = LogEntry.objects.filter(
        content_type__app_label=person._meta.app_label,
        content_type__model=person._meta.model_name,
        action_flag=ADDITION,
        object_id=Cast(OuterRef("pk"), CharField()),
    )
    accounts = person._default_manager.filter(
        Exists(addresses.filter(primary=True, verified=False)),
        ~Exists(addresses.filter(verified=True)),
        ~Exists(made_in_admin),
        date_joined__lte=until,
        last_login=None,
        is_staff=False,
        is_superuser=False,
    )
    # Any row that refers to a user counts as something they hold, also in models added later.
    for relation in person._meta.get_fields(include_hidden=True):
        if isinstance(relation, ForeignObjectRel) and not relation.many_to_many:
            holding = relation.related_model
            if holding is not EmailAddress and not issubclass(holding, AbstractBaseSession):
                held = holding._base_manager.filter(**{relation.field.name: OuterRef("pk")})
                accounts = accounts.filter(~Exists(held))
    return accounts


def delete_abandoned_accounts(*, until: datetime.datetime) -> int:
    """Delete abandoned accounts in batches, and return how many."""
    deleted = 0
    while True:
        with transaction.atomic():
            chosen = list(abandoned_accounts(until=until).order_by("pk").values_list("pk", flat=True)[:BATCH])
            # A concurrent verification waits for us, or we for it: check again under the lock.
            list(EmailAddress.objects.select_for_update().filter(user__in=chosen).order_by("pk"))
            gone = list(abandoned_accounts(until=until).filter(pk__in=chosen).values_list("pk", flat=True))
            get_user_model()._default_manager.filter(pk__in=gone).delete()
        deleted += len(gone)
        if len(chosen) < BATCH:
            return deleted
