"""Our settings without our GraphQL library, for rivals whose packages do not go with it."""

from config.settings import *  # noqa: F403
from config.settings import INSTALLED_APPS, MIDDLEWARE

INSTALLED_APPS = [app for app in INSTALLED_APPS if app not in {"graphql_api", "strawberry_django"}]
# It refuses in the shape of our GraphQL answers.
MIDDLEWARE = [name for name in MIDDLEWARE if name != "config.answers.BodyMiddleware"]
