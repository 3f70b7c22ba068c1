"""The GraphQL API as a Django application."""

from django.apps import AppConfig


class GraphQLAPIConfig(AppConfig):
    name = "graphql_api"
    verbose_name = "GraphQL API"
