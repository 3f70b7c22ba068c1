"""Execution of an operation: extra rules of validation, metrics, and the form of its errors."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import strawberry
from django.conf import settings
from django.core.exceptions import PermissionDenied, ValidationError
from graphql import (
    FieldNode,
    GraphQLError,
    NoSchemaIntrospectionCustomRule,
    OperationDefinitionNode,
    ValidationRule,
    get_operation_ast,
)
from prometheus_client import Counter
from strawberry.extensions import SchemaExtension
from strawberry.types import ExecutionContext, ExecutionResult
from structlog.contextvars import get_contextvars

from graphql_api.types import Context
from plans.visibility import Actor

logger = logging.getLogger(__name__)

OPERATIONS = Counter(
    "family_plans_graphql_operations",
    "GraphQL operations by the field of Query or Mutation that they select, and by outcome.",
    ["operation", "outcome"],
)


class OneOperation(ValidationRule):
    """Refuse several operations if the request does not name one; Strawberry would run the first.

    https://spec.graphql.org/draft/#GetOperation()
    """

    count = 0

    def enter_operation_definition(self, node: OperationDefinitionNode, *_: object) -> None:
        self.count += 1
        if self.count == 2:
            self.report_error(GraphQLError("Name the operation to run: there are several.", [node]))


def may_explore(user: Actor) -> bool:
    """Return whether a person may open GraphiQL and introspect the schema."""
    return settings.DEBUG or (user.is_active and user.is_staff)


class Rules(SchemaExtension):
    """Add the rules of validation that depend on the request; they are part of the cache's key."""

    def on_operation(self) -> Iterator[None]:
        context = self.execution_context
        if context._provided_operation_name is None:
            context.validation_rules += (OneOperation,)
        if not may_explore(context.context.user):
            context.validation_rules += (NoSchemaIntrospectionCustomRule,)
        yield


class NameOperation(SchemaExtension):
    """Name an operation after its field, for metrics: the names that clients choose are endless."""

    def on_execute(self) -> Iterator[None]:
        document = self.execution_context.graphql_document
        operation = get_operation_ast(document, self.execution_context.operation_name) if document else None
        match operation.selection_set.selections if operation else ():
            case [FieldNode(name=name)]:
                self.execution_context.context.operation = name.value
            case _:
                self.execution_context.context.operation = "several"
        yield


def is_unexpected(error: GraphQLError) -> bool:
    """Return whether an error is a bug or a failing database, and not a mistake of the client's."""
    return error.original_error is not None and not isinstance(
        error.original_error, (GraphQLError, ValidationError, PermissionDenied)
    )


def current_request_id() -> str:
    """Return the ID of the request in the log."""
    return str(get_contextvars().get("request_id", ""))


class Schema(strawberry.Schema):
    def execute_sync(self, *args: Any, **kwargs: Any) -> ExecutionResult:
        """Count the operation once, with its outcome: OK, a refusal's code, INVALID or INTERNAL_ERROR."""
        context: Context = kwargs["context_value"]
        operation, outcome = "none", "INVALID"
        try:
            result = super().execute_sync(*args, **kwargs)
            operation, outcome = context.operation, context.refusal or "OK"
            # An error without a path is about the document or its variables.
            if any(error.path is None for error in result.errors or ()):
                operation, outcome = "none", "INVALID"
            if any(is_unexpected(error) for error in result.errors or ()):
                outcome = "INTERNAL_ERROR"
            return result
        finally:
            OPERATIONS.labels(operation, outcome).inc()

    def process_errors(
        self, errors: list[GraphQLError], execution_context: ExecutionContext | None = None
    ) -> None:
        """Mask an unexpected error, and log it with the request ID that the client gets.

        Mistakes of clients are not logged, and suggest no names of the schema. MaskErrors would miss
        errors that stop an operation early; every error passes here.
        """
        for error in errors:
            if is_unexpected(error):
                request_id = current_request_id()
                logger.error("GraphQL request %s failed", request_id, exc_info=error.original_error)
                error.message = "Unexpected error."
                error.extensions = {"code": "INTERNAL_ERROR", "requestId": request_id}
            elif not settings.DEBUG:
                error.message = error.message.partition(" Did you mean")[0]
