"""What each field of the schema costs, and how long its lists are taken to be."""

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
    is_abstract_type,
    is_enum_type,
    is_input_object_type,
    is_list_type,
    is_wrapping_type,
)


class Weight(NamedTuple):
    """What a field costs once, and what each row costs besides the fields asked of it."""

    once: int = 1
    each: int = 0


# In units of a plain field, which takes 5 to 10 microseconds. What is in no table costs 1.
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
    # Each asks Zammad, and mails.
    "Mutation.createInvite": Weight(once=2000),
    "Mutation.reissueInvite": Weight(once=2000),
}
# Any other: a transaction of some ten statements, and its mails.
MUTATION = Weight(once=1000)
# graphql-core answers these more slowly than we do ours.
INTROSPECTION = Weight(once=2)

# How long lists are taken to be that have no pages. A plan is as large as it usually is, by the
# default of USER_LIMIT; what introspection answers is known.
LISTS = {"FamilyPlan.members": 5.0, "OperationInfo.messages": 1.0}
OTHER_LIST = 10.0


class Field(NamedTuple):
    """What the schema tells of a field: its weight, the length of its list, and the type below it."""

    weight: Weight
    length: float | None  # None: as its first or last says
    type: str


Fields = Mapping[str, Mapping[str, Field]]
UNKNOWN = Field(Weight(), 1.0, "")


@cache
def fields_of(schema: GraphQLSchema) -> Fields:
    """List what fields cost, by type and name."""
    lists = LISTS | introspected(schema)
    fields = {
        type_.name: {
            name: field_of(f"{type_.name}.{name}", field, lists) for name, field in type_.fields.items()
        }
        for type_ in schema.type_map.values()
        if isinstance(type_, GraphQLObjectType | GraphQLInterfaceType)
    }
    if schema.query_type:
        meta = {"__schema": SchemaMetaFieldDef, "__type": TypeMetaFieldDef}
        fields[schema.query_type.name] |= {name: field_of(name, field, lists) for name, field in meta.items()}
    return fields


def field_of(coordinate: str, field: GraphQLField, lists: Mapping[str, float]) -> Field:
    parent, _, name = coordinate.partition(".")
    usual = MUTATION if parent == "Mutation" else INTROSPECTION if parent.startswith("__") else Weight()
    weight = WEIGHTS.get(coordinate, usual)
    length = None if "first" in field.args else lists.get(coordinate, 1.0)
    is_list = is_list_type(get_nullable_type(field.type))
    # A connection's edges are as many as the connection's field was asked for.
    if is_list and coordinate not in lists and not (parent.endswith("Connection") and name == "edges"):
        length = OTHER_LIST
    return Field(weight, length, get_named_type(field.type).name)


def introspected(schema: GraphQLSchema) -> dict[str, float]:
    """Count what introspection answers: how many types there are, and what each has on average."""
    types = schema.type_map.values()
    with_fields = [type_ for type_ in types if isinstance(type_, GraphQLObjectType | GraphQLInterfaceType)]
    fields = [field for type_ in with_fields for field in type_.fields.values()]
    inputs = [field for type_ in types if is_input_object_type(type_) for field in type_.fields.values()]
    arguments = sum(len(field.args) for field in fields)
    wrapped = sum(is_wrapping_type(field.type) for field in [*fields, *inputs])
    unions = sum(len(schema.get_possible_types(type_)) for type_ in types if is_abstract_type(type_))
    directives = len(schema.directives)
    return {
        "__Schema.types": len(types),
        "__Schema.directives": directives,
        "__Type.fields": len(fields) / len(types),
        "__Type.inputFields": len(inputs) / len(types),
        "__Type.enumValues": sum(len(type_.values) for type_ in types if is_enum_type(type_)) / len(types),
        "__Type.interfaces": sum(len(type_.interfaces) for type_ in with_fields) / len(types),
        "__Type.possibleTypes": unions / len(types),
        "__Type.ofType": wrapped / len([*fields, *inputs]),
        "__Field.args": arguments / len(fields),
        "__Directive.args": sum(len(each.args) for each in schema.directives) / directives,
        "__Directive.locations": sum(len(each.locations) for each in schema.directives) / directives,
    }
