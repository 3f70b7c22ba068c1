"""The settings that staff change in admin, read once per operation."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self

from constance.codecs import loads
from constance.models import Constance
from constance.settings import ADDITIONAL_FIELDS, CONFIG, DATABASE_PREFIX
from constance.utils import get_values_for_keys
from django import forms
from django.core.exceptions import ValidationError
from django.core.validators import URLValidator
from django.db.models import Func, Subquery, TextField
from django.db.models.functions import Cast, JSONObject
from django.utils.translation import gettext_lazy as _

MAX_PAGE_LENGTH = 2000  # Django refuses to redirect beyond 2048
validate_url = URLValidator(schemes=["http", "https"])


def validate_page(value: str) -> None:
    """Accept a path of ours or an http(s) URL, and nothing that browsers read differently.

    :raises ValidationError:
    """
    if not value.startswith("/"):
        validate_url(value)
    elif value.startswith("//") or "\\" in value or " " in value:
        raise ValidationError(_("Enter a path that starts with one slash, or an http(s) URL."))
    if not value.isprintable() or len(value) > MAX_PAGE_LENGTH:
        raise ValidationError(_("Enter a shorter address, without invisible characters."))


class PageField(forms.CharField):
    """A form field for the page to show next."""

    default_validators = [validate_page]  # noqa: RUF012  # Django's own spelling


def clamp(name: str, value: Any) -> int:
    """Force a number into the range of its form field: code can assign any value."""
    default, _help, kind = CONFIG[name]
    limits = ADDITIONAL_FIELDS[kind][1]
    number: int = value if isinstance(value, int) else default
    clamped: int = min(max(number, limits["min_value"]), limits["max_value"])
    return clamped


class SettingsObject(JSONObject):
    """A JSON object, without asking SQLite first whether it has any.

    Django asks in a transaction of its own: while another process writes, that fails, and the
    answer is kept. https://github.com/django/django/blob/stable/5.2.x/django/db/backends/sqlite3/features.py
    """

    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> Any:
        return Func.as_sql(self, compiler, connection, **context)


def settings_as_stored() -> Cast:
    """Return a column with all settings, which saves a query of their own."""
    stored = {
        key: Subquery(Constance.objects.filter(key=f"{DATABASE_PREFIX}{key}").values("value"))
        for key in CONFIG
    }
    return Cast(SettingsObject(**stored), TextField())


class Limited(Protocol):
    """A plan's own limit; None means the setting USER_LIMIT."""

    @property
    def user_limit(self) -> int | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSettings:
    """The settings in force."""

    user_limit: int
    invites_enabled: bool
    invite_ttl: datetime.timedelta
    invites_per_day: int
    plans_per_day: int
    invite_accepted_url: str
    self_service_plans: bool
    membership_mails: bool

    def limit_of(self, plan: Limited) -> int:
        """Return how many people fit into a plan, including the owner."""
        return plan.user_limit or self.user_limit

    @classmethod
    def current(cls) -> Self:
        """Read all settings in one query, without inserting defaults."""
        return cls._of(get_values_for_keys(list(CONFIG)))

    @classmethod
    def stored(cls, column: str) -> Self:
        """Read the column that `settings_as_stored` adds to a row."""
        return cls._of(
            {
                key: CONFIG[key][0] if value is None else loads(value)
                for key, value in json.loads(column).items()
            }
        )

    @classmethod
    def _of(cls, values: Mapping[str, Any]) -> Self:
        page = values["INVITE_ACCEPTED_URL"]
        try:
            validate_page(page)
        except (ValidationError, AttributeError):
            page = CONFIG["INVITE_ACCEPTED_URL"][0]
        return cls(
            user_limit=clamp("USER_LIMIT", values["USER_LIMIT"]),
            invites_enabled=bool(values["INVITES_ENABLED"]),
            invite_ttl=datetime.timedelta(hours=clamp("INVITE_TTL_HOURS", values["INVITE_TTL_HOURS"])),
            invites_per_day=clamp("INVITES_PER_DAY", values["INVITES_PER_DAY"]),
            plans_per_day=clamp("PLANS_PER_DAY", values["PLANS_PER_DAY"]),
            invite_accepted_url=page,
            self_service_plans=bool(values["SELF_SERVICE_PLANS"]),
            membership_mails=bool(values["MEMBERSHIP_MAILS"]),
        )
