"""The settings of tests: config's, without the environment and .env of the person who runs them."""

import atexit
import os
import tempfile
from pathlib import Path
from unittest import mock

# The database is a file, also on SQLite: threads race for it, and a database in memory has
# no IMMEDIATE. Each process has a directory of its own, so that runs may overlap.
SCRATCH = tempfile.TemporaryDirectory(prefix="family-plans-tests-")
atexit.register(SCRATCH.cleanup)

with mock.patch.dict(
    os.environ,
    {
        "ENV_FILE": "",
        "DEBUG": "true",  # for its defaults; pytest-django turns it off for the tests themselves
        "DATABASE_URL": os.environ.get("TEST_DATABASE_URL") or f"sqlite:///{SCRATCH.name}/db.sqlite3",
        "CACHE_URL": "locmem://",
        "EMAIL_URL": "memory:",
        # Nobody listens there: a test that needs Zammad points this to its own sandbox.
        "ZAMMAD_URL": "http://127.0.0.1:9",
        "ZAMMAD_API_TOKEN": "token-of-the-tests",
        "ZAMMAD_WEBHOOK_SECRETS": "secret-of-the-tests",
    },
    clear=True,
):
    from config.settings import *  # noqa: F403
    from config.settings import DATABASES

if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    DATABASES["default"]["TEST"] = {"NAME": str(Path(SCRATCH.name) / "test.sqlite3")}
DATABASES["default"]["CONN_MAX_AGE"] = 0  # threads of a test leave no connection behind

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
WHITENOISE_AUTOREFRESH = True  # no scan of the static files at each client's first request
