"""Our settings without our GraphQL library, for rivals whose packages conflict with it."""

from config.settings import *  # noqa: F403
from config.settings import INSTALLED_APPS

INSTALLED_APPS = [app for app in INSTALLED_APPS if app not in {"graphql_api", "strawberry_django"}]
