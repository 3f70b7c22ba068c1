"""Make a large data set on PostgreSQL: as many plans as wanted, as the services would write them.

    python -m tests.benchmarks.dataset --database postgres://postgres@127.0.0.1:5432/NAME --plans 1000

Everything follows from a number, so that whoever drives the service knows ids, session tokens and
invite tokens without asking the database. Only for a database that nobody else uses: one password
fits all, and tokens can be guessed.
"""

from __future__ import annotations

import argparse
import datetime
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import django
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
]


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSet:
    """How much there is, and what its numbers mean; plans, people and invites count from 1.

    The people of a plan follow each other, its owner first; guests, who are in no plan, come after
    all of them. A plan's invites follow each other: those its members used, then the open ones, of
    which the first is for whoever has the link and the others are for an address.
    """

    plans: int
    members: int = 5  # on each plan, the owner among them
    open_invites: int = 3  # on each plan
    sessions: int = 1000  # owners of the first plans who are signed in, and as many guests

    @property
    def user_limit(self) -> int:
        """The setting that leaves each plan one seat."""
        return self.members + self.open_invites + 1

    @property
    def owners_signed_in(self) -> range:
        """The plans whose owners are signed in."""
        return range(1, min(self.plans, self.sessions) + 1)

    def owner(self, plan: int) -> int:
        return (plan - 1) * self.members + 1

    def guest(self, number: int) -> int:
        return self.plans * self.members + number

    def open_invite(self, plan: int, number: int = 1) -> int:
        return (plan - 1) * (self.members - 1 + self.open_invites) + self.members - 1 + number


def email_of(person: int) -> str:
    return f"person{person}@example.com"


def session_token(person: int) -> str:
    return f"{person:032d}"


def invite_token(invite: int) -> str:
    return f"{invite:043d}"


# `joined` is members - 1: how many came to a plan by an invite, one each day after it was created.
STATEMENTS = {
    "people": """
        INSERT INTO auth_user (id, password, is_superuser, username, first_name, last_name, email,
                               is_staff, is_active, date_joined)
        SELECT n, %(password)s, false, md5('person' || n),
               (ARRAY['Ada','Ben','Cleo','Dan','Eva','Finn','Gwen','Hugo'])[1 + n %% 8], 'Person' || n,
               'person' || n || '@example.com', false, true, %(now)s - interval '500 days'
        FROM generate_series(1, %(plans)s * %(members)s + %(sessions)s) n""",
    "verified addresses": """
        INSERT INTO account_emailaddress (id, user_id, email, verified, "primary")
        SELECT n, n, 'person' || n || '@example.com', true, true
        FROM generate_series(1, %(plans)s * %(members)s + %(sessions)s) n""",
    "Zammad users": """
        INSERT INTO zammad_zammaduser (id, zammad_id, email, login, firstname, lastname, phone, mobile,
                                       organization, active, vip, updated_at, synced_at, user_id, auto_link)
        SELECT n, n + 1000, 'person' || n || '@example.com', 'person' || n || '@example.com',
               (ARRAY['Ada','Ben','Cleo','Dan','Eva','Finn','Gwen','Hugo'])[1 + n %% 8], 'Person' || n,
               '', '', 'Organization ' || n %% 1000, true, false,
               %(now)s - interval '100 days', %(now)s - interval '100 days',
               CASE WHEN n <= %(plans)s * %(members)s THEN n END, true
        FROM generate_series(1, %(plans)s * %(members)s + %(sessions)s) n""",
    "plans": """
        INSERT INTO plans_familyplan (id, name, created_at)
        SELECT n, 'Plan ' || n, %(now)s - interval '400 days' + n %% 300 * interval '1 day'
        FROM generate_series(1, %(plans)s) n""",
    "memberships": """
        INSERT INTO plans_membership (id, user_id, family_plan_id, role, joined_at)
        SELECT (plan.id - 1) * %(members)s + n + 1, (plan.id - 1) * %(members)s + n + 1, plan.id,
               CASE n WHEN 0 THEN 'OWNER' ELSE 'MEMBER' END,
               plan.created_at + n * interval '1 day' + least(n, 1) * interval '1 hour'
        FROM plans_familyplan plan, generate_series(0, %(joined)s) n
        ORDER BY plan.id, n""",
    "invites": """
        INSERT INTO plans_familyplaninvite (id, family_plan_id, created_by_id, email, token_digest,
                                            zammad_token_name, created_at, expires_at, user_id, mail_status)
        SELECT id, plan, (plan - 1) * %(members)s + 1,
               CASE WHEN n <= %(joined)s + 1 THEN '' ELSE 'invited' || id || '@example.com' END,
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
              FROM plans_familyplan plan, generate_series(1, %(joined)s + %(open_invites)s) n) invite
        ORDER BY id""",
    "history": """
        INSERT INTO plans_planevent (family_plan_id, kind, actor_id, subject_id, invite_id, at)
        SELECT * FROM (
            SELECT family_plan_id AS plan, 'PLAN_CREATED', user_id, user_id, NULL::bigint AS invite,
                   joined_at AS at
            FROM plans_membership WHERE role = 'OWNER'
            UNION ALL
            SELECT family_plan_id, 'INVITE_CREATED', created_by_id, NULL, id, created_at
            FROM plans_familyplaninvite
            UNION ALL
            SELECT family_plan_id, 'INVITE_ACCEPTED', user_id, user_id, id, created_at + interval '1 hour'
            FROM plans_familyplaninvite WHERE user_id IS NOT NULL
        ) line ORDER BY plan, at, invite""",
}


def fill(data: DataSet) -> None:
    """Fill the tables of an empty, migrated database, whose sequences go on after it.

    Sessions are valid under the SECRET_KEY in force only.
    """
    now = timezone.now().replace(microsecond=0)
    password = make_password(PASSWORD, salt="benchmark")
    values = {
        **asdict(data),
        "joined": data.members - 1,
        "now": now,
        "lasts": LASTS,
        "password": password,
    }
    with connection.cursor() as cursor:
        cursor.execute("SELECT EXISTS (SELECT FROM auth_user) OR EXISTS (SELECT FROM plans_familyplan)")
        if cursor.fetchone() != (False,):
            sys.exit("There are people or plans in this database: name an empty one.")
        with loading(cursor):
            for rows, statement in STATEMENTS.items():
                with timed(rows):
                    cursor.execute(statement, values)
        for table in TABLES:
            cursor.execute(
                f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), max(id)) FROM {table}"  # noqa: S608
            )
        sign_in(cursor, data, password, expires_at=now + LASTS)
        cursor.execute(
            "INSERT INTO constance_constance (key, value) VALUES ('USER_LIMIT', %s)", [dumps(data.user_limit)]
        )


@contextmanager
def loading(cursor: CursorWrapper) -> Iterator[None]:
    """Load tables without their indexes and references, and build and check these in the end.

    That takes half the time, and holds all constraints.
    """
    cursor.execute(
        """SELECT conrelid::regclass, quote_ident(conname), pg_get_constraintdef(oid) FROM pg_constraint
           WHERE conrelid = ANY(%s::regclass[]) AND contype IN ('u', 'f') ORDER BY contype DESC""",
        [TABLES],
    )
    constraints = cursor.fetchall()
    for table, name, _ in constraints:
        cursor.execute(f"ALTER TABLE {table} DROP CONSTRAINT {name}")
    cursor.execute(
        """SELECT indexrelid::regclass, pg_get_indexdef(indexrelid) FROM pg_index
           WHERE indrelid = ANY(%s::regclass[]) AND NOT indisprimary""",
        [TABLES],
    )
    indexes = cursor.fetchall()
    for name, _ in indexes:
        cursor.execute(f"DROP INDEX {name}")
    yield
    with timed("indexes"):
        cursor.execute("SET maintenance_work_mem = '512MB'")
        for _, definition in indexes:
            cursor.execute(definition)
    with timed("references"):
        for table, name, definition in constraints:
            cursor.execute(f"ALTER TABLE {table} ADD CONSTRAINT {name} {definition}")
        cursor.execute("RESET maintenance_work_mem")


@contextmanager
def timed(rows: str) -> Iterator[None]:
    """Tell on the terminal how long a part takes: at a million plans one waits for it."""
    started = time.monotonic()
    yield
    sys.stderr.write(f"  {rows}: {time.monotonic() - started:.1f} s\n")


def sign_in(cursor: CursorWrapper, data: DataSet, password: str, *, expires_at: datetime.datetime) -> None:
    """Write the sessions that allauth would make for the owners of the first plans and for the guests."""
    digest = get_user_model()(password=password).get_session_auth_hash()
    store = SessionStore()
    signed_in = [data.owner(plan) for plan in data.owners_signed_in]
    signed_in += [data.guest(number) for number in range(1, data.sessions + 1)]
    with timed("sessions"):
        cursor.executemany(
            "INSERT INTO django_session (session_key, session_data, expire_date) VALUES (%s, %s, %s)",
            [
                (session_token(person), store.encode(session_of(person, digest)), expires_at)
                for person in signed_in
            ],
        )


def session_of(person: int, digest: str) -> dict[str, object]:
    """Return what a sign-in by password leaves in a session."""
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
    for name in ("--members", "--open-invites", "--sessions"):
        parser.add_argument(name, type=int, default=argparse.SUPPRESS)
    given = vars(parser.parse_args())
    os.environ["DATABASE_URL"] = given.pop("database")
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    django.setup()
    call_command("migrate", interactive=False, verbosity=0)
    fill(DataSet(**given))
    with timed("vacuum"), connection.cursor() as cursor:
        # Now, not when autovacuum finds time for it during a measurement.
        cursor.execute(f"VACUUM (FREEZE, ANALYZE) {', '.join([*TABLES, 'django_session'])}")


if __name__ == "__main__":
    main()
