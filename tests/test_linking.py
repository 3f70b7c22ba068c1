"""Who is linked to whom: the rule, compared with a second version of it, by every way that changes a link."""

from __future__ import annotations

import json
import random
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any
from unittest import mock

import pytest
from allauth.account.models import EmailAddress
from django.contrib.auth.models import Permission, User
from django.core.management import call_command
from django.db import connection, transaction
from django.test import Client

from plans.models import FamilyPlan
from tests.admin_pages import as_person, text_of, url
from tests.api import ask
from tests.deliveries import deliver_body
from tests.factories import PASSWORD, UserFactory, ZammadUserFactory
from zammad.addresses import ascii_form, spellings
from zammad.linking import AlreadyLinked, Neighbourhood, decide, explain, link_by_hand, settle_links, unlink
from zammad.models import LinkChange, WebhookDelivery, ZammadUser
from zammad.sandbox import Sandbox

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 8, 3, 9, 0, tzinfo=UTC)
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
# One address, in letters and in IDNA's ASCII.
IN_LETTERS, IN_ASCII = "carol@bücher.example", "carol@xn--bcher-kva.example"


class Clock:
    """Moments in order, for versions of users."""

    def __init__(self) -> None:
        self.moment = datetime(2026, 8, 3, 8, 0, tzinfo=UTC)

    def __call__(self) -> str:
        self.moment += timedelta(milliseconds=1)
        return self.moment.isoformat()


tick = Clock()


def deliver(zammad_id: int, email: str, *, active: bool = True) -> WebhookDelivery:
    """Let Zammad send the newest version of a user."""
    customer = {"id": zammad_id, "email": email, "active": active, "updated_at": tick()}
    body = json.dumps({"ticket": {"customer": customer}, "article": {}}).encode()
    return deliver_body(body, now=NOW)


def links() -> dict[int, tuple[User | None, str]]:
    """Return person and kind by Zammad ID."""
    return {each.zammad_id: (each.user, each.link_kind) for each in ZammadUser.objects.select_related("user")}


@pytest.fixture
def agent(db: None) -> User:
    agent: User = UserFactory(email="agent@example.com", is_staff=True)
    agent.user_permissions.add(Permission.objects.get(codename="change_zammaduser"))
    return agent


# --- The rule ---------------------------------------------------------------------------------


def test_the_person_who_verified_the_address_is_linked(carol: User) -> None:
    delivery = deliver(57, " Carol@Example.com")

    assert (delivery.outcome, delivery.detail) == ("APPLIED", "linked")
    assert WebhookDelivery.objects.get().detail == "linked"
    assert links() == {57: (carol, "AUTOMATIC")}
    change = LinkChange.objects.get()
    assert (change.from_user, change.to_user, change.why) == (None, carol, "MATCHES")
    assert (change.delivery, change.at) == (delivery, NOW)


def test_an_address_that_nobody_verified_links_nobody() -> None:
    UserFactory(email="carol@example.com", verified=False)

    deliver(57, "carol@example.com")

    assert links() == {57: (None, "")}
    assert explain(ZammadUser.objects.get()) == "NOBODY"


def test_a_user_without_an_address_is_nobodys(carol: User) -> None:
    EmailAddress.objects.filter(user=carol).update(email="")

    deliver(57, "")

    assert links() == {57: (None, "")}


def test_an_inactive_person_is_linked_to_nobody(carol: User) -> None:
    User.objects.filter(pk=carol.pk).update(is_active=False)

    deliver(57, "carol@example.com")

    assert links() == {57: (None, "")}


def test_a_link_ends_when_the_user_is_deactivated_and_goes_to_the_record_made_anew(carol: User) -> None:
    deliver(57, "carol@example.com")

    ended = deliver(57, "carol@example.com", active=False)
    assert (ended.outcome, ended.detail) == ("APPLIED", "link ended")
    assert links() == {57: (None, "")}

    deliver(58, "carol@example.com")
    assert links() == {57: (None, ""), 58: (carol, "AUTOMATIC")}
    # and back: the linked one keeps the link
    deliver(57, "carol@example.com", active=True)
    assert links() == {57: (None, ""), 58: (carol, "AUTOMATIC")}
    assert [change.why for change in LinkChange.objects.order_by("pk")] == ["MATCHES", "INACTIVE", "MATCHES"]


def test_of_several_users_with_one_address_the_linked_one_keeps_the_link(carol: User) -> None:
    deliver(57, "carol@example.com")

    deliver(58, "carol@example.com")

    assert links() == {57: (carol, "AUTOMATIC"), 58: (None, "")}
    assert explain(ZammadUser.objects.get(zammad_id=58)) == "SEVERAL_ZAMMAD_USERS"


def test_of_several_users_of_whom_none_is_linked_none_becomes(carol: User) -> None:
    for zammad_id in (57, 58):
        ZammadUserFactory(zammad_id=zammad_id, email="carol@example.com", updated_at=LONG_AGO)

    settle_links(people=[carol.pk], now=NOW)

    assert links() == {57: (None, ""), 58: (None, "")}
    # until only one of them is left
    deliver(57, "other@example.com")
    assert links() == {57: (None, ""), 58: (carol, "AUTOMATIC")}


def test_a_link_moves_with_the_address_that_moves(carol: User, bob: User) -> None:
    deliver(57, "carol@example.com")

    moved = deliver(57, "bob@example.com")

    assert moved.detail == "link moved"
    assert links() == {57: (bob, "AUTOMATIC")}
    change = LinkChange.objects.latest("pk")
    assert (change.from_user, change.to_user, change.why) == (carol, bob, "MATCHES")


def test_two_users_who_swap_their_addresses_swap_their_people(carol: User, bob: User) -> None:
    deliver(57, "carol@example.com")
    deliver(58, "bob@example.com")

    deliver(57, "bob@example.com")
    assert links() == {57: (None, ""), 58: (bob, "AUTOMATIC")}

    deliver(58, "carol@example.com")
    assert links() == {57: (bob, "AUTOMATIC"), 58: (carol, "AUTOMATIC")}


def test_a_link_is_decided_by_the_address_that_is_stored_not_by_the_one_delivered(
    carol: User, bob: User
) -> None:
    deliver(57, "bob@example.com")
    stale = {"id": 57, "email": "carol@example.com", "updated_at": "2020-01-01T00:00:00Z"}

    body = json.dumps({"ticket": {"customer": stale}}).encode()
    delivery = deliver_body(body, now=NOW)

    assert delivery.outcome == "STALE"
    assert links() == {57: (bob, "AUTOMATIC")}


def test_a_stale_delivery_repairs_a_link_that_is_missing(carol: User) -> None:
    EmailAddress.objects.filter(user=carol).update(verified=False)
    body = json.dumps(
        {"ticket": {"customer": {"id": 57, "email": carol.email, "updated_at": tick()}}}
    ).encode()
    deliver_body(body, now=NOW)
    EmailAddress.objects.filter(user=carol).update(verified=True)

    delivery = deliver_body(body, now=NOW)

    assert (delivery.outcome, delivery.detail) == ("STALE", "an equally new version is stored; linked")
    assert links() == {57: (carol, "AUTOMATIC")}


def test_the_receipt_of_what_was_applied_does_not_tell_of_a_retry_that_linked(carol: User) -> None:
    EmailAddress.objects.filter(user=carol).update(verified=False)
    delivery_id = str(uuid.uuid4())
    body = json.dumps(
        {"ticket": {"customer": {"id": 57, "email": carol.email, "updated_at": tick()}}}
    ).encode()
    deliver_body(body, delivery_id=delivery_id, now=NOW)

    for _attempt in range(3):
        EmailAddress.objects.filter(user=carol).update(verified=True)
        answered = deliver_body(body, delivery_id=delivery_id, now=NOW)
        assert (answered.outcome, answered.detail) == ("STALE", "an equally new version is stored; linked")
        EmailAddress.objects.filter(user=carol).update(verified=False)
        deliver_body(body, delivery_id=delivery_id, now=NOW)

    receipt = WebhookDelivery.objects.get()
    assert (receipt.outcome, receipt.detail) == ("APPLIED", "linked; link ended")


@pytest.mark.parametrize("verified", [IN_LETTERS, IN_ASCII])
@pytest.mark.parametrize("told", [IN_LETTERS, IN_ASCII])
def test_both_spellings_of_an_international_domain_link(carol: User, verified: str, told: str) -> None:
    EmailAddress.objects.create(user=carol, email=verified, verified=True)

    deliver(57, told)

    assert links() == {57: (carol, "AUTOMATIC")}


def test_a_person_who_verified_both_spellings_is_one_person(carol: User) -> None:
    for spelling in (IN_LETTERS, IN_ASCII):
        EmailAddress.objects.create(user=carol, email=spelling, verified=True)

    deliver(57, IN_LETTERS)

    assert links() == {57: (carol, "AUTOMATIC")}


def test_an_address_that_two_people_verified_links_nobody_until_one_of_them_leaves_it(
    carol: User, bob: User
) -> None:
    EmailAddress.objects.create(user=carol, email=IN_LETTERS, verified=True)
    deliver(57, IN_LETTERS)
    assert links() == {57: (carol, "AUTOMATIC")}

    other = EmailAddress.objects.create(user=bob, email=IN_ASCII, verified=True)
    assert links() == {57: (None, "")}
    assert explain(ZammadUser.objects.get()) == "SEVERAL_PEOPLE"

    other.email = "bob@work.example"
    other.save()
    assert links() == {57: (carol, "AUTOMATIC")}


@pytest.mark.parametrize("odd", ["ü", "carol@xn--", "carol@xn--a.example", "ü@@example.com", "carol@\u2024"])
def test_an_odd_address_is_spelt_as_it_is(odd: str) -> None:
    assert spellings(odd) == {odd}
    assert ascii_form(odd) == odd


@pytest.mark.parametrize(
    "meddle", [lambda: ZammadUser.objects.update(active=False), lambda: ZammadUser.objects.all().delete()]
)
@pytest.mark.parametrize("times", [1, 4, 5])
def test_a_row_that_changes_while_its_link_is_decided_is_looked_at_again(
    carol: User, meddle: Callable[[], object], times: int
) -> None:
    ZammadUserFactory(zammad_id=57, email="carol@example.com")
    left = iter(range(times))

    def decide_meanwhile(*around: Any) -> Any:
        decided = decide(*around)
        if next(left, None) is not None:
            meddle()
        return decided

    with mock.patch("zammad.linking.decide", side_effect=decide_meanwhile) as decided:
        changes = settle_links(addresses=["carol@example.com"], now=NOW)

    # Five looks; others settle what they changed each time themselves.
    assert decided.call_count == min(times + 1, 5)
    assert [str(change) for change in changes] == (
        [] if times == 5 else [f"- > {carol.pk}: This person has verified the address."]
    )


# --- By hand ----------------------------------------------------------------------------------


def test_a_link_by_hand_follows_nothing(agent: User, carol: User, bob: User) -> None:
    deliver(57, "nobody@example.com")
    zammad_user = ZammadUser.objects.get()

    link_by_hand(actor=agent, zammad_user_id=zammad_user.pk, user_id=carol.pk, now=NOW)
    deliver(57, "bob@example.com", active=False)
    deliver(58, "carol@example.com")

    assert links() == {57: (carol, "HAND"), 58: (None, "")}
    assert explain(ZammadUser.objects.get(zammad_id=57)) == "BY_HAND"


def test_a_link_that_staff_ended_stays_ended_and_the_next_record_is_linked(agent: User, carol: User) -> None:
    deliver(57, "carol@example.com")
    deliver(58, "carol@example.com")

    unlink(actor=agent, zammad_user_id=ZammadUser.objects.get(zammad_id=57).pk, now=NOW)

    assert links() == {57: (None, ""), 58: (carol, "AUTOMATIC")}
    deliver(58, "carol@example.com", active=False)
    deliver(57, "carol@example.com")
    assert links() == {57: (None, ""), 58: (None, "")}
    assert explain(ZammadUser.objects.get(zammad_id=57)) == "UNLINKED"
    ended = LinkChange.objects.get(why="UNLINKED")
    assert (ended.from_user, ended.to_user, ended.actor) == (carol, None, agent)


def test_the_person_whom_staff_link_frees_the_address_for_others(agent: User, carol: User, bob: User) -> None:
    EmailAddress.objects.create(user=carol, email=IN_LETTERS, verified=True)
    EmailAddress.objects.create(user=bob, email=IN_ASCII, verified=True)
    deliver(57, IN_LETTERS)
    deliver(58, "nobody@example.com")

    link_by_hand(
        actor=agent, zammad_user_id=ZammadUser.objects.get(zammad_id=58).pk, user_id=carol.pk, now=NOW
    )

    assert links() == {57: (bob, "AUTOMATIC"), 58: (carol, "HAND")}


def test_staff_end_a_link_also_while_what_surrounds_it_goes_on_changing(agent: User, carol: User) -> None:
    deliver(57, "carol@example.com")
    numbers = count()

    def more_each_time(**_around: object) -> Neighbourhood:
        found = frozenset({f"neighbour{next(numbers)}@example.com"})
        return Neighbourhood(zammad_users=[], holders={}, addresses=found)

    with mock.patch.object(Neighbourhood, "around", side_effect=more_each_time):
        unlink(actor=agent, zammad_user_id=ZammadUser.objects.get().pk, now=NOW)

    assert links() == {57: (None, "")}


# --- Doors ------------------------------------------------------------------------------------


def waits(email: str = "dana@example.com") -> None:
    ZammadUserFactory(zammad_id=57, email=email)


def test_an_address_that_is_verified_with_a_code_links(client: Client, mailoutbox: list[Any]) -> None:
    waits()
    fields = {
        "email": "dana@example.com",
        "password1": "swordfish-and-chips",
        "password2": "swordfish-and-chips",
    }
    client.post("/accounts/signup/", fields)
    assert links() == {57: (None, "")}

    code = next(line for line in mailoutbox[-1].body.splitlines() if "-" in line and len(line.strip()) == 9)
    client.post("/accounts/confirm-email/", {"code": code.strip()})

    assert links() == {57: (User.objects.get(), "AUTOMATIC")}


def test_an_address_that_its_person_removes_ends_the_link(carol: User, client: Client) -> None:
    EmailAddress.objects.create(user=carol, email="carol@work.example", verified=True)
    deliver(57, "carol@work.example")
    client.post("/accounts/login/", {"login": carol.email, "password": PASSWORD})

    client.post("/accounts/email/", {"action_remove": "", "email": "carol@work.example"})

    assert not EmailAddress.objects.filter(email="carol@work.example").exists()
    assert links() == {57: (None, "")}
    assert LinkChange.objects.latest("pk").why == "NOBODY"


def test_admins_page_of_an_address_links_and_ends(superuser: User, carol: User) -> None:
    waits("carol@work.example")
    admin = as_person(superuser)
    form = {"user": carol.pk, "email": "carol@work.example", "verified": "on"}

    admin.post(url(EmailAddress, "add"), form)
    assert links() == {57: (carol, "AUTOMATIC")}

    address = EmailAddress.objects.get(email="carol@work.example")
    admin.post(url(EmailAddress, "change", address.pk), {**form, "email": "carol@home.example"})
    assert links() == {57: (None, "")}
    admin.post(url(EmailAddress, "change", address.pk), form)
    assert links() == {57: (carol, "AUTOMATIC")}
    admin.post(url(EmailAddress, "change", address.pk), {**form, "user": superuser.pk})
    assert links() == {57: (superuser, "AUTOMATIC")}
    del form["verified"]
    admin.post(url(EmailAddress, "change", address.pk), form)
    assert links() == {57: (None, "")}
    admin.post(url(EmailAddress, "changelist"), {"action": "make_verified", "_selected_action": [address.pk]})
    assert links() == {57: (carol, "AUTOMATIC")}
    chosen = {"action": "delete_selected", "_selected_action": [address.pk], "post": "yes"}
    admin.post(url(EmailAddress, "changelist"), chosen)
    assert links() == {57: (None, "")}


def test_admins_page_of_a_person_ends_a_link_and_makes_it_again(superuser: User, carol: User) -> None:
    deliver(57, "carol@example.com")
    admin = as_person(superuser)

    admin.post(url(User, "change", carol.pk), {"first_name": "Carol"})
    assert not User.objects.get(pk=carol.pk).is_active
    assert links() == {57: (None, "")}

    admin.post(url(User, "change", carol.pk), {"is_active": "on"})
    assert links() == {57: (carol, "AUTOMATIC")}


def test_a_person_who_is_deactivated_frees_the_address_for_others(carol: User, bob: User) -> None:
    EmailAddress.objects.create(user=carol, email=IN_LETTERS, verified=True)
    EmailAddress.objects.create(user=bob, email=IN_ASCII, verified=True)
    deliver(57, IN_LETTERS)
    assert links() == {57: (None, "")}

    carol.is_active = False
    carol.save()

    assert links() == {57: (bob, "AUTOMATIC")}


@pytest.mark.parametrize("kind", ["AUTOMATIC", "HAND"])
def test_deleting_a_person_ends_their_link_and_frees_the_address(
    superuser: User, carol: User, bob: User, kind: str
) -> None:
    EmailAddress.objects.create(user=carol, email=IN_LETTERS, verified=True)
    EmailAddress.objects.create(user=bob, email=IN_ASCII, verified=True)
    deliver(57, IN_LETTERS)
    ZammadUserFactory(zammad_id=58, email="carol@example.com", user=carol, link_kind=kind)

    as_person(superuser).post(url(User, "delete", carol.pk), {"post": "yes"})

    assert not User.objects.filter(pk=carol.pk).exists()
    assert links() == {57: (bob, "AUTOMATIC"), 58: (None, "")}
    ended = LinkChange.objects.get(why="PERSON_DELETED")
    assert (ended.zammad_user.zammad_id, ended.from_user) == (58, None)


def test_deleting_many_people_at_once_ends_all_their_links(superuser: User, carol: User, bob: User) -> None:
    deliver(57, "carol@example.com")
    deliver(58, "bob@example.com")

    User.objects.filter(pk__in=[carol.pk, bob.pk]).delete()

    assert links() == {57: (None, ""), 58: (None, "")}


def test_people_who_are_deleted_at_once_do_not_inherit_each_others_links(
    superuser: User, carol: User, bob: User
) -> None:
    # given one address, verified in both spellings; the first to settle would leave it to the other
    deliver(57, IN_LETTERS)
    for person, address in ((carol, IN_LETTERS), (bob, IN_ASCII)):
        EmailAddress.objects.create(user=person, email=address, verified=True)

    as_person(superuser).post(
        url(User, "changelist"),
        {"action": "delete_selected", "_selected_action": [carol.pk, bob.pk], "post": "yes"},
    )

    assert not User.objects.filter(pk__in=[carol.pk, bob.pk]).exists()
    assert links() == {57: (None, "")}


def test_the_command_that_makes_an_admin_links(monkeypatch: pytest.MonkeyPatch) -> None:
    waits()
    monkeypatch.setenv("NEW_PASSWORD", "swordfish-and-chips")

    call_command("create_admin", email="dana@example.com", password_from_env="NEW_PASSWORD")

    assert links() == {57: (User.objects.get(), "AUTOMATIC")}


def test_signing_in_and_changing_a_name_look_at_no_link(carol: User) -> None:
    deliver(57, "carol@example.com")
    User.objects.filter(pk=carol.pk).update(is_active=False)  # without any signal

    carol.last_login = NOW
    carol.save(update_fields=["last_login"])

    assert links() == {57: (carol, "AUTOMATIC")}


def test_what_sql_changed_the_next_import_notices(
    sandbox: Sandbox, alice: User, bob: User, carol: User
) -> None:
    call_command("import_zammad_users")
    assert links()[3] == (alice, "AUTOMATIC")
    EmailAddress.objects.filter(user=alice).update(verified=False)
    User.objects.filter(pk=bob.pk).update(is_active=False)
    ZammadUser.objects.filter(zammad_id=5).update(user=None, link_kind="")

    call_command("import_zammad_users")

    assert [links()[zammad_id] for zammad_id in (3, 4, 5)] == [(None, ""), (None, ""), (carol, "AUTOMATIC")]


# --- Any order ---------------------------------------------------------------------------------


def rule(before: dict[int, tuple[int | None, str]]) -> dict[int, tuple[int | None, str]]:
    """Say who is to be linked, from the present state and the links before: a second version of the rule."""
    by_hand = {user for user, kind in before.values() if kind == "HAND"}
    verified: dict[str, set[int]] = {}
    for address in EmailAddress.objects.filter(verified=True, user__is_active=True):
        if address.user_id not in by_hand:
            verified.setdefault(ascii_form(address.email), set()).add(address.user_id)
    matching: dict[int, list[int]] = {}
    after: dict[int, tuple[int | None, str]] = {}
    for each in ZammadUser.objects.all():
        if before.get(each.zammad_id, (None, ""))[1] == "HAND":
            after[each.zammad_id] = before[each.zammad_id]
            continue
        after[each.zammad_id] = (None, "")
        people = verified.get(ascii_form(each.email), set())
        if each.active and each.auto_link and len(people) == 1:
            matching.setdefault(next(iter(people)), []).append(each.zammad_id)
    for person, ids in matching.items():
        kept = [zammad_id for zammad_id in ids if before.get(zammad_id, (None, ""))[0] == person]
        if kept or len(ids) == 1:
            after[(kept or ids)[0]] = (person, "AUTOMATIC")
    return after


def stored() -> dict[int, tuple[int | None, str]]:
    return {each.zammad_id: (each.user_id, each.link_kind) for each in ZammadUser.objects.all()}


@pytest.mark.parametrize("seed", range(12))
def test_every_order_of_changes_ends_in_the_links_that_the_rule_names(seed: int, agent: User) -> None:
    chance = random.Random(seed)  # noqa: S311  # repeatable
    people = [UserFactory(verified=False) for _ in range(3)]
    for person in people:
        EmailAddress.objects.filter(user=person).delete()
    addresses = ["a@example.com", "b@example.com", IN_LETTERS, IN_ASCII]
    ids = [57, 58, 59]

    def hand(act: Callable[[int], object]) -> None:
        zammad_user = ZammadUser.objects.filter(zammad_id=chance.choice(ids)).first()
        if zammad_user:
            with suppress(AlreadyLinked):
                act(zammad_user.pk)

    def verify() -> None:
        email = chance.choice(addresses)
        if not EmailAddress.objects.filter(email=email, verified=True).exists():
            EmailAddress.objects.update_or_create(
                user=chance.choice(people), email=email, defaults={"verified": True}
            )

    def leave() -> None:
        for address in EmailAddress.objects.order_by("?")[:1]:
            address.delete()

    def toggle_person() -> None:
        person = chance.choice(people)
        person.refresh_from_db()
        person.is_active = not person.is_active
        person.save()

    changes: list[Callable[[], object]] = [
        lambda: deliver(chance.choice(ids), chance.choice([*addresses, ""]), active=chance.random() > 0.3),
        verify,
        leave,
        toggle_person,
        lambda: hand(lambda pk: unlink(actor=agent, zammad_user_id=pk, now=NOW)),
        lambda: hand(
            lambda pk: link_by_hand(
                actor=agent,
                zammad_user_id=pk,
                user_id=chance.choice([person.pk for person in people if person.is_active] or [agent.pk]),
                now=NOW,
            )
        ),
    ]
    by_hand = changes[-2:]
    for step in range(60):
        before = stored()
        change = chance.choices(changes, weights=[6, 4, 2, 2, 1, 1])[0]
        change()
        after = stored()
        if change in by_hand:
            # The rule goes on from what staff do themselves.
            before = {
                zammad_id: now if "HAND" in {now[1], before.get(zammad_id, now)[1]} else before[zammad_id]
                for zammad_id, now in after.items()
            }
        assert after == rule(before), (seed, step)


# --- Races ---------------------------------------------------------------------------------------


def together(*calls: Callable[[], object]) -> None:
    """Make all calls concurrently, each in a thread with a connection of its own."""
    start = threading.Barrier(len(calls), timeout=10)

    def run(call: Callable[[], object]) -> None:
        try:
            start.wait()
            call()
        finally:
            connection.close()

    with ThreadPoolExecutor(len(calls)) as pool:
        list(pool.map(run, calls))


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("in_transaction", [False, True])
def test_an_address_verified_while_its_first_delivery_arrives_is_linked(
    carol: User, in_transaction: bool
) -> None:
    for turn in range(15):
        address = EmailAddress.objects.create(user=carol, email=f"carol{turn}@work.example")

        def verify(address: EmailAddress = address) -> None:
            address.verified = True
            if not in_transaction:
                address.save()
                return
            with transaction.atomic():
                address.save()

        together(verify, lambda turn=turn: deliver(100 + turn, f"carol{turn}@work.example"))  # type: ignore[misc]

        assert ZammadUser.objects.get(zammad_id=100 + turn).user == carol
        address.delete()


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_changes_from_all_sides_at_once_end_in_the_links_that_the_rule_names(
    agent: User, alice: User, bob: User
) -> None:
    for turn in range(6):
        a, b = f"a{turn}@work.example", f"b{turn}@work.example"
        addresses = [
            EmailAddress.objects.create(user=person, email=email) for person, email in ((alice, a), (bob, b))
        ]

        def verify(address: EmailAddress) -> None:
            address.verified = True
            address.save()

        together(
            lambda a=a, turn=turn: deliver(100 + turn, a),  # type: ignore[misc]
            lambda b=b, turn=turn: deliver(100 + turn, b),  # type: ignore[misc]
            lambda a=a, turn=turn: deliver(200 + turn, a),  # type: ignore[misc]
            lambda b=b, turn=turn: deliver(200 + turn, b, active=False),  # type: ignore[misc]
            lambda address=addresses[0]: verify(address),  # type: ignore[misc]
            lambda address=addresses[1]: verify(address),  # type: ignore[misc]
        )

        # Whichever came first: nothing is left to settle.
        assert stored() == rule(stored())
        for address in addresses:
            address.delete()


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_a_person_who_is_deleted_while_a_delivery_links_them_leaves_no_link(bob: User) -> None:
    for turn in range(10):
        person = UserFactory(email=f"leaver{turn}@example.com")
        together(person.delete, lambda turn=turn: deliver(100 + turn, f"leaver{turn}@example.com"))  # type: ignore[misc]

    assert set(stored().values()) == {(None, "")}


# --- What is shown ---------------------------------------------------------------------------------


@pytest.fixture
def known_to_zammad(plan: FamilyPlan, bob: User) -> None:
    deliver(57, "bob@example.com")


OWN = "{ viewer { membership { zammadUserId zammadUser { zammadId phone } } } }"
SHOWN = {"zammadUserId": 57, "zammadUser": {"zammadId": 57, "phone": ""}}
NOTHING = {"zammadUserId": None, "zammadUser": None}


def test_a_person_reads_their_record_while_its_address_is_theirs(known_to_zammad: None, bob: User) -> None:
    assert ask(bob, OWN)["membership"] == SHOWN

    EmailAddress.objects.filter(user=bob).update(verified=False)

    assert ask(bob, OWN)["membership"] == NOTHING


def test_a_record_that_is_corrected_to_somebody_else_is_not_shown_to_its_former_person(
    known_to_zammad: None, agent: User, bob: User
) -> None:
    # A link by hand stays, whatever the address becomes.
    zammad_user = ZammadUser.objects.get()
    unlink(actor=agent, zammad_user_id=zammad_user.pk, now=NOW)
    link_by_hand(actor=agent, zammad_user_id=zammad_user.pk, user_id=bob.pk, now=NOW)
    assert ask(bob, OWN)["membership"] == SHOWN

    deliver(57, "somebody.else@example.com")

    assert ZammadUser.objects.get().user == bob
    assert ask(bob, OWN)["membership"] == NOTHING


def test_staff_with_the_right_read_every_record(
    known_to_zammad: None, plan: FamilyPlan, bob: User, support: User
) -> None:
    EmailAddress.objects.filter(user=bob).update(verified=False)

    query = (
        "{ planByZammadUser(zammadUserId: 57) { members { zammadUserId zammadUser { zammadId phone } } } }"
    )

    assert ask(support, query)["members"][1] == SHOWN


def test_admin_tells_how_a_link_came_about_and_why_there_is_none(
    superuser: User, carol: User, bob: User
) -> None:
    deliver(57, "carol@example.com")
    deliver(57, "bob@example.com")
    deliver(58, "bob@example.com")
    first, second = ZammadUser.objects.order_by("zammad_id")
    admin = as_person(superuser)

    for page in ("change", "history"):
        text = text_of(admin.get(url(ZammadUser, page, first.pk)))
        assert "from nobody to carol@example.com. This person has verified the address." in text
        assert "from carol@example.com to bob@example.com." in text
    assert "Several active Zammad users have an address of the person." in text_of(
        admin.get(url(ZammadUser, "change", second.pk))
    )
    delivery = WebhookDelivery.objects.get(detail="link moved")
    assert "from carol@example.com to bob@example.com" in text_of(
        admin.get(url(WebhookDelivery, "change", delivery.pk))
    )
