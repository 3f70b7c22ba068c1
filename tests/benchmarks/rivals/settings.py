"""Ours, with the addresses of rivals beside: they answer on the same workers, behind the same middleware."""

from config.settings import *  # noqa: F403

ROOT_URLCONF = "tests.benchmarks.rivals.urls"
