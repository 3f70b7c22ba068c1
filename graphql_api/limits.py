"""What an operation may ask for: measured in one walk over its document, before anything else reads it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cached_property, lru_cache
from typing import NamedTuple

from django.conf import settings
from graphql import (
    ArgumentNode,
    ASTValidationRule,
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    GraphQLSchema,
    InlineFragmentNode,
    IntValueNode,
    OperationDefinitionNode,
    SelectionNode,
    SelectionSetNode,
    VariableNode,
    get_operation_ast,
    parse,
    validate,
)
from strawberry.extensions import SchemaExtension
from strawberry.schema.validation_rules.maybe_null import MaybeNullValidationRule
from strawberry.schema.validation_rules.one_of import OneOfInputValidationRule

from graphql_api.costs import UNKNOWN, fields_of
from graphql_api.pages import MAX_PAGE

# Introspection lists these of a type. One below the other they would multiply, and tools never do that.
LISTS_OF_TYPES = frozenset({"fields", "interfaces", "possibleTypes", "inputFields"})
# Fields of one response name at one place are compared pair by pair when they are merged.
MAX_REPEATS = 20
# How many times as long as its tokens a document may become with its fragments written out.
MAX_GROWTH = 2
# Each error looks for its line in the whole text.
MAX_LINES = 5_000
MAX_ERRORS = 5
MAX_MESSAGE = 300  # characters
# Where counting stops: fragments can multiply beyond all numbers.
MANY = 10**9


# --- The walk --------------------------------------------------------------------------


class Measure(NamedTuple):
    """What a selection set comes to, with what its fragments hold, at each spread again."""

    depth: int = 0
    lists_of_types: int = 0
    size: int = 0
    aliases: int = 0
    directives: int = 0
    cost: int = 0

    def beside(self, other: Measure) -> Measure:
        return Measure(
            max(self.depth, other.depth),
            max(self.lists_of_types, other.lists_of_types),
            min(self.size + other.size, MANY),
            min(self.aliases + other.aliases, MANY),
            min(self.directives + other.directives, MANY),
            min(self.cost + other.cost, MANY),
        )


Sizes = Mapping[str, int]


class Walk:
    """One walk over a document: each definition once, its fragments before what spreads them.

    `sizes` are the variables that may tell how long a page is; of any other the longest is assumed.
    """

    def __init__(self, document: Document, sizes: Sizes) -> None:
        self.fields = fields_of(document.schema)
        self.sizes = sizes
        self.steps = 0
        self.fragments: dict[str, Measure] = {}
        for fragment in document.in_order:
            condition = fragment.type_condition.name.value
            self.fragments[fragment.name.value] = self.of_set(fragment.selection_set, condition).beside(
                Measure(directives=len(fragment.directives or ()))
            )

    def of_operation(self, operation: OperationDefinitionNode) -> Measure:
        root = operation.operation.value.capitalize()
        variables = operation.variable_definitions or ()
        directives = len(operation.directives or ()) + sum(
            len(variable.directives or ()) for variable in variables
        )
        own = Measure(size=len(variables) + directives, directives=directives)
        return self.of_set(operation.selection_set, root).beside(own)

    def of_set(self, selection_set: SelectionSetNode, parent: str) -> Measure:
        depth = lists_of_types = size = aliases = directives = cost = 0
        for selection in selection_set.selections:
            self.steps += 1
            size += 1 + len(selection.directives or ())
            directives += len(selection.directives or ())
            if isinstance(selection, FieldNode):
                found = self.of_field(selection, parent)
            elif isinstance(selection, InlineFragmentNode):
                condition = selection.type_condition
                found = self.of_set(selection.selection_set, condition.name.value if condition else parent)
            elif isinstance(selection, FragmentSpreadNode):
                found = self.fragments.get(selection.name.value, Measure())
            depth = max(depth, found.depth)
            lists_of_types = max(lists_of_types, found.lists_of_types)
            size += found.size
            aliases += found.aliases
            directives += found.directives
            cost += found.cost
        return Measure(
            depth,
            lists_of_types,
            min(size, MANY),
            min(aliases, MANY),
            min(directives, MANY),
            min(cost, MANY),
        )

    def of_field(self, node: FieldNode, parent: str) -> Measure:
        name = node.name.value
        (once, each), length, type_ = self.fields.get(parent, {}).get(name, UNKNOWN)
        arguments = len(node.arguments or ())
        aliases = 1 if node.alias else 0
        if length is None:
            length = max(self.page_size(node.arguments), 1)
        if node.selection_set is None:
            return Measure(0, name in LISTS_OF_TYPES, arguments, aliases, 0, once + math.ceil(length * each))
        below = self.of_set(node.selection_set, type_)
        return Measure(
            # Introspection is deep by itself; what it may hold is bounded by its lists.
            0 if name.startswith("__") else below.depth + 1,
            below.lists_of_types + (name in LISTS_OF_TYPES),
            below.size + arguments,
            below.aliases + aliases,
            below.directives,
            once + math.ceil(length * (each + below.cost)),
        )

    def page_size(self, arguments: tuple[ArgumentNode, ...] | None) -> int:
        asked = [
            self.sizes.get(argument.value.name.value, MAX_PAGE)
            if isinstance(argument.value, VariableNode)
            else page_size(int_of(argument.value))
            for argument in arguments or ()
            if argument.name.value in {"first", "last"}
        ]
        return max(asked, default=MAX_PAGE)


def page_size(value: object) -> int:
    """Read how long a page may be; what is no such number is refused later, and costs most until then."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_PAGE:
        return MAX_PAGE
    return math.ceil(value)


def int_of(value: object) -> int | None:
    """Read a literal, of which the longest that matter have three digits."""
    return int(value.value) if isinstance(value, IntValueNode) and len(value.value) <= 3 else None


# --- Documents -------------------------------------------------------------------------


class Document:
    """A document with what was learned of it, so that the second time costs nothing."""

    def __init__(self, text: str, schema: GraphQLSchema, max_tokens: int) -> None:
        """Parse it.

        :raises GraphQLError:
        """
        self.schema = schema
        if text.count("\n") + text.count("\r") > MAX_LINES:
            raise GraphQLError(f"More than {MAX_LINES} lines found.")
        self.ast: DocumentNode = parse(text, max_lexical_tokens=max_tokens, max_comments=max_tokens)
        self.operations = [node for node in self.ast.definitions if isinstance(node, OperationDefinitionNode)]
        self.fragments = {
            node.name.value: node for node in self.ast.definitions if isinstance(node, FragmentDefinitionNode)
        }
        self._validated: dict[object, list[GraphQLError]] = {}

    @cached_property
    def spreads(self) -> dict[str, list[FragmentSpreadNode]]:
        """The spreads within each fragment."""
        return {name: list(spreads_in(node.selection_set)) for name, node in self.fragments.items()}

    @cached_property
    def in_order(self) -> list[FragmentDefinitionNode]:
        """The fragments, each after those it spreads; those of a cycle are not among them."""
        users: dict[str, list[str]] = {name: [] for name in self.fragments}
        waits_for = dict.fromkeys(self.fragments, 0)
        for name, spreads in self.spreads.items():
            for spread in {spread.name.value for spread in spreads} & self.fragments.keys():
                users[spread].append(name)
                waits_for[name] += 1
        ready = [name for name, count in waits_for.items() if not count]
        for name in ready:  # grows as it is read
            for user in users[name]:
                waits_for[user] -= 1
                if not waits_for[user]:
                    ready.append(user)
        return [self.fragments[name] for name in ready]

    @cached_property
    def roots(self) -> list[OperationDefinitionNode | FragmentDefinitionNode]:
        """The operations, and the fragments that none of them reaches."""
        todo = [spread for node in self.operations for spread in spreads_in(node.selection_set)]
        reached = set[str]()
        for spread in todo:  # grows as it is read
            if spread.name.value not in reached:
                reached.add(spread.name.value)
                todo += self.spreads.get(spread.name.value, ())
        unreached = [node for name, node in self.fragments.items() if name not in reached]
        return [*self.operations, *unreached]

    @cached_property
    def total(self) -> Measure:
        """Measure the whole document: all of it is validated, whichever operation is meant."""
        walk = Walk(self, {})
        total = Measure()
        for root in self.roots:
            total = total.beside(
                walk.of_operation(root)
                if isinstance(root, OperationDefinitionNode)
                else walk.fragments[root.name.value]
            )
        return total

    @cached_property
    def torn(self) -> str | None:
        """Tell why the fragments cannot be measured: they hold themselves, or share a name."""
        names = Counter(
            node.name.value for node in self.ast.definitions if isinstance(node, FragmentDefinitionNode)
        )
        for name, count in names.items():
            if count > 1:
                return f"There can be only one fragment named '{name}'."
        in_order = {node.name.value for node in self.in_order}
        endless = [name for name in self.fragments if name not in in_order]
        return f"Fragment '{endless[0]}' holds itself, or spreads one that does." if endless else None

    @cached_property
    def repeated(self) -> str | None:
        """A response name that stands too often at one place, fragments included.

        This walks through fragments as execution does: only for a document whose size is known.
        """
        places = [[root.selection_set] for root in self.roots]
        while places:
            todo = places.pop()
            below: dict[str, list[SelectionSetNode]] = {}
            times: dict[str, int] = {}
            spread = set[str]()
            for selection_set in todo:  # grows as it is read
                for node in selection_set.selections:
                    if isinstance(node, FieldNode):
                        name = (node.alias or node.name).value
                        times[name] = times.get(name, 0) + 1
                        if times[name] > MAX_REPEATS:
                            return name
                        if node.selection_set:
                            below.setdefault(name, []).append(node.selection_set)
                    elif isinstance(node, InlineFragmentNode):
                        todo.append(node.selection_set)
                    elif isinstance(node, FragmentSpreadNode):
                        fragment = self.fragments.get(node.name.value)
                        if fragment and node.name.value not in spread:
                            spread.add(node.name.value)
                            todo.append(fragment.selection_set)
            places += below.values()
        return None

    def counted_too_many(self) -> GraphQLError | None:
        """Tell which limit the document as a whole is over."""
        if self.torn:
            return GraphQLError(self.torn)
        counts = [
            ("levels of depth", self.total.depth, settings.GRAPHQL_MAX_DEPTH),
            ("aliases", self.total.aliases, settings.GRAPHQL_MAX_ALIASES),
            ("directives", self.total.directives, settings.GRAPHQL_MAX_DIRECTIVES),
            ("lists of a type within each other", self.total.lists_of_types, 1),
        ]
        for counted, count, limit in counts:
            if count > limit:
                return GraphQLError(f"{count} {counted} found, fragments included. Allowed: {limit}.")
        return None

    def laborious(self) -> GraphQLError | None:
        """Tell what of the document would take long to validate, though not to execute."""
        limit = MAX_GROWTH * settings.GRAPHQL_MAX_TOKENS
        if self.total.size > limit:
            return GraphQLError(f"With its fragments written out the document is too long. Allowed: {limit}.")
        if self.repeated is not None:
            return GraphQLError(f"'{self.repeated}' is asked for more than {MAX_REPEATS} times at one place.")
        return None

    def validate(self, rules: tuple[type[ASTValidationRule], ...]) -> list[GraphQLError]:
        """Tell what does not fit the schema."""
        key = (settings.DEBUG, *rules)
        if key not in self._validated:
            errors = validate(
                self.schema, self.ast, rules, max_errors=MAX_ERRORS, hide_suggestions=not settings.DEBUG
            )
            self._validated[key] = [told(error) for error in errors]
        return self._validated[key]


def told(error: GraphQLError) -> GraphQLError:
    """Tell a mistake of the client's without what was sent at length, and as no fault of ours.

    Such as a number of 5,000 digits, which Python does not read.
    """
    message = error.message
    if error.original_error is not None:
        message = f"{message.partition(', but encountered error')[0]}."
    if len(message) > MAX_MESSAGE:
        message = f"{message[:MAX_MESSAGE]}..."
    return GraphQLError(message, error.nodes)


def spreads_in(selection_set: SelectionSetNode) -> Iterator[FragmentSpreadNode]:
    todo: list[SelectionNode] = list(selection_set.selections)
    for node in todo:  # grows as it is read
        if isinstance(node, FragmentSpreadNode):
            yield node
        elif isinstance(node, FieldNode | InlineFragmentNode) and node.selection_set:
            todo += node.selection_set.selections


@lru_cache(maxsize=128)
def read(text: str, schema: GraphQLSchema, max_tokens: int) -> Document:
    return Document(text, schema, max_tokens)


def cost_of(document: Document, operation: OperationDefinitionNode, variables: Mapping[str, object]) -> int:
    """Tell what an operation costs with these variables."""
    sizes = []
    for definition in operation.variable_definitions or ():
        name, default = definition.variable.name.value, int_of(definition.default_value)
        sizes.append((name, page_size(variables.get(name, default))))
    return _cost_of(document, operation, tuple(sizes))


@lru_cache(maxsize=128)
def _cost_of(
    document: Document, operation: OperationDefinitionNode, sizes: tuple[tuple[str, int], ...]
) -> int:
    return Walk(document, dict(sizes)).of_operation(operation).cost


# --- The rules within Strawberry -------------------------------------------------------


class TooExpensive(GraphQLError):
    """The operation would cost more than the setting allows."""

    def __init__(self, cost: int, limit: int) -> None:
        super().__init__(
            f"The operation costs {cost}. Allowed: {limit}. Ask for smaller pages, or in several requests.",
            extensions={"code": "OPERATION_TOO_EXPENSIVE", "cost": cost, "limit": limit},
        )


class Limits(SchemaExtension):
    """Read, measure and validate a document once, and weigh what is to be executed each time."""

    document: Document

    def on_parse(self) -> Iterator[None]:
        asked = self.execution_context
        self.document = read(asked.query or "", asked.schema._schema, settings.GRAPHQL_MAX_TOKENS)
        asked.graphql_document = self.document.ast
        yield

    def on_validate(self) -> Iterator[None]:
        self.execution_context.pre_execution_errors = self.refusals()
        yield

    def refusals(self) -> list[GraphQLError]:
        asked, document = self.execution_context, self.document
        refusal = document.counted_too_many() or self.too_expensive() or document.laborious()
        if refusal:
            return [refusal]
        return document.validate((*asked.validation_rules, MaybeNullValidationRule, OneOfInputValidationRule))

    def too_expensive(self) -> TooExpensive | None:
        asked = self.execution_context
        operation = get_operation_ast(self.document.ast, asked.operation_name)
        cost = cost_of(self.document, operation, asked.variables or {}) if operation else 0
        return TooExpensive(cost, settings.GRAPHQL_MAX_COST) if cost > settings.GRAPHQL_MAX_COST else None
