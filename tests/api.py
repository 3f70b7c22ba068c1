"""A client of the GraphQL API over HTTP: each call runs as one person, or anonymously."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

from django.contrib.auth.models import User
from django.db.models import Model
from django.test import Client

from graphql_api.schema import schema

URL = "/graphql/"
JSON = "application/json"


def client_of(viewer: User | None) -> Client:
    client = Client()
    if viewer is not None:
        client.force_login(viewer)
    return client


def post(client: Client, query: str, variables: object = None, **headers: str) -> Any:
    """Send an operation, and return the HTTP response."""
    body = json.dumps({"query": query, "variables": variables})
    return client.post(URL, body, content_type=JSON, headers=headers)


def answer(viewer: User | None, query: str, **variables: object) -> dict[str, Any]:
    """Run an operation, and return the whole body of the response."""
    response = post(client_of(viewer), query, variables)
    assert response.status_code == 200, response.content
    body: dict[str, Any] = response.json()
    return body


def ask(viewer: User | None, query: str, **variables: object) -> Any:
    """Run an operation with one field, and return its value; an error fails the test."""
    body = answer(viewer, query, **variables)
    assert "errors" not in body, body["errors"]
    [(_, found)] = body["data"].items()
    return found


def codes_by_mutation() -> dict[str, list[str]]:
    """List the codes that each mutation's description names."""
    assert schema._schema.mutation_type
    return {
        name: re.findall(r"`([A-Z_]+)`", (field.description or "").split("**Refused with:**")[1])
        for name, field in schema._schema.mutation_type.fields.items()
    }


def refusal_of(viewer: User | None, query: str, **variables: object) -> dict[str, Any]:
    """Run a mutation that is refused, and return the only message of its OperationInfo.

    Its code is among those in the mutation's description.
    """
    body = answer(viewer, query, **variables)
    assert "errors" not in body, body["errors"]
    [(mutation, info)] = body["data"].items()
    assert info.pop("__typename") == "OperationInfo", info
    [message] = info.pop("messages")
    assert info == {}
    assert message["code"] in codes_by_mutation()[mutation]
    return dict(message)


def node_id(row: Model, type_name: str = "") -> str:
    """Return the node ID of a row, or of the row of another type with the same key."""
    return to_base64(f"{type_name or type(row).__name__}:{row.pk}")


def to_base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
