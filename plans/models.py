"""Models of plans: plans, memberships, invites and history, with the rules for one object."""

from __future__ import annotations

import datetime
import hashlib
import unicodedata
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Count, F, OuterRef, Q, Subquery, Value
from django.db.models.functions import Coalesce, Lower
from django.utils import timezone
from django.utils.translation import gettext, pgettext_lazy
from django.utils.translation import gettext_lazy as _

from plans.links import reads_as_link
from plans.quotas import Place, mailbox_of
from zammad.addresses import spellings

if TYPE_CHECKING:
    from django.db.models.expressions import CombinedExpression

    from zammad.models import ZammadUser

DAY = datetime.timedelta(days=1)
MAX_NAME_LENGTH = 80
MIN_USER_LIMIT = 1
MAX_USER_LIMIT = 100
INVITATION_MAILS_PER_DAY = 3  # to one address
# They change the order in which a name is read.
BIDI_CONTROLS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
# Unicode counts them as letters or symbols, but they look blank.
BLANK_LETTERS = frozenset("\u115f\u1160\u2800\u3164\uffa0")


class Named(Protocol):
    """A person's name and address: a user, or a row read from one."""

    @property
    def first_name(self) -> str: ...
    @property
    def last_name(self) -> str: ...
    @property
    def email(self) -> str: ...


def display_name(person: Named) -> str:
    """Return the name that others see: the full name, or the words of the address before the @."""
    return f"{person.first_name} {person.last_name}".strip() or words_of(person.email.partition("@")[0])


def words_of(local_part: str) -> str:
    """Split a local part at all but letters and digits: it may have been chosen to read as a link."""
    if local_part.isalnum():
        return local_part
    words = "".join(char if unicodedata.category(char)[0] in "LMN" else " " for char in local_part)
    return " ".join(words.split()) or local_part


def digest_of(token: str) -> str:
    """Return the digest of an invite token that the database stores; any string has one."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def is_storable(text: str) -> bool:
    """Return whether databases can store a text: PostgreSQL takes no NUL, and none takes a lone surrogate."""
    return not any(char == "\0" or "\ud800" <= char <= "\udfff" for char in text)


def validate_plan_name(name: str) -> None:
    """Refuse a name that is invisible, reads differently than it is written, or looks like a link.

    :raises ValidationError:
    """
    if any(unicodedata.category(char) in {"Cc", "Cs", "Zl", "Zp"} or char in BIDI_CONTROLS for char in name):
        raise ValidationError(_("A plan's name must be one line without control characters."))
    if not any(unicodedata.category(char)[0] in "LNPS" and char not in BLANK_LETTERS for char in name):
        raise ValidationError(_("A plan's name must contain something to read."))
    if reads_as_link(name):
        raise ValidationError(
            _("A plan's name must not contain a link. Put a space after each dot, colon and @ in it.")
        )


def count_of(rows: models.QuerySet[Any], *, by: str = "family_plan") -> Coalesce:
    """Count rows that share the value of a column."""
    counted = rows.order_by().values(by).annotate(count=Count("pk")).values("count")
    return Coalesce(Subquery(counted), Value(0))


def open_invites(*, now: datetime.datetime, besides: int | None = None) -> FamilyPlanInviteQuerySet:
    """Select the open invites of each plan in the outer query, optionally without one invite."""
    invites = FamilyPlanInvite.objects.open(now=now).filter(family_plan=OuterRef("pk"))
    return invites if besides is None else invites.exclude(pk=besides)


def seats_taken(*, now: datetime.datetime, besides: int | None = None) -> CombinedExpression:
    """Count the members and open invites of each plan, optionally without one invite."""
    members = Membership.objects.filter(family_plan=OuterRef("pk"))
    return count_of(members) + count_of(open_invites(now=now, besides=besides))


class FamilyPlanQuerySet(models.QuerySet["FamilyPlan"]):
    def of_zammad_user(self, zammad_user_id: int) -> FamilyPlanQuerySet:
        """Narrow to the plan of the person linked to this Zammad ID."""
        return self.filter(memberships__user__zammad_user__zammad_id=zammad_user_id)

    def matching(self, *, name: str = "", owner_email: str = "") -> FamilyPlanQuerySet:
        """Narrow to plans whose name contains a text and whose owner has verified an address."""
        # SQLite refuses a long pattern.
        if len(name) > MAX_NAME_LENGTH or not (is_storable(name) and is_storable(owner_email)):
            return self.none()
        plans = self.filter(name__icontains=name) if name else self
        if not owner_email:
            return plans
        owners = Membership.objects.filter(
            role=Membership.Role.OWNER,
            user__emailaddress__email__in=spellings(owner_email),
            user__emailaddress__verified=True,
        )
        return plans.filter(pk__in=owners.values("family_plan"))

    def with_seats(self, *, now: datetime.datetime) -> FamilyPlanQuerySet:
        """Annotate `seats_taken_now`: members and open invites."""
        return self.annotate(seats_taken_now=seats_taken(now=now))  # type: ignore[no-redef]


class FamilyPlan(models.Model):
    """A plan that one owner shares with the people they invite."""

    name = models.CharField(_("name"), max_length=MAX_NAME_LENGTH, validators=[validate_plan_name])
    user_limit = models.PositiveSmallIntegerField(
        _("User limit"),  # admin's history spells it so
        null=True,
        blank=True,
        validators=[MinValueValidator(MIN_USER_LIMIT), MaxValueValidator(MAX_USER_LIMIT)],
        help_text=_("People in this plan, including the owner. Empty: the setting USER_LIMIT."),
    )
    created_at = models.DateTimeField(_("created at"), default=timezone.now, editable=False)
    closed_at = models.DateTimeField(_("closed at"), null=True, blank=True, editable=False)

    seats_taken_now: int  # annotated by with_seats

    objects = FamilyPlanQuerySet.as_manager()

    class Meta:
        verbose_name = _("family plan")
        verbose_name_plural = _("family plans")
        indexes: ClassVar = [
            models.Index(name="open_plans", fields=["id"], condition=Q(closed_at=None)),
            models.Index(name="closed_plans", fields=["id"], condition=Q(closed_at__isnull=False)),
        ]
        constraints: ClassVar = [
            models.CheckConstraint(name="plan_name_not_empty", condition=~Q(name="")),
            models.CheckConstraint(
                name="plan_user_limit_in_range",
                condition=Q(user_limit=None)
                | Q(user_limit__gte=MIN_USER_LIMIT, user_limit__lte=MAX_USER_LIMIT),
            ),
        ]

    def __str__(self) -> str:
        return self.name


class MembershipQuerySet(models.QuerySet["Membership"]):
    def owner_first(self) -> MembershipQuerySet:
        return self.order_by("-role", "pk")  # OWNER sorts after MEMBER


class Membership(models.Model):
    """A person's seat in a plan."""

    class Role(models.TextChoices):
        OWNER = "OWNER", _("Owner")
        MEMBER = "MEMBER", _("Member")

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="membership", verbose_name=_("user")
    )
    family_plan = models.ForeignKey(
        FamilyPlan, on_delete=models.CASCADE, related_name="memberships", verbose_name=_("family plan")
    )
    role = models.CharField(_("role"), max_length=6, choices=Role, default=Role.MEMBER)
    joined_at = models.DateTimeField(_("joined at"), default=timezone.now)

    objects = MembershipQuerySet.as_manager()

    class Meta:
        verbose_name = _("membership")
        verbose_name_plural = _("memberships")
        constraints: ClassVar = [
            models.UniqueConstraint(
                name="one_owner_per_plan", fields=["family_plan"], condition=Q(role="OWNER")
            ),
            models.CheckConstraint(name="membership_role_known", condition=Q(role__in=["OWNER", "MEMBER"])),
        ]

    def __str__(self) -> str:
        return f"{display_name(self.user)} ({self.get_role_display()})"

    @property
    def is_owner(self) -> bool:
        return self.role == self.Role.OWNER

    @property
    def zammad_user(self) -> ZammadUser | None:
        return getattr(self.user, "zammad_user", None)


class FamilyPlanInviteQuerySet(models.QuerySet["FamilyPlanInvite"]):
    def open(self, *, now: datetime.datetime) -> FamilyPlanInviteQuerySet:
        """Narrow to the invites that hold a seat: neither used nor expired."""
        return self.filter(user=None, expires_at__gt=now)

    def ended_by(self, moment: datetime.datetime) -> FamilyPlanInviteQuerySet:
        """Narrow to the invites whose expiry is not after a moment, used ones included."""
        return self.filter(expires_at__lte=moment)

    def with_status(
        self, status: FamilyPlanInvite.Status | None, *, now: datetime.datetime
    ) -> FamilyPlanInviteQuerySet:
        """Narrow to the invites that have a status now; None means all."""
        match status:
            case FamilyPlanInvite.Status.OPEN:
                return self.open(now=now)
            case FamilyPlanInvite.Status.USED:
                return self.exclude(user=None)
            case FamilyPlanInvite.Status.EXPIRED:
                return self.filter(user=None, expires_at__lte=now)
            case _:
                return self.all()


class FamilyPlanInvite(models.Model):
    """A seat held for the bearer of a token, until it is used or expires."""

    class Status(models.TextChoices):
        OPEN = "OPEN", pgettext_lazy("invite", "Open")
        USED = "USED", pgettext_lazy("invite", "Used")
        EXPIRED = "EXPIRED", pgettext_lazy("invite", "Expired")

        @classmethod
        def at(
            cls, now: datetime.datetime, *, user_id: int | None, expires_at: datetime.datetime
        ) -> FamilyPlanInvite.Status:
            """Return the status of an invite at a moment; used wins over expired."""
            if user_id is not None:
                return cls.USED
            return cls.OPEN if expires_at > now else cls.EXPIRED

    class MailStatus(models.TextChoices):
        NONE = "NONE", pgettext_lazy("mail", "None")
        SENT = "SENT", pgettext_lazy("mail", "Sent")
        SKIPPED = "SKIPPED", pgettext_lazy("mail", "Skipped")
        FAILED = "FAILED", pgettext_lazy("mail", "Failed")

    family_plan = models.ForeignKey(
        FamilyPlan, on_delete=models.CASCADE, related_name="invites", verbose_name=_("family plan")
    )
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="+",
        verbose_name=_("created by"),
    )
    email = models.EmailField(
        _("email"),
        blank=True,
        db_index=True,
        help_text=_("The only address that may accept. Empty: anyone with the link."),
    )
    # The token itself is never stored: a copy of the database opens no invite.
    token_digest = models.CharField(max_length=64, unique=True, editable=False)
    zammad_token_name = models.CharField(_("Zammad token name"), max_length=250, unique=True, editable=False)
    created_at = models.DateTimeField(_("created at"), default=timezone.now)
    expires_at = models.DateTimeField(_("expires at"))
    user = models.OneToOneField(
        settings.AUTH_USER_MODEL,
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="family_plan_invite",
        verbose_name=_("user"),
        help_text=_("The user who accepted."),
    )
    is_used = models.GeneratedField(
        expression=Q(user__isnull=False),  # type: ignore[arg-type]  # as Django documents it
        output_field=models.BooleanField(),
        db_persist=True,
    )
    mail_status = models.CharField(
        _("mail status"), max_length=7, choices=MailStatus, default=MailStatus.NONE
    )

    objects = FamilyPlanInviteQuerySet.as_manager()

    class Meta:
        verbose_name = _("family plan invite")
        verbose_name_plural = _("family plan invites")
        indexes: ClassVar = [
            models.Index(
                name="open_invites_of_plan", fields=["family_plan", "expires_at"], condition=Q(user=None)
            ),
            models.Index(name="open_invites_by_expiry", fields=["expires_at"], condition=Q(user=None)),
        ]
        constraints: ClassVar = [
            models.CheckConstraint(name="invite_email_lower_case", condition=Q(email=Lower(F("email")))),
        ]

    def __str__(self) -> str:
        return gettext("Invite %(id)s") % {"id": self.pk}

    def status(self, *, now: datetime.datetime) -> Status:
        return self.Status.at(now, user_id=self.user_id, expires_at=self.expires_at)


class InvitationMail(Place):
    """One of the few invitation mails that a mailbox gets per day, across all plans."""

    salt = "plans.invitation_mail"

    class Meta:
        verbose_name = _("invitation mail")
        verbose_name_plural = _("invitation mails")
        constraints: ClassVar = [
            models.UniqueConstraint(name="invitation_mail_once", fields=["address_digest", "place"])
        ]

    def __str__(self) -> str:
        return f"Invitation mail {self.pk}"

    @classmethod
    def take_place(cls, address: str, *, now: datetime.datetime) -> InvitationMail | None:
        """Take one of a mailbox's places before sending a mail; return None if all are taken."""
        return cls.objects.take_place(
            mailbox_of(address), limit=INVITATION_MAILS_PER_DAY, window=DAY, now=now
        )


class PlanEventQuerySet(models.QuerySet["PlanEvent"]):
    def issuing(self, *, since: datetime.datetime) -> PlanEventQuerySet:
        """Narrow to the invites that were created or reissued after a moment."""
        return self.filter(
            kind__in=[PlanEvent.Kind.INVITE_CREATED, PlanEvent.Kind.INVITE_REISSUED], at__gt=since
        )

    def counted_for(self, user_id: int) -> PlanEventQuerySet:
        """Narrow to the events that count towards a user's own limits, across all plans."""
        return self.filter(actor=user_id, counts_for_actor=True)


class PlanEvent(models.Model):
    """An entry in a plan's history, written once and never changed."""

    class Kind(models.TextChoices):
        PLAN_CREATED = "PLAN_CREATED", _("Plan Created")
        PLAN_CLOSED = "PLAN_CLOSED", _("Plan Closed")
        INVITE_CREATED = "INVITE_CREATED", _("Invite Created")
        INVITE_REISSUED = "INVITE_REISSUED", _("Invite Reissued")
        INVITE_REVOKED = "INVITE_REVOKED", _("Invite Revoked")
        INVITE_ACCEPTED = "INVITE_ACCEPTED", _("Invite Accepted")
        MEMBER_DETACHED = "MEMBER_DETACHED", _("Member Detached")
        MEMBER_LEFT = "MEMBER_LEFT", _("Member Left")
        OWNERSHIP_TRANSFERRED = "OWNERSHIP_TRANSFERRED", _("Ownership Transferred")

    family_plan = models.ForeignKey(FamilyPlan, on_delete=models.CASCADE, related_name="events")
    kind = models.CharField(_("kind"), max_length=21, choices=Kind)
    actor = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="+"
    )
    subject = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="+"
    )
    invite = models.ForeignKey(FamilyPlanInvite, on_delete=models.SET_NULL, null=True, related_name="events")
    at = models.DateTimeField(_("at"), default=timezone.now)
    # True for invites issued by the plan's owner and for plans created for oneself. Stored because the
    # owner may change later; what staff do for others counts for nobody.
    counts_for_actor = models.BooleanField(default=False, db_default=False, editable=False)

    objects = PlanEventQuerySet.as_manager()

    class Meta:
        verbose_name = _("plan event")
        verbose_name_plural = _("plan events")
        indexes: ClassVar = [
            models.Index(name="events_of_plan_by_time", fields=["family_plan", "at"]),
            models.Index(
                name="events_counted_for_actor", fields=["actor", "at"], condition=Q(counts_for_actor=True)
            ),
        ]

    def __str__(self) -> str:
        return self.get_kind_display()
