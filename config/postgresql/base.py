"""Django's PostgreSQL, which sees without asking that the server has ended a connection."""

import select

from django.db.backends.postgresql import base


class DatabaseWrapper(base.DatabaseWrapper):
    def is_usable(self) -> bool:
        """Tell whether an idle connection is silent: what comes unasked is its end.

        Django would make a query of it, with which every request begins.
        """
        if self.connection is None or self.connection.closed:
            return False
        unasked = select.poll()
        unasked.register(self.connection.fileno(), select.POLLIN)
        return not unasked.poll(0)
