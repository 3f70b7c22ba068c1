"""The Django application of plans, and its check of the project that installs it."""

from typing import Any

from constance import settings as constance_settings
from django.apps import AppConfig
from django.core import checks
from django.utils.translation import gettext_lazy as _

CONSTANCE_BACKEND = "constance.backends.database.DatabaseBackend"


def check_constance_backend(**_kwargs: Any) -> list[checks.CheckMessage]:
    """Refuse any other constance backend: queries of plans read the settings from its table."""
    if constance_settings.BACKEND == CONSTANCE_BACKEND:
        return []
    return [
        checks.Error(
            f"plans reads its settings from the database, not from {constance_settings.BACKEND}.",
            hint=f'Set CONSTANCE_BACKEND = "{CONSTANCE_BACKEND}".',
            id="plans.E001",
        )
    ]


class PlansConfig(AppConfig):
    name = "plans"
    verbose_name = _("Plans")

    def ready(self) -> None:
        checks.register(check_constance_backend)
