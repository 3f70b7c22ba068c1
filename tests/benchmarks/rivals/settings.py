"""Our settings with the rivals' URLs: they run on the same workers, behind the same middleware."""

from config.settings import *  # noqa: F403

ROOT_URLCONF = "tests.benchmarks.rivals.urls"
