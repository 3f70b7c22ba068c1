"""Make a large data set on PostgreSQL: as many plans as you want, as the services would write them.

    python -m tests.benchmarks.dataset --database postgres://postgres@127.0.0.1:5432/NAME --plans 1000

Everything follows from a number, so that a client knows IDs, session tokens and invite tokens
without a query. Only for a database that nobody else uses: one password fits all accounts, and
tokens can be guessed.
"""

from __future__ import annotations

import argparse
import datetime
import os
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise

import django
import psycopg
from constance.codecs import dumps
from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, get_user_model
from django.contrib.auth.hashers import make_password
from django.contrib.sessions.backends.db import SessionStore
from django.core.management import call_command
from django.db import connection
from django.db.backends.utils import CursorWrapper
from django.utils import timezone

PASSWORD = "correct horse battery staple"
LASTS = datetime.timedelta(days=30)  # sessions and open invites; the longest that INVITE_TTL_HOURS allows
TABLES = [
    "auth_user",
    "account_emailaddress",
    "zammad_zammaduser",
    "plans_familyplan",
    "plans_membership",
    "plans_familyplaninvite",
    "plans_planevent",
    "zammad_webhookdelivery",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSet:
    """The size of a data set, and the meaning of its numbers; plans, people and invites count from 1.

    The people of a plan are consecutive, its owner first; guests, who are in no plan, come after all
    of them, and a superuser last. A plan's invites are consecutive: first those its members used, then
    the open ones, the first of which is for anybody with the link and the others are for an address.
    There is one delivery per plan, about one of its people.
    """

    plans: int
    members: int = 5  # on each plan, the owner among them
    open_invites: int = 3  # on each plan
    sessions: int = 10_000  # owners who are signed in, and as many guests

    @property
    def user_limit(self) -> int:
        """The setting that leaves one seat free in each plan."""
        return self.members + self.open_invites + 1

    @property
    def owners_signed_in(self) -> range:
        """The plans whose owners are signed in: spread over the table."""
        return range(1, self.plans + 1, max(1, self.plans // self.sessions))[: self.sessions]

    def owner(self, plan: int) -> int:
        return (plan - 1) * self.members + 1

    def guest(self, number: int) -> int:
        return self.plans * self.members + number

    @property
    def superuser(self) -> int:
        return self.guest(self.sessions + 1)

    def newcomer(self, number: int) -> int:
        """Return a person about whom nothing is known yet."""
        return self.superuser + number

    @property
    def events(self) -> int:
        """Count the history events: each plan's creation, each invite's, and each acceptance."""
        return self.plans * (1 + 2 * (self.members - 1) + self.open_invites)

    def open_invite(self, plan: int, number: int = 1) -> int:
        return (plan - 1) * (self.members - 1 + self.open_invites) + self.members - 1 + number


def email_of(person: int) -> str:
    """Return an address whose place in the alphabet does not follow the number, as in life."""
    return f"person{str(person)[::-1]}@example.com"


def session_token(person: int) -> str:
    return f"{person:032d}"


def invite_token(invite: int) -> str:
    return f"{invite:043d}"


# One part of all plans, `first` to `last`, with its people; the last part also has people without a plan.
# `joined` is members - 1: how many joined each plan by an invite, one per day after its creation.
STATEMENTS = {
    "people": """
        INSERT INTO auth_user (id, password, is_superuser, username, first_name, last_name, email,
                               is_staff, is_active, date_joined)
        SELECT n, %(password)s, n = %(superuser)s, md5('person' || n),
               (ARRAY['Ada','Ben','Cleo','Dan','Eva','Finn','Gwen','Hugo'])[1 + n %% 8],
               'Person' || reverse(n::text),
               'person' || reverse(n::text) || '@example.com', n = %(superuser)s, true,
               %(now)s - interval '500 days'
        FROM generate_series(%(first_person)s, %(last_person)s) n""",
    "verified addresses": """
        INSERT INTO account_emailaddress (id, user_id, email, verified, "primary")
        SELECT n, n, 'person' || reverse(n::text) || '@example.com', true, true
        FROM generate_series(%(first_person)s, %(last_person)s) n""",
    "Zammad users": """
        INSERT INTO zammad_zammaduser (id, zammad_id, email, login, firstname, lastname, phone, mobile,
                                       organization, active, vip, updated_at, synced_at, user_id, link_kind,
                                       auto_link)
        SELECT n, n + 1000, 'person' || reverse(n::text) || '@example.com',
               'person' || reverse(n::text) || '@example.com',
               (ARRAY['Ada','Ben','Cleo','Dan','Eva','Finn','Gwen','Hugo'])[1 + n %% 8],
               'Person' || reverse(n::text),
               '', '', 'Organization ' || n %% 1000, true, false,
               %(now)s - interval '100 days', %(now)s - interval '100 days',
               CASE WHEN n <= %(plans)s * %(members)s THEN n END,
               CASE WHEN n <= %(plans)s * %(members)s THEN 'AUTOMATIC' ELSE '' END, true
        FROM generate_series(%(first_person)s, %(last_person)s) n""",
    "plans": """
        INSERT INTO plans_familyplan (id, name, created_at)
        SELECT n, 'Plan ' || n, %(now)s - interval '400 days' + n %% 300 * interval '1 day'
        FROM generate_series(%(first)s, %(last)s) n""",
    "memberships": """
        INSERT INTO plans_membership (id, user_id, family_plan_id, role, joined_at)
        SELECT (plan.id - 1) * %(members)s + n + 1, (plan.id - 1) * %(members)s + n + 1, plan.id,
               CASE n WHEN 0 THEN 'OWNER' ELSE 'MEMBER' END,
               plan.created_at + n * interval '1 day' + least(n, 1) * interval '1 hour'
        FROM plans_familyplan plan, generate_series(0, %(joined)s) n
        WHERE plan.id BETWEEN %(first)s AND %(last)s
        ORDER BY plan.id, n""",
    "invites": """
        INSERT INTO plans_familyplaninvite (id, family_plan_id, created_by_id, email, token_digest,
                                            zammad_token_name, created_at, expires_at, user_id, mail_status)
        SELECT id, plan, (plan - 1) * %(members)s + 1,
               CASE WHEN n <= %(joined)s + 1 THEN ''
                    ELSE 'invited' || reverse(id::text) || '@example.com' END,
               encode(sha256(lpad(id::text, 43, '0')::bytea), 'hex'),
               'family-plan-invite-' || md5('invite' || id)::uuid,
               CASE WHEN n <= %(joined)s THEN created_at + n * interval '1 day'
                    ELSE %(now)s - interval '1 hour' END,
               CASE WHEN n <= %(joined)s THEN created_at + (n + 2) * interval '1 day'
                    ELSE %(now)s + %(lasts)s END,
               CASE WHEN n <= %(joined)s THEN (plan - 1) * %(members)s + n + 1 END,
               CASE WHEN n <= %(joined)s + 1 THEN 'NONE' ELSE 'SENT' END
        FROM (SELECT (plan.id - 1) * (%(joined)s + %(open_invites)s) + n AS id, plan.id AS plan, n,
                     plan.created_at
              FROM plans_familyplan plan, generate_series(1, %(joined)s + %(open_invites)s) n
              WHERE plan.id BETWEEN %(first)s AND %(last)s) invite
        ORDER BY id""",
    "history": """
        INSERT INTO plans_planevent (family_plan_id, kind, actor_id, subject_id, invite_id, at)
        SELECT * FROM (
            SELECT family_plan_id AS plan, 'PLAN_CREATED', user_id, user_id, NULL::bigint AS invite,
                   joined_at AS at
            FROM plans_membership
            WHERE role = 'OWNER'
              AND id BETWEEN (%(first)s - 1) * %(members)s + 1 AND %(last)s * %(members)s
            UNION ALL
            SELECT family_plan_id, kind, actor, subject, id, at
            FROM plans_familyplaninvite invite, LATERAL (VALUES
                ('INVITE_CREATED', created_by_id, NULL, created_at),
                ('INVITE_ACCEPTED', user_id, user_id, created_at + interval '1 hour')
            ) line (kind, actor, subject, at)
            WHERE (kind = 'INVITE_CREATED' OR user_id IS NOT NULL)
              AND id BETWEEN (%(first)s - 1) * (%(joined)s + %(open_invites)s) + 1
                         AND %(last)s * (%(joined)s + %(open_invites)s)
        ) line ORDER BY plan, at, invite""",
    "deliveries": """
        INSERT INTO zammad_webhookdelivery (id, delivery_id, trigger, body_digest, received_at, attempts,
                                            outcome, detail, zammad_user_id)
        SELECT n, md5('delivery' || n)::uuid, 'ticket created',
               encode(sha256(n::text::bytea), 'hex'),
               %(now)s - (%(plans)s - n) * interval '90 days' / %(plans)s, 1,
               CASE WHEN n %% 100 = 0 THEN 'IGNORED' WHEN n %% 10 = 0 THEN 'STALE' ELSE 'APPLIED' END,
               CASE WHEN n %% 100 = 0 THEN 'The body is not JSON.' ELSE '' END,
               CASE WHEN n %% 100 > 0 THEN (n - 1) * %(members)s + 1 + n %% %(members)s END
        FROM generate_series(%(first)s, %(last)s) n""",
}


def fill(data: DataSet, *, at_once: int = 1) -> None:
    """Fill the tables of an empty, migrated database, and set its sequences to continue after it.

    Sessions are valid under the current SECRET_KEY only. Concurrent parts need several connections,
    so there is no transaction around them.
    """
    now = timezone.now().replace(microsecond=0)
    password = make_password(PASSWORD, salt="benchmark")
    values = {
        **asdict(data),
        "joined": data.members - 1,
        "superuser": data.superuser,
        "now": now,
        "lasts": LASTS,
        "password": password,
    }
    with connection.cursor() as cursor:
        cursor.execute("SELECT EXISTS (SELECT FROM auth_user) OR EXISTS (SELECT FROM plans_familyplan)")
        if cursor.fetchone() != (False,):
            sys.exit("There are people or plans in this database: name an empty one.")
        # The sequence numbers the events; earlier tests may have moved it.
        cursor.execute("SELECT setval(pg_get_serial_sequence('plans_planevent', 'id'), 1, false)")
        with loading(cursor, at_once):
            for rows, statement in STATEMENTS.items():
                with timed(rows):
                    execute(((statement, values | part) for part in parts(data, at_once)), at_once)
        for table in TABLES:
            cursor.execute(
                f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), max(id)) FROM {table}"  # noqa: S608
            )
        sign_in(cursor, data, password, expires_at=now + LASTS)
        cursor.execute(
            "INSERT INTO constance_constance (key, value) VALUES ('USER_LIMIT', %s)", [dumps(data.user_limit)]
        )


def parts(data: DataSet, count: int) -> Iterator[dict[str, int]]:
    """Divide the plans and their people into parts that can be written concurrently."""
    for done, last in pairwise(data.plans * part // count for part in range(count + 1)):
        yield {
            "first": done + 1,
            "last": last,
            "first_person": data.owner(done + 1),
            "last_person": data.superuser if last == data.plans else last * data.members,
        }


def execute(jobs: Iterable[tuple[str, Mapping[str, object] | None]], at_once: int) -> None:
    """Execute statements: one after another on this connection, or several concurrently on others."""
    if at_once == 1:
        for job in jobs:
            execute_one(*job)
        return
    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(lambda job: execute_elsewhere(*job), jobs))


def execute_one(statement: str, values: Mapping[str, object] | None = None) -> None:
    connection.ensure_connection()
    # Values are in the text: PostgreSQL would have to guess the types of parameters.
    with psycopg.ClientCursor(connection.connection) as cursor:
        cursor.execute(statement.encode(), values)


def execute_elsewhere(statement: str, values: Mapping[str, object] | None = None) -> None:
    try:
        execute_one(statement, values)
    finally:
        connection.close()


@contextmanager
def loading(cursor: CursorWrapper, at_once: int) -> Iterator[None]:
    """Load tables without their indexes and foreign keys, and create and check these at the end.

    That takes half the time, and enforces all constraints.
    """
    cursor.execute(
        """SELECT indexrelid::regclass, pg_get_indexdef(indexrelid) FROM pg_index
           WHERE indrelid = ANY(%s::regclass[]) AND NOT indisprimary""",
        [TABLES],
    )
    indexes = cursor.fetchall()
    cursor.execute(
        """SELECT contype, conrelid::regclass, quote_ident(conname), pg_get_constraintdef(oid)
           FROM pg_constraint WHERE conrelid = ANY(%s::regclass[]) AND contype IN ('u', 'f')""",
        [TABLES],
    )
    constraints = cursor.fetchall()
    for _, table, name, _ in constraints:
        cursor.execute(f"ALTER TABLE {table} DROP CONSTRAINT {name}")
    for name, _ in indexes:
        cursor.execute(f"DROP INDEX IF EXISTS {name}")
    yield
    # Enough to sort in memory, for this statement only.
    memory = "SET LOCAL maintenance_work_mem = '512MB';"
    with timed("indexes"):
        execute(((f"{memory} {definition}", None) for _, definition in indexes), at_once)
    with timed("references"):
        # Added without a check and validated afterwards, a constraint locks no other table in the meantime.
        checks = defaultdict[str, list[str]](list)
        for kind, table, name, definition in constraints:
            if kind == "u":
                cursor.execute(f"ALTER TABLE {table} ADD CONSTRAINT {name} UNIQUE USING INDEX {name}")
            else:
                cursor.execute(f"ALTER TABLE {table} ADD CONSTRAINT {name} {definition} NOT VALID")
                checks[table].append(f"VALIDATE CONSTRAINT {name}")
        execute(
            ((f"{memory} ALTER TABLE {table} {', '.join(each)}", None) for table, each in checks.items()),
            at_once,
        )


@contextmanager
def timed(rows: str) -> Iterator[None]:
    """Print how long a part takes: a million plans take a while."""
    started = time.monotonic()
    yield
    sys.stderr.write(f"  {rows}: {time.monotonic() - started:.1f} s\n")


def sign_in(cursor: CursorWrapper, data: DataSet, password: str, *, expires_at: datetime.datetime) -> None:
    """Write the sessions that allauth would create for the owners of the first plans and for the guests."""
    digest = get_user_model()(password=password).get_session_auth_hash()
    store = SessionStore()
    signed_in = [data.owner(plan) for plan in data.owners_signed_in]
    signed_in += range(data.guest(1), data.superuser + 1)
    with timed("sessions"):
        cursor.executemany(
            "INSERT INTO config_session (session_key, session_data, expire_date, user_id, auth_hash, client, "
            "created_at, last_used_at) VALUES (%s, %s, %s, %s, %s, '', now(), now())",
            [
                (session_token(person), store.encode(session_of(person, digest)), expires_at, person, digest)
                for person in signed_in
            ],
        )


def session_of(person: int, digest: str) -> dict[str, object]:
    """Return what a sign-in by password stores in a session."""
    return {
        SESSION_KEY: str(person),
        BACKEND_SESSION_KEY: settings.AUTHENTICATION_BACKENDS[0],
        HASH_SESSION_KEY: digest,
        "account_authentication_methods": [
            {"method": "password", "at": time.time(), "email": email_of(person)}
        ],
        "account_authentication_methods_user": str(person),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--database", required=True, help="the address of an empty database")
    parser.add_argument("--plans", type=int, required=True)
    parser.add_argument("--at-once", type=int, default=os.cpu_count(), help="connections (%(default)s)")
    for name in ("--members", "--open-invites", "--sessions"):
        parser.add_argument(name, type=int, default=argparse.SUPPRESS)
    given = vars(parser.parse_args())
    os.environ["DATABASE_URL"] = given.pop("database")
    at_once = given.pop("at_once")
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    django.setup()
    call_command("migrate", interactive=False, verbosity=0)
    fill(DataSet(**given), at_once=at_once)
    with timed("vacuum"):
        # Now, so that autovacuum does not do it during a measurement.
        execute(
            ((f"VACUUM (FREEZE, ANALYZE) {table}", None) for table in [*TABLES, "config_session"]), at_once
        )


if __name__ == "__main__":
    main()
