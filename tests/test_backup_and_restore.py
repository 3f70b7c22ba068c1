"""A backup taken while people are invited restores into a service that works.

With the tools that operators have: sqlite3 for a file, pg_dump and pg_restore for PostgreSQL.
"""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import constance
import pytest
from django.core.management import call_command
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from plans.models import FamilyPlan, FamilyPlanInvite, digest_of
from plans.services import accept_invite
from tests.api import node_id
from tests.factories import MembershipFactory, OwnerFactory, UserFactory
from tests.production import KINDS, OK, Production, check_promises, orm_on, wait_for
from tests.server import scratch_database
from zammad.models import LinkChange, WebhookDelivery, ZammadUser


@contextmanager
def pouring(invite: Callable[[], tuple[str, dict[str, object]]]) -> Iterator[list[str]]:
    """Invite concurrently with the block, and collect the tokens."""
    tokens: list[str] = []
    enough = threading.Event()

    def pour() -> None:
        while not enough.is_set():
            code, answer = invite()
            if code != OK:
                return
            tokens.append(str(answer["token"]))

    thread = threading.Thread(target=pour)
    thread.start()
    try:
        yield tokens
    finally:
        enough.set()
        thread.join()


def run(*command: str) -> None:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is missing")
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def back_up_with_backup(source: str, _target: str, copy: Path) -> None:
    run("sqlite3", source.removeprefix("sqlite:///"), f".backup {copy}")


def back_up_with_vacuum(source: str, _target: str, copy: Path) -> None:
    run("sqlite3", source.removeprefix("sqlite:///"), f"VACUUM INTO '{copy}'")


def back_up_with_pg_dump(source: str, target: str, copy: Path) -> None:
    run("pg_dump", "--format=custom", f"--file={copy}", source)
    run("pg_restore", "--no-owner", "--exit-on-error", f"--dbname={target}", str(copy))


@pytest.mark.parametrize(
    ("_production", "back_up"),
    [
        pytest.param("sqlite", back_up_with_backup, id="sqlite-backup", marks=KINDS[0].marks),
        pytest.param("sqlite", back_up_with_vacuum, id="sqlite-vacuum-into", marks=KINDS[0].marks),
        pytest.param("postgresql", back_up_with_pg_dump, id="postgresql", marks=KINDS[1].marks),
    ],
    indirect=["_production"],
)
def test_a_backup_taken_while_serving_restores_and_an_invite_from_before_still_opens(
    production: Production, back_up: Callable[[str, str, Path], None], tmp_path: Path
) -> None:
    # given a server that is kept busy with invites
    server = production.server
    constance.config.INVITES_PER_DAY = 10_000
    owner = OwnerFactory(family_plan__user_limit=100)
    MembershipFactory.create_batch(3, family_plan=owner.family_plan)
    kind = "sqlite" if server.database_url.startswith("sqlite") else "postgresql"
    invite = partial(
        server.mutate, server.session_of(owner.user), "createInvite", planId=node_id(owner.family_plan)
    )
    with scratch_database(kind, tmp_path) as target:
        copy = tmp_path / "copy"
        with pouring(invite) as tokens:
            wait_for(lambda: len(tokens) >= 5)

            # when a backup is made at the same time
            before = list(tokens)
            back_up(server.database_url, target, copy)

        # then a new database holds every response from before it
        restored = f"sqlite:///{copy}" if kind == "sqlite" else target
        with orm_on(restored):
            call_command("migrate", check_unapplied=True, verbosity=0)
            check_promises()
            found = FamilyPlanInvite.objects.filter(token_digest__in=map(digest_of, before))
            assert found.count() == len(before)
            assert constance.config.INVITES_PER_DAY == 10_000
            # and an invite from before still opens, and no other row is in its way
            person = UserFactory()
            joined = accept_invite(actor=person, token=before[0]).membership.family_plan
            assert joined.memberships.count() == 5
            check_promises()


# --- Migrations ------------------------------------------------------------------------------------

DATABASES = [pytest.param("sqlite"), pytest.param("postgresql", marks=pytest.mark.postgresql)]
FIRST = [("plans", "0001_initial"), ("zammad", "0001_initial")]
NOW = datetime(2026, 8, 3, 9, 0, tzinfo=UTC)


@pytest.mark.parametrize("kind", DATABASES)
def test_an_empty_database_is_migrated_step_by_step(
    kind: str, tmp_path: Path, server_databases: None
) -> None:
    with scratch_database(kind, tmp_path) as url, orm_on(url):
        # when each migration is applied by itself, as if every version were installed
        executor = MigrationExecutor(connection)
        for migration, _backwards in executor.migration_plan(executor.loader.graph.leaf_nodes()):
            MigrationExecutor(connection).migrate([(migration.app_label, migration.name)])

        # then nothing is left to migrate, and the service works
        call_command("migrate", check_unapplied=True, verbosity=0)
        call_command("makemigrations", check_changes=True, dry_run=True, verbosity=0)
        OwnerFactory()
        check_promises()


@pytest.mark.parametrize("kind", DATABASES)
def test_a_full_database_of_the_first_version_keeps_everything(
    kind: str, tmp_path: Path, server_databases: None
) -> None:
    with scratch_database(kind, tmp_path) as url, orm_on(url):
        # given a database of the first version, with a plan, a member, an invite and a Zammad user
        executor = MigrationExecutor(connection)
        needed = [key for key in executor.loader.graph.leaf_nodes() if key[0] not in {"plans", "zammad"}]
        fill(executor.migrate([*FIRST, *needed]).apps)

        # when it is migrated to the newest
        call_command("migrate", verbosity=0)

        # then everything is there, and works
        call_command("migrate", check_unapplied=True, verbosity=0)
        plan = FamilyPlan.objects.get()
        assert (plan.name, plan.user_limit, plan.memberships.count()) == ("The Archers", 3, 2)
        assert plan.invites.get(is_used=True).user == ZammadUser.objects.get(zammad_id=57).user
        check_promises()
        assert accept_invite(actor=UserFactory(), token="t" * 43).membership.family_plan == plan
        check_promises()


def fill(apps: Any) -> None:
    """Write rows as the first version did."""
    user, plan = apps.get_model("auth", "User"), apps.get_model("plans", "FamilyPlan")
    owner, member = (user.objects.create(username=name, email=f"{name}@example.com") for name in "ab")
    archers = plan.objects.create(name="The Archers", user_limit=3)
    for person, role in ((owner, "OWNER"), (member, "MEMBER")):
        apps.get_model("plans", "Membership").objects.create(user=person, family_plan=archers, role=role)
    for number, person in ((1, member), (2, None)):
        apps.get_model("plans", "FamilyPlanInvite").objects.create(
            family_plan=archers,
            created_by=owner,
            token_digest=digest_of("t" * 43) if person is None else "0" * 64,
            zammad_token_name=f"family-plan-invite-{number}",
            expires_at=datetime(2999, 1, 1, tzinfo=UTC),
            user=person,
        )
    apps.get_model("zammad", "ZammadUser").objects.create(zammad_id=57, user=member, updated_at=NOW)


@pytest.mark.parametrize("kind", DATABASES)
def test_links_of_the_version_before_stay_and_get_their_kind(
    kind: str, tmp_path: Path, server_databases: None
) -> None:
    with scratch_database(kind, tmp_path) as url, orm_on(url):
        # given automatic links and links by staff, with the history that each version of admin wrote
        executor = MigrationExecutor(connection)
        needed = [key for key in executor.loader.graph.leaf_nodes() if key[0] in {"admin", "auth", "account"}]
        apps = executor.migrate([("zammad", "0002_search_indexes"), *needed]).apps
        users = [apps.get_model("auth", "User").objects.create(username=str(number)) for number in range(7)]
        content_type, _ = apps.get_model("contenttypes", "ContentType").objects.get_or_create(
            app_label="zammad", model="zammaduser"
        )
        told: list[tuple[bool, str, str]] = [
            (True, "", "AUTOMATIC"),
            (False, "", "HAND"),
            (True, '[{"journey": {"done": "Linked to user %(id)s.", "id": PERSON}}]', "HAND"),
            (True, "Linked to user PERSON.", "HAND"),
            (True, '[{"journey": {"done": "Linked to user %(id)s.", "id": 0}}]', "AUTOMATIC"),
            (True, '[{"journey": {"done": "Unlinked from user %(id)s.", "id": PERSON}}]', "AUTOMATIC"),
            (True, "[Linked to user PERSON.", "AUTOMATIC"),
        ]
        for number, (auto_link, message, _kind) in enumerate(told):
            row = apps.get_model("zammad", "ZammadUser").objects.create(
                zammad_id=10 + number, user_id=users[number].pk, auto_link=auto_link, updated_at=NOW
            )
            if message:
                apps.get_model("admin", "LogEntry").objects.create(
                    user_id=users[0].pk,
                    content_type_id=content_type.pk,
                    object_id=str(row.pk),
                    action_flag=2,
                    change_message=message.replace("PERSON", str(users[number].pk)),
                )
        apps.get_model("zammad", "WebhookDelivery").objects.create(
            body_digest="0" * 64, outcome="APPLIED", received_at=NOW
        )

        # when it is migrated to the newest version
        call_command("migrate", verbosity=0)

        # then every link is kept, with its kind
        found = ZammadUser.objects.order_by("zammad_id").values_list("user", "link_kind")
        assert list(found) == [
            (user.pk, kind) for user, (_auto, _message, kind) in zip(users, told, strict=True)
        ]
        assert not LinkChange.objects.exists()
        assert WebhookDelivery.objects.last_received_at() == NOW
