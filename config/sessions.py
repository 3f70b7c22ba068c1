"""The session store (SESSION_ENGINE): Django's database store, on a model that knows the person."""

from __future__ import annotations

import datetime
import logging
from typing import Any

from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, get_user_model
from django.contrib.sessions.backends.base import CreateError, SessionBase, UpdateError
from django.contrib.sessions.backends.db import SessionStore as DatabaseStore
from django.contrib.sessions.models import Session as FormerSession
from django.db import DatabaseError, IntegrityError
from django.http import HttpRequest
from django.utils import timezone
from django.utils.crypto import constant_time_compare

from config.models import CLIENT_LENGTH, Session

logger = logging.getLogger(__name__)

CLIENT_SESSION_KEY = "client"
# A session's last use is written at most this often.
STEP = datetime.timedelta(hours=1)


def remember_client(request: HttpRequest) -> None:
    """Keep the User-Agent for the person's list of sessions, but no IP address."""
    request.session[CLIENT_SESSION_KEY] = request.headers.get("User-Agent", "")[:CLIENT_LENGTH]


def keep_through_rotation(session: SessionBase) -> None:
    """Renew the auth hash of a session: Django would change the session key, which is the client's token."""
    person = get_user_model()._default_manager.filter(pk=session.get(SESSION_KEY) or 0).first()
    if person is None:
        return
    stored, current = session.get(HASH_SESSION_KEY, ""), person.get_session_auth_hash()
    fallbacks = person.get_session_auth_fallback_hash()
    if stored != current and any(constant_time_compare(stored, fallback) for fallback in fallbacks):
        session[HASH_SESSION_KEY] = current
        session.save()


class SessionStore(DatabaseStore):
    """Keep this name: Django uses it as the salt of its signatures."""

    @classmethod
    def get_model_class(cls) -> type[Session]:
        return Session

    def create_model_instance(self, data: dict[str, Any]) -> Session:
        session: Session = super().create_model_instance(data)  # type: ignore[assignment]
        # Before a sign-in is complete, there is no person.
        if SESSION_KEY in data and BACKEND_SESSION_KEY in data:
            session.user_id = get_user_model()._meta.pk.to_python(data[SESSION_KEY])
            session.auth_hash = data.get(HASH_SESSION_KEY, "")
        session.client = data.get(CLIENT_SESSION_KEY, "").replace("\0", "")
        return session

    def load(self) -> dict[str, Any]:
        session: Session | None = self._get_session_from_db()  # type: ignore[attr-defined]  # Django's own
        if session is None:
            return {}
        now = timezone.now()
        if session.user_id is not None and session.last_used_at < now - STEP:
            try:
                # Only one of several concurrent requests writes.
                unused = Session.objects.filter(pk=session.pk, last_used_at=session.last_used_at)
                unused.update(last_used_at=now)
            except DatabaseError as error:  # the request itself may only read
                logger.warning("The last use of a session was not written: %s", type(error).__name__)
        data: dict[str, Any] = self.decode(session.session_data)
        return data

    def save(self, must_create: bool = False) -> None:
        """:raises UpdateError: also if the person was deleted concurrently."""
        try:
            super().save(must_create)
        except CreateError:
            # Django believes that the key is taken, and would try others forever.
            if self._person_is_gone():
                raise UpdateError from None
            raise
        except IntegrityError:
            raise UpdateError from None

    def _person_is_gone(self) -> bool:
        person = self._get_session(no_load=True).get(SESSION_KEY)  # type: ignore[attr-defined]
        return person is not None and not get_user_model()._default_manager.filter(pk=person).exists()

    @classmethod
    def clear_expired(cls) -> None:
        """Delete expired sessions, and those of the previous version, which the migration copied."""
        super().clear_expired()
        FormerSession.objects.all().delete()
