"""Django's PostgreSQL, which ends long statements of requests, and sees that a connection was ended."""

import select
from typing import Any

from django.db.backends.postgresql import base

from config.postgresql.statements import BoundedConnection


class DatabaseWrapper(base.DatabaseWrapper):
    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        connection = super().get_new_connection(conn_params)
        # Django names the class of cursors, and psycopg that of connections, by themselves only.
        connection.__class__ = BoundedConnection
        return connection

    def is_usable(self) -> bool:
        """Tell whether an idle connection is silent: what comes unasked is its end.

        Django would make a query of it, with which every request begins.
        """
        if self.connection is None or self.connection.closed:
            return False
        unasked = select.poll()
        unasked.register(self.connection.fileno(), select.POLLIN)
        return not unasked.poll(0)
