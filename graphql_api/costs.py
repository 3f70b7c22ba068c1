"""What each field of the schema costs, and how long its lists are assumed to be."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

from graphql import (
    GraphQLField,
    GraphQLInterfaceType,
    GraphQLObjectType,
    GraphQLSchema,
    SchemaMetaFieldDef,
    TypeMetaFieldDef,
    get_named_type,
    get_nullable_type,
    is_list_type,
)


class Weight(NamedTuple):
    """What a field costs once, and what each of its rows costs in addition to the fields selected on it."""

    once: int = 1
    each: int = 0


# In units of a plain field, which takes 5 to 10 microseconds. A field without a weight costs 1.
WEIGHTS = {
    "Query.viewer": Weight(once=20),
    "Query.plan": Weight(once=50),
    "Query.plans": Weight(once=50, each=5),
    "Query.invite": Weight(once=50),
    "Query.planByZammadUser": Weight(once=50),
    "Query.node": Weight(once=50),
    "Viewer.membership": Weight(once=50),
    "Viewer.plan": Weight(once=50),
    "FamilyPlan.owner": Weight(once=20),
    "FamilyPlan.seatsTaken": Weight(once=5),
    "FamilyPlan.seatsAvailable": Weight(once=5),
    "FamilyPlan.members": Weight(once=10, each=5),
    "FamilyPlan.invites": Weight(once=20, each=5),
    "FamilyPlan.events": Weight(once=20, each=5),
    # These call Zammad, and send a mail.
    "Mutation.createInvite": Weight(once=2000),
    "Mutation.reissueInvite": Weight(once=2000),
}
# Any other mutation: a transaction of about ten statements, and its mails.
MUTATION = Weight(once=1000)
# graphql-core resolves these more slowly than our own fields.
INTROSPECTION = Weight(once=2)

# The lengths of lists without pages: the default USER_LIMIT, and for introspection the averages in this
# schema, rounded up.
LISTS = {
    "FamilyPlan.members": 5.0,
    "OperationInfo.messages": 1.0,
    "__Schema.types": 65.0,
    "__Schema.directives": 5.0,
    "__Type.fields": 2.5,
    "__Type.inputFields": 0.2,
    "__Type.enumValues": 0.9,
    "__Type.interfaces": 0.1,
    "__Type.possibleTypes": 0.4,
    "__Type.ofType": 0.7,
    "__Field.args": 0.2,
    "__Directive.args": 1.0,
    "__Directive.locations": 3.0,
}
OTHER_LIST = 10.0


class Field(NamedTuple):
    """What counts about a field: its weight, the length of its list, and the type below it."""

    weight: Weight
    length: float | None  # None: as `first` or `last` says
    type: str


Fields = Mapping[str, Mapping[str, Field]]
UNKNOWN = Field(Weight(), 1.0, "")


@cache
def fields_of(schema: GraphQLSchema) -> Fields:
    """Return the fields of a schema, by type and name."""
    fields = {
        type_.name: {name: _field(f"{type_.name}.{name}", field) for name, field in type_.fields.items()}
        for type_ in schema.type_map.values()
        if isinstance(type_, GraphQLObjectType | GraphQLInterfaceType)
    }
    fields["Query"] |= {
        "__schema": _field("__schema", SchemaMetaFieldDef),
        "__type": _field("__type", TypeMetaFieldDef),
    }
    return fields


def _field(coordinate: str, field: GraphQLField) -> Field:
    parent, _, name = coordinate.partition(".")
    default = MUTATION if parent == "Mutation" else INTROSPECTION if parent.startswith("__") else Weight()
    length = None if "first" in field.args else LISTS.get(coordinate, 1.0)
    is_list = is_list_type(get_nullable_type(field.type))
    # A connection has as many edges as its own field requests.
    if is_list and coordinate not in LISTS and not (parent.endswith("Connection") and name == "edges"):
        length = OTHER_LIST
    return Field(WEIGHTS.get(coordinate, default), length, get_named_type(field.type).name)
