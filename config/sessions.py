"""The store of sessions, SESSION_ENGINE: Django's in the database, on a model that knows the person."""

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
# Reading writes when the session was used last, but no more often than this.
STEP = datetime.timedelta(hours=1)


def remember_client(request: HttpRequest) -> None:
    """Keep how the client calls itself, for the person's list of sessions; no network address."""
    request.session[CLIENT_SESSION_KEY] = request.headers.get("User-Agent", "")[:CLIENT_LENGTH]


def keep_through_rotation(session: SessionBase) -> None:
    """Renew what a session was signed with: Django would give it another key, which is the client's token."""
    person = get_user_model()._default_manager.filter(pk=session.get(SESSION_KEY) or 0).first()
    if person is None:
        return
    known, present = session.get(HASH_SESSION_KEY, ""), person.get_session_auth_hash()
    fallbacks = person.get_session_auth_fallback_hash()
    if known != present and any(constant_time_compare(known, fallback) for fallback in fallbacks):
        session[HASH_SESSION_KEY] = present
        session.save()


class SessionStore(DatabaseStore):
    """Not renamed: Django signs what it stores with the name of this class."""

    @classmethod
    def get_model_class(cls) -> type[Session]:
        return Session

    def create_model_instance(self, data: dict[str, Any]) -> Session:
        session: Session = super().create_model_instance(data)  # type: ignore[assignment]
        # An unfinished sign-in has no person yet.
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
                # One of several requests at the same moment writes.
                Session.objects.filter(pk=session.pk, last_used_at=session.last_used_at).update(
                    last_used_at=now
                )
            except DatabaseError as error:
                # The request goes on: it only reads.
                logger.warning("The use of a session was not written: %s", type(error).__name__)
        data: dict[str, Any] = self.decode(session.session_data)
        return data

    def save(self, must_create: bool = False) -> None:
        """:raises UpdateError: also when the person was deleted meanwhile."""
        try:
            super().save(must_create)
        except CreateError:
            # Django takes the key for taken and tries others, for ever.
            if self._is_of_nobody():
                raise UpdateError from None
            raise
        except IntegrityError:
            raise UpdateError from None

    def _is_of_nobody(self) -> bool:
        person = self._get_session(no_load=True).get(SESSION_KEY)  # type: ignore[attr-defined]
        return person is not None and not get_user_model()._default_manager.filter(pk=person).exists()

    @classmethod
    def clear_expired(cls) -> None:
        """Delete ended sessions, and those of the version before, which the migration carried over."""
        super().clear_expired()
        FormerSession.objects.all().delete()
