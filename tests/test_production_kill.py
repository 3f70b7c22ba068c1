"""The production server is killed without warning: what it acknowledged is there afterwards.

kill -9 of every process at once, on SQLite and, where TEST_DATABASE_URL names a server, on PostgreSQL.
To let the load run longer before the kill: KILL_AFTER=30 .venv/bin/pytest tests/test_production_kill.py
"""

from __future__ import annotations

import http.client
import itertools
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from django.db import transaction
from django.utils import timezone

from plans.models import DAY, FamilyPlan, FamilyPlanInvite, PlanEvent
from tests.api import node_id
from tests.factories import OwnerFactory, UserFactory
from tests.production import OK, Production, WithholdingSandbox, check_promises, production_server, wait_for
from zammad.models import WebhookDelivery, ZammadUser

KILL_AFTER = float(os.environ.get("KILL_AFTER", "0.5"))  # seconds more of load
CUSTOMERS = 6
OWNERS = 6
EPOCH = datetime(2026, 8, 3, 8, 0, tzinfo=UTC)
CUT = (OSError, http.client.HTTPException)  # how a client sees a server die


@pytest.fixture(
    params=[
        pytest.param("sqlite", marks=pytest.mark.xdist_group("killed-sqlite")),
        pytest.param(
            "postgresql", marks=[pytest.mark.xdist_group("killed-postgresql"), pytest.mark.postgresql]
        ),
    ]
)
def doomed(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    server_databases: None,
) -> Iterator[Production]:
    """Run a server of the test's own, which it may kill."""
    with WithholdingSandbox() as zammad:
        directory = tmp_path_factory.mktemp("doomed")
        with production_server(request.param, directory, zammad_url=zammad.url) as server:
            yield Production(server, zammad)


def test_what_was_acknowledged_under_load_survives_a_kill_and_the_rest_can_be_sent_again(
    doomed: Production,
) -> None:
    server = doomed.server
    killed = threading.Event()
    applied: dict[int, datetime] = {}  # the newest version of each customer that the server acknowledged
    unanswered: dict[int, datetime] = {}
    owners = OwnerFactory.create_batch(OWNERS, family_plan__user_limit=100)
    tokens: list[str] = []

    def deliver_on_and_on(zammad_id: int) -> None:
        for second in itertools.count():
            version = EPOCH + timedelta(seconds=second)
            try:
                answer = server.deliver(zammad_id, version)
            except CUT:
                assert killed.is_set()
                unanswered[zammad_id] = version
                return
            assert (answer.status, answer.body) == (200, b"APPLIED\n")
            applied[zammad_id] = version

    def invite_on_and_on(session: str, plan_id: str) -> None:
        while True:
            try:
                code, answer = server.mutate(session, "createInvite", planId=plan_id)
            except CUT:
                assert killed.is_set()
                return
            if code == "INVITE_LIMIT_REACHED":
                return
            assert code == OK
            tokens.append(answer["token"])

    # given deliveries and invites that pour in
    customers = [100 + number for number in range(CUSTOMERS)]
    pouring: list[Callable[[], None]] = [
        *[partial(deliver_on_and_on, zammad_id) for zammad_id in customers],
        *[
            partial(invite_on_and_on, server.session_of(owner.user), node_id(owner.family_plan))
            for owner in owners
        ],
    ]
    with ThreadPoolExecutor(len(pouring)) as pool:
        running = [pool.submit(pour) for pour in pouring]

        # when every process is killed in the middle of it
        wait_for(lambda: len(applied) == CUSTOMERS and len(tokens) >= OWNERS)
        time.sleep(KILL_AFTER)
        killed.set()
        server.kill()
        for pour in running:
            pour.result()

    # and the server is started again on the same database
    server.start()

    # then every acknowledged version is there, or a newer one
    assert applied.keys() == unanswered.keys() == set(customers)
    stored = dict(ZammadUser.objects.values_list("zammad_id", "updated_at"))
    assert {
        zammad_id: stored[zammad_id] >= version for zammad_id, version in applied.items()
    } == dict.fromkeys(customers, True)
    receipts = WebhookDelivery.objects.filter(outcome="APPLIED").count()
    acknowledged = sum((version - EPOCH).seconds + 1 for version in applied.values())
    assert acknowledged <= receipts <= acknowledged + CUSTOMERS

    # and the rest can be sent again
    for zammad_id, version in unanswered.items():
        assert server.deliver(zammad_id, version).status == 200
    assert dict(ZammadUser.objects.values_list("zammad_id", "updated_at")) == unanswered

    # and every returned token opens its invite
    assert len(tokens) >= OWNERS
    check_promises()
    for token in tokens:
        assert server.mutate(server.session_of(UserFactory()), "acceptInvite", token=token)[0] == OK
    # at most one more invite per owner was written, whose response was cut
    assert FamilyPlanInvite.objects.count() - len(tokens) in range(OWNERS + 1)
    # and each invite has the event that was written with it
    made = PlanEvent.objects.filter(kind="INVITE_CREATED").values_list("invite_id", flat=True)
    assert sorted(made) == sorted(FamilyPlanInvite.objects.values_list("pk", flat=True))
    check_promises()


def test_a_crash_between_zammads_answer_and_our_commit_leaves_a_powerless_token_at_most(
    doomed: Production,
) -> None:
    # given an open invite, whose token is already old
    server, zammad = doomed.server, doomed.zammad
    owner = OwnerFactory()
    session = server.session_of(owner.user)
    invite = partial(server.mutate, session, "createInvite", planId=node_id(owner.family_plan))
    code, kept = invite()
    assert code == OK
    [_, kept_row] = zammad.records["tokens"].values()

    # when the server has Zammad's response, waits for the plan's lock to write it, and is killed there
    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            FamilyPlan.objects.select_for_update().get(pk=owner.family_plan_id)
            cut = pool.submit(pytest.raises, CUT, invite)
            wait_for(lambda: len(zammad.records["tokens"]) == 3)
            time.sleep(0.3)  # nothing outside shows that a process waits for a lock of SQLite
            server.kill()
        cut.result()

    # then there is no trace of the second invite here, and one token without rights in Zammad
    assert FamilyPlanInvite.objects.count() == PlanEvent.objects.filter(kind="INVITE_CREATED").count() == 1
    lost_row = list(zammad.records["tokens"].values())[-1]
    assert lost_row["permissions"] == frozenset()
    assert lost_row["name"].startswith("family-plan-invite-")

    # and reconcile_invites keeps it while its invite may still be on its way
    assert reconciled(doomed) == {"deleted": 0, "needed": 1, "young": 1, "foreign": 1}
    assert lost_row in zammad.records["tokens"].values()

    # and removes it later, but never one of an open invite
    earlier = (timezone.now() - timedelta(hours=2)).isoformat()
    lost_row["created_at"] = kept_row["created_at"] = earlier
    assert reconciled(doomed) == {"deleted": 1, "needed": 1, "young": 0, "foreign": 1}
    assert lost_row not in zammad.records["tokens"].values()
    assert kept_row in zammad.records["tokens"].values()

    # and the server goes on as if nothing had happened
    server.start()
    assert invite()[0] == OK
    person = server.session_of(UserFactory())
    assert server.mutate(person, "acceptInvite", token=kept["token"])[0] == OK
    check_promises()


def test_a_crash_while_zammad_still_thinks_leaves_the_same(doomed: Production) -> None:
    # given a Zammad that has created the token and withholds its response
    server, zammad = doomed.server, doomed.zammad
    owner = OwnerFactory()
    session = server.session_of(owner.user)
    zammad.withholds = True

    # when the server is killed there
    with ThreadPoolExecutor(1) as pool:
        invite = partial(server.mutate, session, "createInvite", planId=node_id(owner.family_plan))
        cut = pool.submit(pytest.raises, CUT, invite)
        wait_for(lambda: len(zammad.records["tokens"]) == 2)
        server.kill()
        cut.result()

    # then nothing is here, and the token that nobody holds is removed once it is old
    assert not FamilyPlanInvite.objects.exists()
    zammad.records["tokens"][2]["created_at"] = (timezone.now() - DAY).isoformat()
    assert reconciled(doomed) == {"deleted": 1, "needed": 0, "young": 0, "foreign": 1}
    assert list(zammad.records["tokens"]) == [1]


def reconciled(doomed: Production) -> dict[str, int]:
    """Run the command as cron would, and return the numbers it prints."""
    done = doomed.server.manage("reconcile_invites")
    assert done.returncode == 0, done.stderr
    numbers = map(int, re.findall(r"\d+", done.stdout))
    return dict(zip(["deleted", "needed", "young", "foreign"], numbers, strict=True))
