"""The project's own models: attempts, which limits count, and sessions that know their person."""

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
        """Filter the sessions in which this person is signed in; a new password ends earlier ones."""
        hashes = [person.get_session_auth_hash(), *person.get_session_auth_fallback_hash()]
        return self.filter(user=person, auth_hash__in=hashes, expire_date__gt=timezone.now())


class Session(AbstractBaseSession):
    """A session of a browser or an API client, whose token is the session key."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, null=True)
    auth_hash = models.CharField(max_length=128, default="")  # of the password; empty if not signed in
    client = models.CharField(max_length=CLIENT_LENGTH, default="")  # the User-Agent at sign-in
    created_at = models.DateTimeField(default=timezone.now)
    last_used_at = models.DateTimeField(default=timezone.now)  # to the hour
    # Copied from the previous version's table: the browser may still send that version's cookie.
    was_carried_over = models.BooleanField(default=False, db_default=False)

    objects: ClassVar[SessionManager] = SessionManager()

    UPDATED_FIELDS = ("session_data", "expire_date", "user", "auth_hash", "client")

    def __str__(self) -> str:
        return f"Session of user {self.user_id}"  # without the key, which is a credential

    @classmethod
    def get_session_store_class(cls) -> type[SessionBase]:
        from config.sessions import SessionStore

        return SessionStore

    def save(self, *args: Any, **options: Any) -> None:
        if options.get("force_update"):
            options["update_fields"] = self.UPDATED_FIELDS
        super().save(*args, **options)

    @property
    def number(self) -> int:
        """Identify the session without revealing its key, by a number that JavaScript can represent."""
        digest = salted_hmac("config.session", self.session_key, algorithm="sha256").digest()
        return int.from_bytes(digest[:6])


class Attempt(Place):
    """A place that a request, wrong password or account mail takes until its limit's window has passed."""

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
