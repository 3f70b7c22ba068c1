"""The settings of the service on Ariadne."""

from tests.benchmarks.rivals.elsewhere import *  # noqa: F403
from tests.benchmarks.rivals.elsewhere import INSTALLED_APPS

INSTALLED_APPS += ["ariadne_django"]
ROOT_URLCONF = "tests.benchmarks.rivals.ariadne_documented"
