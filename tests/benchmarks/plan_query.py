"""The plan query: an owner queries their plan, with members, open invites and seats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.benchmarks.bench import Bench, table
from tests.benchmarks.dataset import DataSet, session_token
from tests.benchmarks.load import Request
from tests.benchmarks.servers import SERVICE, Candidate, Stack

MEMBERS = 6  # the owner and five more
QUERY = """{ viewer { plan {
  id name userLimit seatsTaken seatsAvailable createdAt
  owner { id displayName email }
  members { id role joinedAt zammadUserId user { id displayName email } }
  invites(%s) { edges { node { id email status expiresAt createdAt mailStatus } } }
} } }"""
RIVALS = Path(__file__).with_name("rivals")
GRAPHENE = Stack(
    name="graphene",
    settings="tests.benchmarks.rivals.graphene_settings",
    lock=RIVALS / "graphene.txt",
)
ARIADNE = Stack(
    name="ariadne",
    settings="tests.benchmarks.rivals.ariadne_settings",
    lock=RIVALS / "ariadne.txt",
)
GRAPHQL_ERRORS = '"errors"'


def run(bench: Bench) -> str:
    data = DataSet(plans=bench.plans, members=MEMBERS)
    with bench.database(data) as database_url:
        measured = bench.compare(candidates(data), database_url)
    return f"## The plan query, {bench.plans} plans\n\n{table(measured, 'a plain Django view')}"


def candidates(data: DataSet) -> list[Candidate]:
    return [
        Candidate(
            name="a plain Django view",
            requests=requests(data, "/rivals/plain/"),
            values=plan_of_view,
        ),
        graphql(data, "this service", "/graphql/"),
        graphql(data, "strawberry-django", "/rivals/strawberry-django/", status="filters: {status: OPEN}"),
        graphql(data, "graphene-django", "/graphql/", stack=GRAPHENE),
        graphql(data, "Ariadne", "/graphql/", stack=ARIADNE),
        Candidate(name="an empty view", requests=requests(data, "/rivals/empty/")),
    ]


def graphql(
    data: DataSet, name: str, path: str, *, status: str = "status: OPEN", stack: Stack = SERVICE
) -> Candidate:
    """Return a candidate for the query; its argument for open invites may be spelled differently."""
    return Candidate(
        name=name,
        stack=stack,
        requests=requests(data, path, json.dumps({"query": QUERY % status})),
        values=plan_of_graphql,
        unwanted=[GRAPHQL_ERRORS],
    )


def requests(data: DataSet, path: str, body: str = "{}") -> list[Request]:
    """Return a request from each owner who is signed in."""
    return [
        Request(
            path=path,
            body=body,
            headers={
                "Content-Type": "application/json",
                "X-Session-Token": session_token(data.owner(plan)),
            },
        )
        for plan in data.owners_signed_in
    ]


def plan_of_view(body: bytes) -> Any:
    return expected(json.loads(body)["plan"])


def plan_of_graphql(body: bytes) -> Any:
    # Django writes a time with Z, GraphQL libraries with +00:00.
    plan = json.loads(body.replace(b"+00:00", b"Z"))["data"]["viewer"]["plan"]
    return expected({**plan, "invites": [edge["node"] for edge in plan["invites"]["edges"]]})


def expected(plan: dict[str, Any]) -> dict[str, Any]:
    """Check a plan against the data set, so that candidates cannot agree on less."""
    owner, *others = plan["members"]
    assert (owner["role"], owner["user"]) == ("OWNER", plan["owner"])
    assert owner["zammadUserId"]
    assert all(member["user"]["email"] for member in others)
    assert len(others) == MEMBERS - 1
    assert [invite["status"] for invite in plan["invites"]] == ["OPEN"] * 3
    assert (plan["seatsTaken"], plan["seatsAvailable"]) == (MEMBERS + 3, 1)
    return plan
