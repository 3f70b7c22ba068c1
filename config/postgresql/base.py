"""Django's PostgreSQL backend, with time limits for statements and a check of connections without a query."""

import select
from typing import Any

from django.db.backends.postgresql import base

from config.postgresql.statements import BoundedConnection


class DatabaseWrapper(base.DatabaseWrapper):
    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        connection = super().get_new_connection(conn_params)
        # Neither Django nor psycopg has an option for the class of connections.
        connection.__class__ = BoundedConnection
        return connection

    def is_usable(self) -> bool:
        """Return whether an idle connection is open: data that arrives unasked means that it was ended.

        Django would run a query at the start of every request instead.
        """
        if self.connection is None or self.connection.closed:
            return False
        poll = select.poll()
        poll.register(self.connection.fileno(), select.POLLIN)
        return not poll.poll(0)
