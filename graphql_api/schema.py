"""Assembly of the schema."""

from __future__ import annotations

from graphql_api.descriptions import describe
from graphql_api.limits import Limits
from graphql_api.mutations import Mutation
from graphql_api.operations import NameOperation, Rules, Schema
from graphql_api.queries import Query
from graphql_api.types import FamilyPlan, FamilyPlanInvite, Membership, PlanEvent, User

schema = Schema(
    query=Query,
    mutation=Mutation,
    types=[FamilyPlan, FamilyPlanInvite, Membership, PlanEvent, User],
    extensions=[NameOperation, Rules, Limits],
)
describe(schema._schema)
