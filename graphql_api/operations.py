"""How an operation is named, held to the rules and counted, and how its errors are answered."""

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
    "GraphQL operations by the field of Query or Mutation that they ask for, and how they ended.",
    ["operation", "outcome"],
)


class OneOperation(ValidationRule):
    """Refuse a document that leaves open which of its operations is meant."""

    count = 0

    def enter_operation_definition(self, node: OperationDefinitionNode, *_: object) -> None:
        self.count += 1
        if self.count == 2:
            self.report_error(GraphQLError("Name the operation to run: there are several.", [node]))


class NameOneOfSeveral(SchemaExtension):
    """Hold what GraphQL demands: Strawberry would run the first operation of several."""

    def on_operation(self) -> Iterator[None]:
        if self.execution_context._provided_operation_name is None:
            self.execution_context.validation_rules += (OneOperation,)
        yield


def may_explore(user: Actor) -> bool:
    """Tell whether a person gets GraphiQL and introspection."""
    return settings.DEBUG or (user.is_active and user.is_staff)


class IntrospectionForStaff(SchemaExtension):
    """Let those introspect who may open GraphiQL. The rule is part of the cache's key."""

    def on_operation(self) -> Iterator[None]:
        if not may_explore(self.execution_context.context.user):
            self.execution_context.validation_rules += (NoSchemaIntrospectionCustomRule,)
        yield


class NameOperation(SchemaExtension):
    """Name what is executed by a word of the schema: what clients call it is without end."""

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
    """Tell a bug or a failing database from a mistake of the client's."""
    return error.original_error is not None and not isinstance(
        error.original_error, (GraphQLError, ValidationError, PermissionDenied)
    )


def current_request_id() -> str:
    """Return the id under which the log knows the request."""
    return str(get_contextvars().get("request_id", ""))


class Schema(strawberry.Schema):
    def execute_sync(self, *args: Any, **asked: Any) -> ExecutionResult:
        """Execute, and count the operation once: OK, the code of its refusal, INVALID, or INTERNAL_ERROR."""
        context: Context = asked["context_value"]
        operation, outcome = "none", "INVALID"
        try:
            result = super().execute_sync(*args, **asked)
            operation, outcome = context.operation, context.refusal or "OK"
            # Without a path, an error is about the document or its variables.
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
        """Answer what was not anticipated with a request id only; the log has the rest under it.

        Clients' mistakes are no news, and teach a stranger no names of the schema. Every error
        passes here, also one that stops an operation before MaskErrors would see it.
        """
        for error in errors:
            if is_unexpected(error):
                request_id = current_request_id()
                logger.error("GraphQL request %s failed", request_id, exc_info=error.original_error)
                error.message = "Unexpected error."
                error.extensions = {"code": "INTERNAL_ERROR", "requestId": request_id}
            elif not settings.DEBUG:
                error.message = error.message.partition(" Did you mean")[0]
