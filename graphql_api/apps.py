"""The GraphQL API as a Django application."""

import sys

from django.apps import AppConfig
from django.core.exceptions import ImproperlyConfigured


class GraphQLAPIConfig(AppConfig):
    name = "graphql_api"
    verbose_name = "GraphQL API"

    def ready(self) -> None:
        if sys.flags.optimize > 1:
            raise ImproperlyConfigured(
                "Run Python without -OO or PYTHONOPTIMIZE=2: the schema reads its codes from docstrings."
            )
