"""The limits of an operation, checked before its document is validated."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from functools import cached_property, lru_cache
from graphlib import CycleError, TopologicalSorter

from django.conf import settings
from graphql import (
    ASTValidationRule,
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    GraphQLSchema,
    InlineFragmentNode,
    OperationDefinitionNode,
    SelectionNode,
    SelectionSetNode,
    get_operation_ast,
    parse,
    validate,
)
from strawberry.extensions import SchemaExtension
from strawberry.schema.validation_rules.maybe_null import MaybeNullValidationRule
from strawberry.schema.validation_rules.one_of import OneOfInputValidationRule

from graphql_api.walk import Measure, Walk, int_of, page_size

# Fields with the same response name at the same place are compared in pairs before they are merged.
MAX_REPEATS = 20
# How long a document may become with its fragments written out, as a multiple of its tokens.
MAX_GROWTH = 2
# Each error searches the whole text for its line.
MAX_LINES = 5_000
MAX_ERRORS = 5
MAX_MESSAGE = 300  # characters


# --- Documents -------------------------------------------------------------------------


class Document:
    """A parsed document, with what is known about it: the second time costs nothing."""

    def __init__(self, text: str, schema: GraphQLSchema, max_tokens: int) -> None:
        """Parse it.

        :raises GraphQLError: also for fragments that cannot be measured.
        """
        self.schema = schema
        if text.count("\n") + text.count("\r") > MAX_LINES:
            raise GraphQLError(f"More than {MAX_LINES} lines found.")
        self.ast: DocumentNode = parse(text, max_lexical_tokens=max_tokens, max_comments=max_tokens)
        self.operations = [node for node in self.ast.definitions if isinstance(node, OperationDefinitionNode)]
        self.fragments = in_order(
            [node for node in self.ast.definitions if isinstance(node, FragmentDefinitionNode)]
        )
        self._validated: dict[object, list[GraphQLError]] = {}

    @cached_property
    def roots(self) -> list[OperationDefinitionNode | FragmentDefinitionNode]:
        """The operations, and the fragments that none of them reaches."""
        reached = {name for node in self.operations for name in spreads_in(node.selection_set)}
        for name, fragment in reversed(self.fragments.items()):
            if name in reached:
                reached.update(spreads_in(fragment.selection_set))
        return [*self.operations, *(node for name, node in self.fragments.items() if name not in reached)]

    @cached_property
    def total(self) -> Measure:
        """The measures of the whole document, because all of it is validated."""
        walk = Walk(self.schema, self.fragments, {})
        measures = [
            walk.of_operation(root)
            if isinstance(root, OperationDefinitionNode)
            else walk.fragments[root.name.value]
            for root in self.roots
        ]
        return Measure().plus(*measures)

    @cached_property
    def repeated(self) -> str | None:
        """A response name that occurs too often at one place, fragments included.

        This follows fragments as execution does, so it must only run once the size is within its limit.
        """
        places = [[root.selection_set] for root in self.roots]
        while places:
            todo = places.pop()
            times = Counter[str]()
            below = defaultdict[str, list[SelectionSetNode]](list)
            spread = set[str]()
            for selection_set in todo:  # grows as it is read
                for node in selection_set.selections:
                    if isinstance(node, FieldNode):
                        name = (node.alias or node.name).value
                        times[name] += 1
                        if times[name] > MAX_REPEATS:
                            return name
                        if node.selection_set:
                            below[name].append(node.selection_set)
                    elif isinstance(node, InlineFragmentNode):
                        todo.append(node.selection_set)
                    elif isinstance(node, FragmentSpreadNode):
                        fragment = self.fragments.get(node.name.value)
                        if fragment and node.name.value not in spread:
                            spread.add(node.name.value)
                            todo.append(fragment.selection_set)
            places += below.values()
        return None

    def over_limit(self) -> GraphQLError | None:
        """Return an error if the document as a whole exceeds a limit."""
        counts = [
            ("levels of depth", self.total.depth, settings.GRAPHQL_MAX_DEPTH),
            ("aliases", self.total.aliases, settings.GRAPHQL_MAX_ALIASES),
            ("directives", self.total.directives, settings.GRAPHQL_MAX_DIRECTIVES),
            ("nested lists of types", self.total.lists_of_types, 1),
        ]
        for counted, count, limit in counts:
            if count > limit:
                return GraphQLError(f"{count} {counted} found, fragments included. Allowed: {limit}.")
        return None

    def laborious(self) -> GraphQLError | None:
        """Return an error if the document would take long to validate, even if not to execute."""
        limit = MAX_GROWTH * settings.GRAPHQL_MAX_TOKENS
        if self.total.size > limit:
            return GraphQLError(f"The document is too long with its fragments written out. Allowed: {limit}.")
        if self.repeated is not None:
            return GraphQLError(f"'{self.repeated}' is selected more than {MAX_REPEATS} times at one place.")
        return None

    def validate(self, rules: tuple[type[ASTValidationRule], ...]) -> list[GraphQLError]:
        """Return what does not fit the schema."""
        key = (settings.DEBUG, *rules)
        if key not in self._validated:
            errors = validate(
                self.schema, self.ast, rules, max_errors=MAX_ERRORS, hide_suggestions=not settings.DEBUG
            )
            self._validated[key] = [shorten(error) for error in errors]
        return self._validated[key]


def in_order(fragments: list[FragmentDefinitionNode]) -> dict[str, FragmentDefinitionNode]:
    """Sort fragments by name, each after those that it spreads.

    :raises GraphQLError: if two have the same name, or one contains itself.
    """
    for name, count in Counter(node.name.value for node in fragments).items():
        if count > 1:
            raise GraphQLError(f"There can be only one fragment named '{name}'.")
    by_name = {node.name.value: node for node in fragments}
    spreads = {name: dict.fromkeys(spreads_in(node.selection_set)) for name, node in by_name.items()}
    try:
        order = list(TopologicalSorter(spreads).static_order())
    except CycleError as error:
        raise GraphQLError(f"Fragment '{error.args[1][0]}' contains itself.") from None
    return {name: by_name[name] for name in order if name in by_name}


def spreads_in(selection_set: SelectionSetNode) -> Iterator[str]:
    """Yield the name of each fragment that is spread here."""
    todo: list[SelectionNode] = list(selection_set.selections)
    for node in todo:  # grows as it is read
        if isinstance(node, FragmentSpreadNode):
            yield node.name.value
        elif isinstance(node, FieldNode | InlineFragmentNode) and node.selection_set:
            todo += node.selection_set.selections


def shorten(error: GraphQLError) -> GraphQLError:
    """Shorten what an error repeats of the document, and make it the client's.

    Python refuses to read a number of 5,000 digits, for example.
    """
    message = error.message
    if error.original_error is not None:
        message = f"{message.partition(', but encountered error')[0]}."
    if len(message) > MAX_MESSAGE:
        message = f"{message[:MAX_MESSAGE]}..."
    return GraphQLError(message, error.nodes)


@lru_cache(maxsize=128)
def read(text: str, schema: GraphQLSchema, max_tokens: int) -> Document:
    return Document(text, schema, max_tokens)


def cost_of(document: Document, operation: OperationDefinitionNode, variables: Mapping[str, object]) -> int:
    """Return what an operation costs with these variables."""
    sizes = []
    for definition in operation.variable_definitions or ():
        name, default = definition.variable.name.value, int_of(definition.default_value)
        sizes.append((name, page_size(variables.get(name, default))))
    return _cost_of(document, operation, tuple(sizes))


@lru_cache(maxsize=128)
def _cost_of(
    document: Document, operation: OperationDefinitionNode, sizes: tuple[tuple[str, int], ...]
) -> int:
    return Walk(document.schema, document.fragments, dict(sizes)).of_operation(operation).cost


# --- The rules within Strawberry -------------------------------------------------------


class Limits(SchemaExtension):
    """Parse, measure and validate a document once, and check the cost of the operation every time."""

    document: Document

    def on_parse(self) -> Iterator[None]:
        context = self.execution_context
        self.document = read(context.query or "", context.schema._schema, settings.GRAPHQL_MAX_TOKENS)
        context.graphql_document = self.document.ast
        yield

    def on_validate(self) -> Iterator[None]:
        context, document = self.execution_context, self.document
        rules = (*context.validation_rules, MaybeNullValidationRule, OneOfInputValidationRule)
        error = document.over_limit() or self.too_expensive() or document.laborious()
        context.pre_execution_errors = [error] if error else document.validate(rules)
        yield

    def too_expensive(self) -> GraphQLError | None:
        operation = get_operation_ast(self.document.ast, self.execution_context.operation_name)
        if operation is None:
            return None
        cost = cost_of(self.document, operation, self.execution_context.variables or {})
        limit = settings.GRAPHQL_MAX_COST
        if cost <= limit:
            return None
        return GraphQLError(
            f"The operation costs {cost}. Allowed: {limit}. Request smaller pages, or split the operation.",
            extensions={"code": "OPERATION_TOO_EXPENSIVE", "cost": cost, "limit": limit},
        )
