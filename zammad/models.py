"""What Zammad has told us: its users, and the deliveries that brought them."""

import datetime
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from functools import cache
from typing import Any, ClassVar, TypeVar

from allauth.account.models import EmailAddress
from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import connections, models
from django.utils import timezone
from django.utils.translation import gettext, gettext_noop
from django.utils.translation import gettext_lazy as _

from zammad.addresses import spellings
from zammad.webhooks import MAX_ZAMMAD_ID, MIN_ZAMMAD_ID, TEXT_LENGTHS, UserData

M = TypeVar("M", bound=models.Model)


# What a newer version replaces: neither the link nor what staff decided.
UPDATED = [*(field.name for field in fields(UserData)), "synced_at"]
IF_NEWER: dict[str, Any] = {
    "conflict": "zammad_id",
    "update": dict.fromkeys(UPDATED, "{new}"),
    "where": "WHERE excluded.updated_at > {table}.updated_at",
}

# A receipt tells of the newest attempt, except that what was applied once stays APPLIED.
NEWEST = "CASE WHEN {table}.outcome = 'APPLIED' AND excluded.outcome <> 'APPLIED' THEN {old} ELSE {new} END"
TOLD = ["trigger", "body_digest", "outcome", "detail", "zammad_user"]
COUNTING: dict[str, Any] = {
    "conflict": "delivery_id",
    "update": {"attempts": "{old} + 1", **dict.fromkeys(TOLD, NEWEST)},
}


class UpsertQuerySet(models.QuerySet[M]):
    def upsert_sql(
        self, names: Iterable[str], *, source: str, conflict: str, update: Mapping[str, str], where: str = ""
    ) -> str:
        """Write the statement that inserts what a source yields, or updates the rows it meets.

        Django's own upsert takes no condition and no expression. In the SQL given, `{old}` and
        `{new}` are the column's values and `{table}` is the row met.
        """
        quote = connections[self.db].ops.quote_name
        columns = {field.name: quote(str(field.column)) for field in self.model._meta.concrete_fields}
        table = quote(self.model._meta.db_table)
        assignments = [
            f"{columns[name]} = "
            + sql.format(table=table, old=f"{table}.{columns[name]}", new=f"excluded.{columns[name]}")
            for name, sql in update.items()
        ]
        # Names come from the models, values go as parameters.
        return (
            f"INSERT INTO {table} ({', '.join(columns[name] for name in names)}) {source} "
            f"ON CONFLICT ({columns[conflict]}) DO UPDATE SET {', '.join(assignments)} "
            f"{where.format(table=table)} RETURNING {', '.join(columns.values())}"
        )

    def _upsert(self, rows: Sequence[Mapping[str, object]], **how: Any) -> list[M]:
        """Insert rows or update those they meet, in one statement, and answer the rows written."""
        self._for_write = True
        connection = connections[self.db]
        fields = {field.name: field for field in self.model._meta.concrete_fields}
        places = f"({', '.join(['%s'] * len(rows[0]))})"
        parameters = [
            fields[name].get_db_prep_save(value, connection)
            for values in rows
            for name, value in values.items()
        ]
        source = f"VALUES {', '.join([places] * len(rows))}"
        return list(self.raw(self.upsert_sql(rows[0], source=source, **how), parameters))


class ZammadUserQuerySet(UpsertQuerySet["ZammadUser"]):
    def waiting(self) -> "ZammadUserQuerySet":
        """Narrow to those who may still be linked to somebody."""
        return self.filter(user=None, auto_link=True)

    def waiting_for(self, addresses: Iterable[str]) -> "ZammadUserQuerySet":
        """Narrow to those who may still be linked to the owner of these addresses, however spelt."""
        spelt = set[str]().union(*map(spellings, addresses))
        return self.waiting().filter(email__in=spelt)

    def upsert(self, data: UserData, *, now: datetime.datetime) -> "ZammadUser | None":
        """Store a user unless a version as new is stored already: then answer None.

        Either way PostgreSQL keeps the row locked until the transaction ends.
        """
        rows = self.upsert_all([data], now=now)
        return rows[0] if rows else None

    def upsert_all(self, users: Sequence[UserData], *, now: datetime.datetime) -> "list[ZammadUser]":
        """Store users in one statement, and answer those of whom no version as new was stored.

        Each id stands among them once: PostgreSQL writes no row twice in one statement.
        """
        if not users:
            return []
        rows = [{**data.row(), "synced_at": now, "auto_link": True} for data in users]
        return self._upsert(rows, **IF_NEWER)


class ZammadUser(models.Model):
    """A user of Zammad, as its newest payload described them, and the person that is here."""

    zammad_id = models.PositiveIntegerField(
        _("Zammad ID"),
        unique=True,
        validators=[MinValueValidator(MIN_ZAMMAD_ID), MaxValueValidator(MAX_ZAMMAD_ID)],
    )
    email = models.CharField(_("email"), max_length=TEXT_LENGTHS["email"], blank=True, db_index=True)
    login = models.CharField(_("login"), max_length=TEXT_LENGTHS["login"], blank=True)
    firstname = models.CharField(_("firstname"), max_length=TEXT_LENGTHS["firstname"], blank=True)
    lastname = models.CharField(_("lastname"), max_length=TEXT_LENGTHS["lastname"], blank=True)
    phone = models.CharField(_("phone"), max_length=TEXT_LENGTHS["phone"], blank=True)
    mobile = models.CharField(_("mobile"), max_length=TEXT_LENGTHS["mobile"], blank=True)
    organization = models.CharField(_("organization"), max_length=TEXT_LENGTHS["organization"], blank=True)
    active = models.BooleanField(_("active"), default=True)
    vip = models.BooleanField(_("VIP"), default=False)
    updated_at = models.DateTimeField(_("updated at"), help_text=_("When Zammad last changed this user."))
    synced_at = models.DateTimeField(
        _("synced at"), default=timezone.now, help_text=_("When we last took a newer version.")
    )
    user = models.OneToOneField(
        settings.AUTH_USER_MODEL,
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="zammad_user",
        verbose_name=_("user"),
        help_text=_("The account here that has the same address. Grants nothing."),
    )
    auto_link = models.BooleanField(
        _("auto link"),
        default=True,
        help_text=_("Whether an equal address links this user by itself. Off once staff unlinked them."),
    )

    objects = ZammadUserQuerySet.as_manager()

    class Meta:
        verbose_name = _("Zammad user")
        verbose_name_plural = _("Zammad users")
        constraints: ClassVar = [
            models.CheckConstraint(
                name="zammad_user_id_in_range",
                condition=models.Q(zammad_id__gte=MIN_ZAMMAD_ID, zammad_id__lte=MAX_ZAMMAD_ID),
            ),
        ]

    def __str__(self) -> str:
        name = f"{self.firstname} {self.lastname}".strip()
        return f"{name or self.email or self.login} (Zammad {self.zammad_id})"

    @property
    def page(self) -> str:
        """The address of this user's page in Zammad."""
        return f"{settings.ZAMMAD_URL}/#user/profile/{self.zammad_id}"


class WebhookDeliveryQuerySet(UpsertQuerySet["WebhookDelivery"]):
    def received_until(self, moment: datetime.datetime) -> "WebhookDeliveryQuerySet":
        return self.filter(received_at__lte=moment)

    def record(self, delivery: "WebhookDelivery") -> "WebhookDelivery":
        """Write a receipt, or count one more attempt of a delivery that has one."""
        return self._upsert([delivery.row()], **COUNTING)[0]

    def record_with_customer(self, delivery: "WebhookDelivery", data: UserData) -> "WebhookDelivery | None":
        """Store a customer and the receipt of their delivery in one statement, or nothing at all.

        None where that takes a transaction: a person may be to be linked, or a version as new was
        stored at this very moment. SQLite knows no such statement.
        """
        self._for_write = True
        connection = connections[self.db]
        if connection.vendor != "postgresql":
            return None
        parameters = {
            **delivery.row(),
            **data.row(),
            "synced_at": delivery.received_at,
            "auto_link": True,
            "spellings": list(spellings(data.email)),
            "stale": WebhookDelivery.AS_NEW_IS_STORED,
        }
        with connection.cursor() as cursor:
            cursor.execute(_record_with_customer_sql(), parameters)
            row = cursor.fetchone()
        return self.model.from_db(self.db, [], row) if row else None


class WebhookDelivery(models.Model):
    """The receipt of one authentic delivery. The body itself is never kept."""

    class Outcome(models.TextChoices):
        APPLIED = "APPLIED", _("Applied")
        STALE = "STALE", _("Stale")
        IGNORED = "IGNORED", _("Ignored")

    AS_NEW_IS_STORED = gettext_noop("as new a version is stored")  # the detail of a stale one

    # Null when the header was missing or odd: each such delivery is a receipt of its own.
    delivery_id = models.UUIDField(_("delivery ID"), null=True, blank=True, unique=True)
    trigger = models.CharField(_("trigger"), max_length=250, blank=True)
    body_digest = models.CharField(
        _("body digest"), max_length=64, help_text=_("SHA-256 of the body, in hexadecimal.")
    )
    received_at = models.DateTimeField(_("received at"), default=timezone.now)
    attempts = models.PositiveIntegerField(_("attempts"), default=1)
    outcome = models.CharField(_("outcome"), max_length=7, choices=Outcome)
    detail = models.CharField(_("detail"), max_length=200, blank=True)
    zammad_user = models.ForeignKey(
        ZammadUser,
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="deliveries",
        verbose_name=_("Zammad user"),
    )

    objects = WebhookDeliveryQuerySet.as_manager()

    class Meta:
        verbose_name = _("webhook delivery")
        verbose_name_plural = _("webhook deliveries")
        indexes: ClassVar = [
            models.Index(name="delivery_received_at", fields=["received_at"]),
            models.Index(name="delivery_outcome_received_at", fields=["outcome", "received_at"]),
        ]
        constraints: ClassVar = [
            models.CheckConstraint(
                name="delivery_outcome_known",
                condition=models.Q(outcome__in=["APPLIED", "STALE", "IGNORED"]),
            ),
        ]

    def __str__(self) -> str:
        named = self.delivery_id or gettext("without delivery ID")
        return f"{self.outcome} {named}"

    def row(self) -> dict[str, object]:
        """List the fields to write, with their values."""
        return {
            field.name: getattr(self, field.attname)
            for field in self._meta.concrete_fields
            if not field.primary_key
        }


@cache
def _record_with_customer_sql() -> str:
    """Write the statement: the customer first, then the receipt, as locks are taken everywhere.

    It leaves the customer alone if a person might be linked. A stale payload does not change the
    address that decides on that, so one with another address than is stored is left alone, too.
    """
    person = get_user_model()._meta
    customer = {name: f"%({name})s" for name in [*UPDATED, "auto_link"]}
    receipt = {name: f"%({name})s" for name in WebhookDelivery().row()}
    receipt |= {"outcome": "outcome", "detail": "detail", "zammad_user": "id"}
    # Names come from the models, values go as parameters.
    new_customer = f"SELECT {', '.join(customer.values())} WHERE NOT EXISTS (SELECT FROM linkable)"  # noqa: S608
    new_receipt = f"SELECT {', '.join(receipt.values())} FROM customer"  # noqa: S608
    return f"""
        WITH linkable AS (
            SELECT FROM {EmailAddress._meta.db_table} AS address
            JOIN {person.db_table} AS person ON person.{person.pk.column} = address.user_id
            WHERE address.email = ANY(%(spellings)s) AND address.verified AND person.is_active
            AND NOT EXISTS (SELECT FROM zammad_zammaduser WHERE user_id = address.user_id)
        ), newer AS (
            {ZammadUser.objects.upsert_sql(customer, source=new_customer, **IF_NEWER)}
        ), customer AS (
            SELECT id, 'APPLIED' AS outcome, '' AS detail FROM newer
            UNION ALL
            SELECT id, 'STALE', %(stale)s FROM zammad_zammaduser
            WHERE zammad_id = %(zammad_id)s
            AND NOT EXISTS (SELECT FROM newer) AND NOT EXISTS (SELECT FROM linkable)
            AND (user_id IS NOT NULL OR NOT auto_link OR email = %(email)s)
        )
        {WebhookDelivery.objects.upsert_sql(receipt, source=new_receipt, **COUNTING)}
    """  # noqa: S608
