"""What the project itself keeps: the attempts that limits of accounts count."""

from typing import ClassVar

from django.db import models
from django.utils.translation import gettext_lazy as _

from plans.quotas import Place


class Attempt(Place):
    """A place for one request, wrong password or mail about an account, for as long as its limit says."""

    salt = "config.attempt"

    class Meta:
        verbose_name = _("attempt")
        verbose_name_plural = _("attempts")
        indexes: ClassVar = [models.Index(name="attempts_by_time", fields=["taken_at"])]
        constraints: ClassVar = [
            models.UniqueConstraint(name="attempt_once", fields=["address_digest", "place"])
        ]

    def __str__(self) -> str:
        return f"Attempt {self.pk}"
