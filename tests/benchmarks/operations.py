"""The service's operations as requests to a data set, each with a text that shows it did its work."""

from __future__ import annotations

import datetime
import hashlib
import hmac
import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

from tests.benchmarks.dataset import DataSet, email_of, invite_token, session_token
from tests.benchmarks.families import ANSWERS, MUTATION, graphql, node_id
from tests.benchmarks.load import Request
from tests.benchmarks.plan_query import QUERY
from tests.benchmarks.webhook import SAMPLE

PLANS = """query ($after: String, $last: Int, $filters: PlanFilters) {
  plans(after: $after, last: $last, filters: $filters) {
    edges { cursor node { id name seatsTaken owner { displayName } } } pageInfo { hasNextPage } } }"""
PREVIEW = "query ($token: String!) { invite(token: $token) { planName ownerName status } }"
ONE_PLAN = """query ($id: ID!) { plan(id: $id) { name members { user { email } zammadUser { zammadId } }
  invites { edges { node { id user { email } } } }
  events { edges { node { kind actor { id } subject { id } invite { id } } } } } }"""
BY_ZAMMAD_USER = "query ($id: Int!) { planByZammadUser(zammadUserId: $id) { name } }"
NODE = "query ($id: ID!) { node(id: $id) { id __typename } }"
MUTATIONS = {
    **ANSWERS,
    "createPlan": "CreatedPlan { plan { name } }",
    "reissueInvite": "CreatedInvite { token url invite { id status expiresAt } }",
    "revokeInvite": "RevokedInvite { invite { id status } }",
    "transferOwnership": "TransferredOwnership { plan { name } }",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A request, and a text that is in the response only if it did its work."""

    request: Request
    wanted: str
    status: int = 200

    def is_done_by(self, status: int, body: bytes) -> bool:
        return status == self.status and self.wanted.encode() in body and b'"errors"' not in body


def query(person: int, text: str, wanted: str, /, **variables: object) -> Operation:
    return Operation(request=graphql(person, text, **variables), wanted=wanted)


def mutation(person: int, field: str, wanted: str, /, **values: object) -> Operation:
    text = MUTATION % (field[0].upper() + field[1:], field, MUTATIONS[field])
    return query(person, text, wanted, input=values)


# --- The most frequent operations -----------------------------------------------------------------


def plan_query(data: DataSet, plan: int) -> Operation:
    """An owner queries their plan, with members, open invites and seats."""
    return query(data.owner(plan), QUERY % "status: OPEN", f'"name":"Plan {plan}"')


def accept_invite(data: DataSet, plan: int, guest: int) -> Operation:
    """A guest takes the seat that the plan's open link gives."""
    token = invite_token(data.open_invite(plan))
    return mutation(data.guest(guest), "acceptInvite", '"role":"MEMBER"', token=token)


def delivery(secret: str, person: int, *, updated_at: datetime.datetime, wanted: str) -> Operation:
    """Zammad sends a version of a person, from a given moment."""
    customer = {
        **SAMPLE["ticket"]["customer"],
        "id": person + 1000,
        "email": email_of(person),
        "login": updated_at.isoformat(),
        "updated_at": updated_at.isoformat(),
    }
    body = json.dumps({**SAMPLE, "ticket": {**SAMPLE["ticket"], "customer": customer}})
    signature = hmac.new(secret.encode(), body.encode(), hashlib.sha1).hexdigest()
    headers = {
        "Content-Type": "application/json",
        "X-Hub-Signature": f"sha1={signature}",
        "X-Zammad-Delivery": str(uuid.uuid4()),
        "X-Zammad-Trigger": "ticket created",
    }
    return Operation(request=Request(path="/webhooks/zammad/", body=body, headers=headers), wanted=wanted)


def deliveries(
    data: DataSet, secret: str, plans: list[int], *, now: datetime.datetime
) -> Iterator[Operation]:
    """Send, for each plan, a new person, its owner in a newer version, and its owner in an older one."""
    long_ago = now - datetime.timedelta(days=365)
    for number, plan in enumerate(plans):
        match number % 3:
            case 0:
                yield delivery(secret, data.newcomer(plan), updated_at=now, wanted="APPLIED")
            case 1:
                yield delivery(secret, data.owner(plan), updated_at=now, wanted="APPLIED")
            case _:
                yield delivery(secret, data.owner(plan), updated_at=long_ago, wanted="STALE")


# --- Operations of staff --------------------------------------------------------------------------


def page_of_plans(data: DataSet, after: int) -> Operation:
    """Staff open the hundred plans that follow one of them."""
    cursor = {"after": node_id("cursor", after)} if after else {}
    return query(data.superuser, PLANS, f'"name":"Plan {after + 1}"', **cursor)


def plans_found(data: DataSet, wanted: str, **filters: str) -> Operation:
    return query(data.superuser, PLANS, wanted, filters=filters)


def admin_page(data: DataSet, page: str, wanted: str, **query: object) -> Operation:
    path = f"/admin/{page}{'?' if query else ''}{urlencode(query)}"
    cookie = {"Cookie": f"sessionid={session_token(data.superuser)}"}
    return Operation(request=Request(method="GET", path=path, headers=cookie), wanted=wanted)


# --- Frequent operations, each once ---------------------------------------------------------------


def hot_operations(data: DataSet, secret: str, *, now: datetime.datetime) -> dict[str, Operation]:
    """Return the frequent operations, by name: each for a plan of its own, so that none disturbs another."""
    owners = iter(data.owners_signed_in)
    middle = data.plans // 2

    def by_owner(name: str, wanted: str, **named: Any) -> Operation:
        plan = next(owners)
        values = {key: node_id(kind, key_of(plan)) for key, (kind, key_of) in named.items()}
        return mutation(data.owner(plan), name, wanted, **values)

    invite = ("FamilyPlanInvite", lambda plan: data.open_invite(plan))
    member = ("Membership", lambda plan: data.owner(plan) + 1)
    person = middle * data.members
    return {
        "plan query": plan_query(data, next(owners)),
        "invite": query(
            data.guest(2), PREVIEW, '"status":"OPEN"', token=invite_token(data.open_invite(next(owners)))
        ),
        "createPlan": mutation(
            data.superuser, "createPlan", '"name":"New"', name="New", ownerEmail=email_of(data.guest(3))
        ),
        "createInvite": by_owner("createInvite", '"token"', planId=("FamilyPlan", lambda plan: plan)),
        "acceptInvite": accept_invite(data, next(owners), 1),
        "reissueInvite": by_owner("reissueInvite", '"token"', inviteId=invite),
        "revokeInvite": by_owner("revokeInvite", '"status":"EXPIRED"', inviteId=invite),
        "detachMember": by_owner("detachMember", '"status":"EXPIRED"', membershipId=member),
        "transferOwnership": by_owner("transferOwnership", '"plan"', membershipId=member),
        "webhook, new": delivery(secret, data.newcomer(1), updated_at=now, wanted="APPLIED"),
        "webhook, newer": delivery(secret, person, updated_at=now, wanted="APPLIED"),
        "webhook, stale": delivery(
            secret, person - 1, updated_at=now - datetime.timedelta(days=365), wanted="STALE"
        ),
        "plans, first page": page_of_plans(data, 0),
        "plans, a page in the middle": page_of_plans(data, middle),
        "plans, last page": query(data.superuser, PLANS, f'"name":"Plan {data.plans}"', last=100),
        "plans by owner": plans_found(
            data, f'"name":"Plan {middle}"', ownerEmail=email_of(data.owner(middle))
        ),
        "plan with its history": query(data.superuser, ONE_PLAN, '"kind"', id=node_id("FamilyPlan", middle)),
        "planByZammadUser": query(
            data.superuser, BY_ZAMMAD_USER, f'"name":"Plan {middle}"', id=person + 1000
        ),
        **{
            f"node of {kind}": query(data.superuser, NODE, f'"__typename":"{kind}"', id=node_id(kind, middle))
            for kind in ("Membership", "FamilyPlanInvite", "PlanEvent", "User")
        },
    }


def admin_pages(data: DataSet) -> dict[str, Operation]:
    """Return the admin pages, by what staff look for."""
    middle = data.plans // 2 + 1
    member = data.owner(middle) + 1
    table, nothing = "result_list", "0 results"
    plans, invites, people = "plans/familyplan/", "plans/familyplaninvite/", "auth/user/"
    zammad_users, deliveries = "zammad/zammaduser/", "zammad/webhookdelivery/"

    def page(path: str, wanted: str = table, **query: object) -> Operation:
        return admin_page(data, path, wanted, **query)

    return {
        "dashboard": page("", "Open invites"),
        "plans": page(plans),
        "plans, last page counted": page(plans, p=200),
        "plans, open": page(plans, state="open"),
        "plans, closed": page(plans, nothing, state="closed"),
        "plans, by start of name": page(plans, q=f"plan {middle}"),
        "plans, by a rare name": page(plans, nothing, q="nobody has it"),
        "plans, by id": page(plans, q=middle),
        "plans, by owner": page(plans, q=email_of(data.owner(middle))),
        "a plan": page(f"{plans}{middle}/change/", email_of(member)),
        "a plan's history": page(f"{plans}{middle}/history/", "Plan"),
        "invites": page(invites),
        "invites, last page counted": page(invites, p=200),
        "invites, open": page(invites, status="OPEN"),
        "invites, used": page(invites, status="USED"),
        "invites, expired": page(invites, nothing, status="EXPIRED"),
        "invites, by start of address": page(invites, q="invited12"),
        "invites, open, by a rare address": page(invites, nothing, q="nobody@", status="OPEN"),
        "invites, expired, by start of address": page(invites, nothing, q="invited12", status="EXPIRED"),
        "an invite": page(f"{invites}{data.open_invite(middle)}/change/", "Revoke"),
        "Zammad users": page(zammad_users),
        "Zammad users, last page counted": page(zammad_users, p=200),
        "Zammad users, by start of address": page(zammad_users, q="person12"),
        "Zammad users, by a rare name": page(zammad_users, nothing, q="nobody has it"),
        "Zammad users, by a common name": page(zammad_users, q="ada"),
        "Zammad users, by a last name": page(zammad_users, q="person4321"),
        "Zammad users, by Zammad ID": page(zammad_users, q=member + 1000),
        "a Zammad user": page(f"{zammad_users}{member}/change/", email_of(member)),
        "a Zammad user, from Zammad": replace(page(f"zammad-user/{member + 1000}/", ""), status=302),
        "deliveries": page(deliveries),
        "deliveries, last page counted": page(deliveries, p=199),
        "deliveries, ignored": page(deliveries, outcome__exact="IGNORED"),
        "deliveries, by Zammad ID": page(deliveries, q=data.owner(middle) + middle % data.members + 1000),
        "deliveries, by a rare id": page(deliveries, nothing, q=uuid.UUID(int=0)),
        "people": page(people),
        "people, second page": page(people, p=2),
        "people, staff": page(people, is_staff__exact=1),
        "people, superusers": page(people, is_superuser__exact=1),
        "people, inactive": page(people, nothing, is_active__exact=0),
        "people, by address": page(people, q=email_of(member)),
        "people, by a rare name": page(people, nothing, q="nobody has it"),
        "people, by a common name": page(people, q="Ada"),
        "a person": page(f"{people}{member}/change/", email_of(member)),
        "people offered for a link": page(
            "autocomplete/",
            email_of(member),
            app_label="zammad",
            model_name="zammaduser",
            field_name="user",
            term=email_of(member),
        ),
        "addresses": page("account/emailaddress/"),
        "addresses, by address": page("account/emailaddress/", q=email_of(member)),
    }
