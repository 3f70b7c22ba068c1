"""Odd operations, made by schemathesis from the schema: nothing breaks, in any role."""

import json
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from django.contrib.auth.models import User
from django.test import Client
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.core.result import Ok

from plans.models import FamilyPlan
from zammad.sandbox import Sandbox

SCHEMA = schemathesis.graphql.from_path(
    Path(__file__).resolve().parent.parent / "graphql_api" / "schema.graphql"
)
OPERATIONS = [result.ok() for result in SCHEMA.get_all_operations() if isinstance(result, Ok)]


@pytest.fixture(params=["nobody", "carol", "alice", "support"])
def client_of_role(request: pytest.FixtureRequest, plan: FamilyPlan) -> Client:
    client = Client(raise_request_exception=False)
    if request.param != "nobody":
        user: User = request.getfixturevalue(request.param)
        client.force_login(user)
    return client


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.label)
@given(data=st.data())
@settings(
    max_examples=10,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    database=None,
)
def test_no_operation_meets_an_internal_error(
    client_of_role: Client, operation: Any, sandbox: Sandbox, data: st.DataObject
) -> None:
    case = data.draw(operation.as_strategy())

    response = client_of_role.post(
        "/graphql/", json.dumps({"query": case.body}), content_type="application/json"
    )

    assert response.status_code in {200, 400}, case.body
    codes = [error.get("extensions", {}).get("code") for error in response.json().get("errors", [])]
    assert "INTERNAL_ERROR" not in codes, case.body
