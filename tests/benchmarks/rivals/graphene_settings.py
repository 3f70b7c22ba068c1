"""The settings of the service on graphene-django."""

from tests.benchmarks.rivals.elsewhere import *  # noqa: F403
from tests.benchmarks.rivals.elsewhere import INSTALLED_APPS

INSTALLED_APPS += ["graphene_django"]
ROOT_URLCONF = "tests.benchmarks.rivals.graphene_documented"
