"""The data from Zammad: its users and their links, and the receipts of its deliveries."""

import datetime
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeVar

from django.conf import settings
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import connections, models
from django.db.models.functions import Now
from django.utils import timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from zammad.webhooks import MAX_ZAMMAD_ID, MIN_ZAMMAD_ID, TEXT_LENGTHS, UserData

M = TypeVar("M", bound=models.Model)

# A newer version replaces Zammad's data, but neither the link nor decisions of staff.
IF_NEWER: dict[str, Any] = {
    "conflict": ["zammad_id"],
    "update": dict.fromkeys([*UserData._fields, "synced_at"], "{new}"),
    "where": "WHERE excluded.updated_at > {table}.updated_at",
}

# A receipt describes the newest attempt, but once APPLIED it stays so.
NEWEST = "CASE WHEN {table}.outcome = 'APPLIED' AND excluded.outcome <> 'APPLIED' THEN {old} ELSE {new} END"
DESCRIPTION = ["trigger", "body_digest", "outcome", "detail", "zammad_user"]
COUNTING: dict[str, Any] = {
    "conflict": ["delivery_id"],
    "update": {"attempts": "{old} + 1", "last_received_at": "{new}", **dict.fromkeys(DESCRIPTION, NEWEST)},
}

# Several processes add to one row, not always in the order of their refusals.
ADDING: dict[str, Any] = {
    "conflict": ["hour", "reason"],
    "update": {
        "count": "{old} + {new}",
        "last_at": "CASE WHEN excluded.last_at >= {table}.last_at THEN {new} ELSE {old} END",
        "last_delivery_id": (
            "CASE WHEN excluded.last_at >= {table}.last_at THEN COALESCE({new}, {old}) "
            "ELSE COALESCE({old}, {new}) END"
        ),
    },
}


class UpsertQuerySet(models.QuerySet[M]):
    def _upsert(
        self,
        rows: Sequence[Mapping[str, object]],
        *,
        conflict: Sequence[str],
        update: Mapping[str, str],
        where: str = "",
    ) -> list[M]:
        """Insert rows or update existing ones in one statement, and return the rows written.

        Django's own upsert takes no condition and no expression. In the given SQL, `{old}` and
        `{new}` are the column's values and `{table}` is the existing row.
        """
        self._for_write = True
        connection = connections[self.db]
        quote = connection.ops.quote_name
        fields = {field.name: field for field in self.model._meta.concrete_fields}
        columns = {name: quote(str(field.column)) for name, field in fields.items()}
        table = quote(self.model._meta.db_table)
        assignments = [
            f"{columns[name]} = "
            + sql.format(table=table, old=f"{table}.{columns[name]}", new=f"excluded.{columns[name]}")
            for name, sql in update.items()
        ]
        places = f"({', '.join(['%s'] * len(rows[0]))})"
        parameters = [
            fields[name].get_db_prep_save(value, connection) for row in rows for name, value in row.items()
        ]
        # Names come from the models, values are parameters.
        sql = (
            f"INSERT INTO {table} ({', '.join(columns[name] for name in rows[0])}) "  # noqa: S608
            f"VALUES {', '.join([places] * len(rows))} "
            f"ON CONFLICT ({', '.join(columns[name] for name in conflict)}) "
            f"DO UPDATE SET {', '.join(assignments)} "
            f"{where.format(table=table)} RETURNING {', '.join(columns.values())}"
        )
        return list(self.raw(sql, parameters))


class ZammadUserQuerySet(UpsertQuerySet["ZammadUser"]):
    def upsert(self, users: Sequence[UserData], *, now: datetime.datetime) -> "list[ZammadUser]":
        """Upsert users unless an equally new version is stored, and return the rows written.

        Each id must occur once: PostgreSQL writes no row twice in one statement.
        """
        if not users:
            return []
        rows = [{**data._asdict(), "synced_at": now, "auto_link": True, "link_kind": ""} for data in users]
        return self._upsert(rows, **IF_NEWER)


class ZammadUser(models.Model):
    """A user of Zammad, as the newest payload describes them, and the linked person."""

    class LinkKind(models.TextChoices):
        HAND = "HAND", _("By hand")
        AUTOMATIC = "AUTOMATIC", _("Automatic")

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
        _("synced at"), default=timezone.now, help_text=_("When we last stored a newer version.")
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
    link_kind = models.CharField(
        _("link kind"),
        max_length=9,
        choices=LinkKind,
        blank=True,
        default="",
        db_default="",
        help_text=_("By hand: only staff create and change it. Automatic: it follows the address."),
    )
    auto_link = models.BooleanField(
        _("auto link"),
        default=True,
        help_text=_("Whether an equal address links this user automatically. Off once staff unlinked them."),
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
            models.CheckConstraint(
                name="zammad_user_link_has_a_kind",
                condition=models.Q(user=None, link_kind="")
                | models.Q(user__isnull=False, link_kind__in=["HAND", "AUTOMATIC"]),
            ),
        ]

    def __str__(self) -> str:
        name = f"{self.firstname} {self.lastname}".strip()
        return f"{name or self.email or self.login} (Zammad {self.zammad_id})"

    @property
    def page(self) -> str:
        """The URL of this user in Zammad."""
        return f"{settings.ZAMMAD_URL}/#user/profile/{self.zammad_id}"


class WebhookDeliveryQuerySet(UpsertQuerySet["WebhookDelivery"]):
    def received_until(self, moment: datetime.datetime) -> "WebhookDeliveryQuerySet":
        return self.filter(received_at__lte=moment)

    def last_received_at(self) -> datetime.datetime | None:
        """Return when the latest authentic delivery arrived, if any."""
        return self.order_by("-last_received_at").values_list("last_received_at", flat=True).first()

    def record(self, delivery: "WebhookDelivery") -> "WebhookDelivery":
        """Write a receipt, or count another attempt of the same delivery."""
        fields = [field for field in delivery._meta.concrete_fields if not field.primary_key]
        row = {field.name: getattr(delivery, field.attname) for field in fields}
        return self._upsert([row], **COUNTING)[0]


class DeliveryOutcome(models.TextChoices):
    APPLIED = "APPLIED", _("Applied")
    UNCHANGED = "UNCHANGED", _("Unchanged")
    STALE = "STALE", _("Stale")
    IGNORED = "IGNORED", _("Ignored")


class WebhookDelivery(models.Model):
    """The receipt of an authentic delivery. The body itself is not stored."""

    Outcome = DeliveryOutcome

    # Null if the header was missing or malformed: then each attempt gets its own receipt.
    delivery_id = models.UUIDField(_("delivery ID"), null=True, blank=True, unique=True)
    trigger = models.CharField(_("trigger"), max_length=250, blank=True)
    body_digest = models.CharField(
        _("body digest"), max_length=64, help_text=_("SHA-256 of the body, in hexadecimal.")
    )
    received_at = models.DateTimeField(_("received at"), default=timezone.now)
    last_received_at = models.DateTimeField(
        _("last received at"),
        default=timezone.now,
        db_default=Now(),
        help_text=_("When the newest attempt arrived."),
    )
    attempts = models.PositiveIntegerField(_("attempts"), default=1)
    outcome = models.CharField(_("outcome"), max_length=9, choices=Outcome)
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
            models.Index(name="delivery_last_received_at", fields=["last_received_at"]),
            models.Index(name="delivery_outcome_received_at", fields=["outcome", "received_at"]),
        ]
        constraints: ClassVar = [
            models.CheckConstraint(
                name="delivery_outcome_known", condition=models.Q(outcome__in=DeliveryOutcome.values)
            ),
        ]

    def __str__(self) -> str:
        name = self.delivery_id or gettext("without delivery ID")
        return f"{self.outcome} {name}"


class RefusedDeliveryQuerySet(UpsertQuerySet["RefusedDelivery"]):
    def refused_until(self, moment: datetime.datetime) -> "RefusedDeliveryQuerySet":
        return self.filter(last_at__lte=moment)

    def add(self, rows: Sequence[Mapping[str, object]]) -> None:
        """Add to the counts in one statement; each pair of hour and reason must occur once."""
        # Sorted, so that two processes never wait for each other.
        self._upsert(sorted(rows, key=lambda row: (row["hour"], row["reason"])), **ADDING)


class RefusalReason(models.TextChoices):
    METHOD_WRONG = "METHOD_WRONG", _("Not sent by POST")
    LENGTH_INVALID = "LENGTH_INVALID", _("Length missing or unreadable")
    BODY_TOO_LARGE = "BODY_TOO_LARGE", _("Body too large")
    BODY_TOO_SLOW = "BODY_TOO_SLOW", _("Body too slow")
    BODY_INCOMPLETE = "BODY_INCOMPLETE", _("Body incomplete")
    TOO_BUSY = "TOO_BUSY", _("Too many bodies at once")
    NO_SECRET = "NO_SECRET", _("No secret is configured here")
    SIGNATURE_MISSING = "SIGNATURE_MISSING", _("Signature missing")
    SIGNATURE_MALFORMED = "SIGNATURE_MALFORMED", _("Signature malformed")
    SIGNATURE_WRONG = "SIGNATURE_WRONG", _("Signature wrong")
    FAILED = "FAILED", _("Could not be stored here")


class RefusedDelivery(models.Model):
    """The count of refusals for one reason in one hour. Nothing else of them is stored."""

    Reason = RefusalReason

    hour = models.DateTimeField(_("hour"), help_text=_("When the hour began."))
    reason = models.CharField(_("reason"), max_length=20, choices=Reason)
    # Too wide to overflow in any storm.
    count = models.PositiveBigIntegerField(_("count"))
    last_at = models.DateTimeField(_("last at"))
    last_delivery_id = models.UUIDField(
        _("last delivery ID"),
        null=True,
        blank=True,
        help_text=_("The latest ID in the form that Zammad uses. Anybody may have made it up."),
    )

    objects = RefusedDeliveryQuerySet.as_manager()

    class Meta:
        verbose_name = _("refused delivery")
        verbose_name_plural = _("refused deliveries")
        indexes: ClassVar = [models.Index(name="refused_last_delivery_id", fields=["last_delivery_id"])]
        constraints: ClassVar = [
            models.UniqueConstraint(name="refused_once_per_hour_and_reason", fields=["hour", "reason"]),
            models.CheckConstraint(name="refused_count_positive", condition=models.Q(count__gte=1)),
            models.CheckConstraint(
                name="refused_reason_known", condition=models.Q(reason__in=RefusalReason.values)
            ),
        ]

    def __str__(self) -> str:
        return f"{self.reason} {self.hour:%Y-%m-%d %H:%M}"


class LinkReason(models.TextChoices):
    MATCHES = "MATCHES", _("This person has verified the address.")
    NOBODY = "NOBODY", _("No active person has verified the address.")
    SEVERAL_PEOPLE = "SEVERAL_PEOPLE", _("Several people have verified the address.")
    SEVERAL_ZAMMAD_USERS = (
        "SEVERAL_ZAMMAD_USERS",
        _("Several active Zammad users have an address of the person."),
    )
    INACTIVE = "INACTIVE", _("The user is not active in Zammad.")
    PERSON_DELETED = "PERSON_DELETED", _("The person was deleted.")
    BY_HAND = "BY_HAND", _("Staff linked them.")
    UNLINKED = "UNLINKED", _("Staff unlinked them.")


class LinkChange(models.Model):
    """A change of a Zammad user's link, in an append-only history."""

    Why = LinkReason

    zammad_user = models.ForeignKey(
        ZammadUser, on_delete=models.CASCADE, related_name="link_changes", verbose_name=_("Zammad user")
    )
    from_user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )
    to_user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )
    why = models.CharField(max_length=20, choices=Why)
    actor = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )
    delivery = models.ForeignKey(
        WebhookDelivery, on_delete=models.SET_NULL, null=True, blank=True, related_name="link_changes"
    )
    at = models.DateTimeField(default=timezone.now)

    class Meta:
        verbose_name = _("link change")
        verbose_name_plural = _("link changes")
        constraints: ClassVar = [
            models.CheckConstraint(
                name="link_change_reason_known", condition=models.Q(why__in=LinkReason.values)
            ),
        ]

    def __str__(self) -> str:
        return f"{self.from_user_id or '-'} > {self.to_user_id or '-'}: {self.get_why_display()}"
