"""One walk over a document, which measures its size, depth and cost."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from graphql import (
    ArgumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLSchema,
    InlineFragmentNode,
    IntValueNode,
    OperationDefinitionNode,
    SelectionSetNode,
    VariableNode,
)

from graphql_api.costs import UNKNOWN, fields_of
from graphql_api.pages import MAX_PAGE

# Lists of introspection that would multiply if nested in each other; tools never do that.
LISTS_OF_TYPES = frozenset({"fields", "interfaces", "possibleTypes", "inputFields"})
# Where counting stops, because fragments multiply without end.
MANY = 10**9


class Measure(NamedTuple):
    """The measures of a selection set, with each fragment counted at every spread."""

    depth: int = 0
    lists_of_types: int = 0
    size: int = 0
    aliases: int = 0
    directives: int = 0
    cost: int = 0

    def plus(self, *others: Measure) -> Measure:
        depths, lists_of_types, *counts = zip(self, *others, strict=True)
        return Measure(max(depths), max(lists_of_types), *(min(sum(count), MANY) for count in counts))


class Walk:
    """A walk over a document: each definition once, and its fragments first.

    `fragments` come in the order in which they depend on each other. `sizes` are the values of variables
    for `first` and `last`; the largest page is assumed for any other.
    """

    def __init__(
        self,
        schema: GraphQLSchema,
        fragments: Mapping[str, FragmentDefinitionNode],
        sizes: Mapping[str, int],
    ) -> None:
        self.fields = fields_of(schema)
        self.sizes = sizes
        self.steps = 0
        self.fragments: dict[str, Measure] = {}
        for name, fragment in fragments.items():
            own = Measure(directives=len(fragment.directives or ()))
            below = self.of_set(fragment.selection_set, fragment.type_condition.name.value)
            self.fragments[name] = below.plus(own)

    def of_operation(self, operation: OperationDefinitionNode) -> Measure:
        variables = operation.variable_definitions or ()
        directives = len(operation.directives or ()) + sum(len(node.directives or ()) for node in variables)
        own = Measure(size=len(variables) + directives, directives=directives)
        return self.of_set(operation.selection_set, operation.operation.value.capitalize()).plus(own)

    def of_set(self, selection_set: SelectionSetNode, parent: str) -> Measure:
        measures = []
        for node in selection_set.selections:
            self.steps += 1
            directives = len(node.directives or ())
            measures.append(Measure(size=1 + directives, directives=directives))
            if isinstance(node, FieldNode):
                measures.append(self.of_field(node, parent))
            elif isinstance(node, InlineFragmentNode):
                type_ = node.type_condition.name.value if node.type_condition else parent
                measures.append(self.of_set(node.selection_set, type_))
            elif isinstance(node, FragmentSpreadNode):
                measures.append(self.fragments.get(node.name.value, Measure()))
        return Measure().plus(*measures)

    def of_field(self, node: FieldNode, parent: str) -> Measure:
        name = node.name.value
        (once, each), length, type_ = self.fields.get(parent, {}).get(name, UNKNOWN)
        if length is None:
            length = max(self.page_size(node.arguments), 1)
        below = self.of_set(node.selection_set, type_) if node.selection_set else Measure(depth=-1)
        return Measure(
            # Introspection is deep by nature; its lists are limited instead.
            depth=0 if name.startswith("__") else below.depth + 1,
            lists_of_types=below.lists_of_types + (name in LISTS_OF_TYPES),
            size=below.size + len(node.arguments or ()),
            aliases=below.aliases + (node.alias is not None),
            directives=below.directives,
            cost=once + math.ceil(length * (each + below.cost)),
        )

    def page_size(self, arguments: tuple[ArgumentNode, ...] | None) -> int:
        sizes = [
            self.sizes.get(argument.value.name.value, MAX_PAGE)
            if isinstance(argument.value, VariableNode)
            else page_size(int_of(argument.value))
            for argument in arguments or ()
            if argument.name.value in {"first", "last"}
        ]
        return max(sizes, default=MAX_PAGE)


def page_size(value: object) -> int:
    """Return the size of a page; an invalid one is refused later, and counts as the largest until then."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_PAGE:
        return MAX_PAGE
    return math.ceil(value)


def int_of(value: object) -> int | None:
    """Return the value of a literal with at most three digits; longer ones are out of range."""
    return int(value.value) if isinstance(value, IntValueNode) and len(value.value) <= 3 else None
