"""What the project itself keeps: the attempts that limits count, and sessions that know their person."""

from __future__ import annotations

from typing import Any, ClassVar

from django.conf import settings
from django.contrib.auth.models import User
from django.contrib.sessions.backends.base import SessionBase
from django.contrib.sessions.base_session import AbstractBaseSession, BaseSessionManager
from django.db import models
from django.utils import timezone
from django.utils.crypto import salted_hmac
from django.utils.translation import gettext_lazy as _

from plans.quotas import Place

CLIENT_LENGTH = 200


class SessionManager(BaseSessionManager["Session"]):
    def living_of(self, person: User) -> models.QuerySet[Session]:
        """Sessions in which this person is signed in now; a changed password ends all made before."""
        hashes = [person.get_session_auth_hash(), *person.get_session_auth_fallback_hash()]
        return self.filter(user=person, auth_hash__in=hashes, expire_date__gt=timezone.now())


class Session(AbstractBaseSession):
    """A browser's session or an API client's: the token of the latter is the key."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, null=True)
    auth_hash = models.CharField(max_length=128, default="")  # of the password at sign-in; empty: nobody
    client = models.CharField(max_length=CLIENT_LENGTH, default="")  # as it called itself at sign-in
    created_at = models.DateTimeField(default=timezone.now)
    last_used_at = models.DateTimeField(default=timezone.now)  # to the hour
    # From the table of the version before: its browser may still send it in the cookie of that version.
    was_carried_over = models.BooleanField(default=False, db_default=False)

    objects: ClassVar[SessionManager] = SessionManager()

    # What a saved session may change; the rest stays as it was made.
    CHANGING = ("session_data", "expire_date", "user", "auth_hash", "client")

    def __str__(self) -> str:
        return f"Session of user {self.user_id}"  # never the key, which signs in

    @classmethod
    def get_session_store_class(cls) -> type[SessionBase]:
        from config.sessions import SessionStore

        return SessionStore

    def save(self, *args: Any, **options: Any) -> None:
        if options.get("force_update"):
            options["update_fields"] = self.CHANGING
        super().save(*args, **options)

    @property
    def number(self) -> int:
        """Name the session without giving its key away; small enough for JavaScript."""
        digest = salted_hmac("config.session", self.session_key, algorithm="sha256").digest()
        return int.from_bytes(digest[:6])


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
