"""Link Zammad users to people: the rule, its application, and links made by hand."""

import zlib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import wraps
from operator import attrgetter
from typing import Final, NamedTuple, ParamSpec, TypeAlias, TypeVar

from allauth.account.models import EmailAddress
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractUser, AnonymousUser
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import OperationalError, connection, transaction
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from zammad.addresses import all_spellings, ascii_form
from zammad.models import LinkChange, LinkReason, WebhookDelivery, ZammadUser
from zammad.transactions import transaction_required

Actor: TypeAlias = AbstractUser | AnonymousUser
Why = LinkReason
P = ParamSpec("P")
T = TypeVar("T")

# The first half of the keys of PostgreSQL's advisory locks; the second half stands for an address.
LOCKS: Final = 0x5A4C
# Each attempt may find addresses that were not locked. People rarely have several.
ATTEMPTS: Final = 5
# The fields of a Zammad user that the rule reads.
STATE: Final = attrgetter("user_id", "link_kind", "email", "active", "auto_link")
DEADLOCK: Final = "40P01"  # PostgreSQL's code
DEADLOCK_RETRIES: Final = 3


class LinkNotPermitted(PermissionDenied):
    code = "PERMISSION_DENIED"

    def __init__(self) -> None:
        super().__init__(_("You need the right to change Zammad users to link them."))


class LinkRefused(ValidationError):
    """A link by hand would break a rule."""


class ZammadUserNotFound(LinkRefused):
    def __init__(self) -> None:
        super().__init__(_("There is no such Zammad user."), code="ZAMMAD_USER_NOT_FOUND")


class PersonNotFound(LinkRefused):
    def __init__(self) -> None:
        super().__init__(_("There is no such active person."), code="USER_NOT_FOUND")


class AlreadyLinked(LinkRefused):
    def __init__(self) -> None:
        super().__init__(_("The person or the Zammad user is linked already."), code="ALREADY_LINKED")


# --- The rule -------------------------------------------------------------------------------


class Decision(NamedTuple):
    """The person to link a Zammad user to, if any, and the reason."""

    user_id: int | None
    why: Why


def decide(zammad_users: Iterable[ZammadUser], holders: Mapping[str, Collection[int]]) -> dict[int, Decision]:
    """Decide on the link of each Zammad user that is not linked by hand, by primary key.

    An automatic link needs exactly one active Zammad user whose address an active person has
    verified. Of several, one that is linked already keeps the link; otherwise none gets it. An
    address that several people have verified links nobody, and a Zammad user whom staff unlinked
    stays unlinked.

    :param holders: for each address in ASCII form, the active people who have verified it, except
        those linked by hand.
    """
    decisions: dict[int, Decision] = {}
    matches = defaultdict[int, list[ZammadUser]](list)
    for zammad_user in zammad_users:
        if zammad_user.link_kind == ZammadUser.LinkKind.HAND:
            continue
        people = holders.get(ascii_form(zammad_user.email), ())
        if not zammad_user.auto_link:
            decisions[zammad_user.pk] = Decision(None, Why.UNLINKED)
        elif not zammad_user.active:
            decisions[zammad_user.pk] = Decision(None, Why.INACTIVE)
        elif len(people) != 1:
            decisions[zammad_user.pk] = Decision(None, Why.SEVERAL_PEOPLE if people else Why.NOBODY)
        else:
            matches[next(iter(people))].append(zammad_user)
    for user_id, matching in matches.items():
        linked = [zammad_user for zammad_user in matching if zammad_user.user_id == user_id]
        chosen = linked or (matching if len(matching) == 1 else [])
        for zammad_user in matching:
            decisions[zammad_user.pk] = (
                Decision(user_id, Why.MATCHES)
                if zammad_user in chosen
                else Decision(None, Why.SEVERAL_ZAMMAD_USERS)
            )
    return decisions


# --- Its application ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbourhood:
    """Everything that the links of some Zammad users, people and addresses depend on."""

    zammad_users: list[ZammadUser]
    holders: Mapping[str, Collection[int]]
    addresses: frozenset[str]  # in ASCII form

    @classmethod
    def around(
        cls,
        *,
        zammad_users: Collection[int],
        people: Collection[int] = (),
        addresses: Iterable[str] = (),
    ) -> "Neighbourhood":
        """Read the neighbourhood of Zammad users and people (primary keys) and addresses."""
        neighbours = list(ZammadUser.objects.filter(pk__in=zammad_users)) if zammad_users else []
        people = {*people, *_linked(neighbours)}
        spelt = all_spellings([*addresses, *(each.email for each in neighbours)])
        claims: list[Claim] = []
        while people or spelt:
            claims = _claims(people=people, spelt=spelt)
            people |= {claim.user_id for claim in claims}
            verified = {claim.email for claim in claims}
            # Only one person can verify a spelling, but others can verify other spellings.
            unread = all_spellings(verified) - verified - spelt
            spelt |= verified | unread
            if not people:
                break
            near = Q(pk__in=zammad_users) | Q(email__in=spelt) | Q(user__in=people)
            neighbours = list(ZammadUser.objects.filter(near).order_by("zammad_id"))
            others = _linked(neighbours) - people
            unread |= all_spellings(each.email for each in neighbours) - spelt
            if not unread and not others:
                break
            people |= others
            spelt |= unread
        holders = defaultdict[str, set[int]](set)
        for claim in claims:
            if claim.counts:
                holders[ascii_form(claim.email)].add(claim.user_id)
        return cls(zammad_users=neighbours, holders=holders, addresses=frozenset(map(ascii_form, spelt)))


def retry_after_deadlock(settle: Callable[P, T]) -> Callable[P, T]:
    """Retry if PostgreSQL chose this transaction to end a deadlock.

    One transaction may settle several changes, as admin actions do, and so lock in any order.
    """

    @wraps(settle)
    def settle_with_retries(*args: P.args, **kwargs: P.kwargs) -> T:
        for _attempt in range(DEADLOCK_RETRIES):
            try:
                return settle(*args, **kwargs)
            except OperationalError as error:
                if getattr(error.__cause__, "sqlstate", "") != DEADLOCK or connection.in_atomic_block:
                    raise
        return settle(*args, **kwargs)

    return settle_with_retries


@retry_after_deadlock
def settle_links(
    *,
    zammad_users: Collection[ZammadUser] = (),
    people: Collection[int] = (),
    addresses: Collection[str] = (),
    delivery: WebhookDelivery | None = None,
    now: datetime,
) -> list[LinkChange]:
    """Create, move and end links after a change of Zammad users, people or addresses.

    Call it once the change is visible to this connection: after its commit, or in its transaction
    before any row of a Zammad user is locked. Addresses are locked while links that depend on them
    are settled, so of two concurrent changes the later one sees both.

    :param people: primary keys.
    :param delivery: the receipt of the delivery that brought the change.
    """
    changes = _with_locks(
        lambda around: _apply(around, delivery=delivery, now=now),
        zammad_users=[each.pk for each in zammad_users],
        people=people,
        addresses=[*addresses, *(each.email for each in zammad_users)],
    )
    return changes or []  # after None, each of the concurrent changes settles its own links


def settle_person(*, user_id: int, addresses: Collection[str], now: datetime) -> None:
    """Settle the link of a person if a Zammad user with one of their addresses is not linked to them."""
    others = ZammadUser.objects.filter(email__in=all_spellings(addresses)).exclude(user=user_id)
    if others.exists():
        settle_links(people=[user_id], addresses=addresses, now=now)


@transaction_required
def release_person(*, user_id: int, now: datetime) -> list[str]:
    """End the link of a person who is about to be deleted, and return the addresses that this frees.

    Settle the addresses after the deletion of this person and all who are deleted with them, lest
    one of them is linked again.
    """
    addresses = _lock_around(people=[user_id])
    # Keep staff from linking them, too: a person without addresses is locked by their row alone.
    list(get_user_model()._default_manager.select_for_update().filter(pk=user_id))
    linked = list(ZammadUser.objects.select_for_update().filter(user=user_id))
    _write({each: Decision(None, Why.PERSON_DELETED) for each in linked}, now=now)
    return addresses


def explain(zammad_user: ZammadUser) -> Why:
    """Return the reason for the present link of a Zammad user, or for its absence."""
    if zammad_user.link_kind == ZammadUser.LinkKind.HAND:
        return Why.BY_HAND
    around = Neighbourhood.around(zammad_users=[zammad_user.pk])
    return decide(around.zammad_users, around.holders)[zammad_user.pk].why


class Claim(NamedTuple):
    """An address that a person has verified."""

    user_id: int
    email: str
    is_active: bool
    link_kind: str | None

    @property
    def counts(self) -> bool:
        """Whether the rule considers it."""
        return self.is_active and self.link_kind != ZammadUser.LinkKind.HAND


def _claims(*, people: Collection[int], spelt: Collection[str]) -> list[Claim]:
    """Fetch all verified addresses of these people and of those who have verified these addresses."""
    verified = EmailAddress.objects.filter(verified=True).order_by()
    # Two statements: with OR, PostgreSQL would read every address.
    people = {*people, *verified.filter(email__in=spelt).values_list("user_id", flat=True)}
    if not people:
        return []
    names = "user_id", "email", "user__is_active", "user__zammad_user__link_kind"
    return list(map(Claim._make, verified.filter(user__in=people).values_list(*names)))


def _apply(
    around: Neighbourhood, *, delivery: WebhookDelivery | None, now: datetime
) -> list[LinkChange] | None:
    """Write the decisions of the rule; return None if a row was changed after it was read."""
    decisions = decide(around.zammad_users, around.holders)
    moves = {
        each: decisions[each.pk]
        for each in around.zammad_users
        if each.pk in decisions and decisions[each.pk].user_id != each.user_id
    }
    if not moves:
        return []
    rows = ZammadUser.objects.select_for_update().order_by("zammad_id").in_bulk([each.pk for each in moves])
    if any(each.pk not in rows or STATE(rows[each.pk]) != STATE(each) for each in moves):
        return None
    return _write(moves, delivery=delivery, now=now)


@transaction_required
def _write(
    moves: Mapping[ZammadUser, Decision],
    *,
    kind: ZammadUser.LinkKind = ZammadUser.LinkKind.AUTOMATIC,
    actor: Actor | None = None,
    delivery: WebhookDelivery | None = None,
    now: datetime,
) -> list[LinkChange]:
    """Write links and their history; old links end before new ones begin."""
    ended = [each.pk for each in moves if each.user_id is not None]
    if ended:
        ZammadUser.objects.filter(pk__in=ended).update(user=None, link_kind="")
    for zammad_user, decision in moves.items():
        if decision.user_id is not None:
            ZammadUser.objects.filter(pk=zammad_user.pk).update(user=decision.user_id, link_kind=kind)
    return LinkChange.objects.bulk_create(
        LinkChange(
            zammad_user=zammad_user,
            from_user_id=zammad_user.user_id,
            to_user_id=decision.user_id,
            why=decision.why,
            actor_id=actor.pk if actor else None,
            delivery=delivery,
            at=now,
        )
        for zammad_user, decision in moves.items()
    )


def _with_locks(
    work: Callable[[Neighbourhood], T | None],
    *,
    zammad_users: Collection[int] = (),
    people: Collection[int] = (),
    addresses: Collection[str] = (),
) -> T | None:
    """Lock the addresses of a neighbourhood, and return the result of working on it.

    Return None if concurrent changes thwarted every attempt.
    """
    locked = frozenset(map(ascii_form, addresses)) - {""}
    for _attempt in range(ATTEMPTS):
        with transaction.atomic():
            _lock(locked)
            around = Neighbourhood.around(zammad_users=zammad_users, people=people, addresses=addresses)
            if around.addresses <= locked:
                result = work(around)
                if result is not None:
                    return result
            # Locks are taken in one order: release them before taking more.
            transaction.set_rollback(True)
        locked |= around.addresses
    return None


@transaction_required
def _lock_around(*, zammad_users: Collection[int] = (), people: Collection[int] = ()) -> list[str]:
    """Lock the neighbourhood of Zammad users and people (primary keys), and return their addresses.

    Settling later in the transaction then waits for no lock, and nobody waits for two in turn.
    """
    _with_locks(lambda around: around, zammad_users=zammad_users, people=people)
    verified = EmailAddress.objects.filter(user__in=people, verified=True).values_list("email", flat=True)
    linked = Q(pk__in=zammad_users) | Q(user__in=people)
    return [*verified, *ZammadUser.objects.filter(linked).values_list("email", flat=True)]


@transaction_required
def _lock(addresses: Iterable[str]) -> None:
    """Lock addresses until the transaction ends. SQLite has only one writer at a time anyway."""
    keys = sorted({zlib.crc32(address.encode()) - 2**31 for address in addresses if address})
    if keys and connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_advisory_xact_lock(%s, key) FROM unnest(%s::int[]) AS key", [LOCKS, keys]
            )


def _linked(zammad_users: Iterable[ZammadUser]) -> set[int]:
    return {each.user_id for each in zammad_users if each.user_id is not None}


# --- By hand ---------------------------------------------------------------------------------


def link_by_hand(*, actor: Actor, zammad_user_id: int, user_id: int, now: datetime) -> ZammadUser:
    """Link a Zammad user to a person chosen by staff; both ids are primary keys.

    :raises LinkNotPermitted:
    :raises ZammadUserNotFound:
    :raises PersonNotFound:
    :raises AlreadyLinked:
    """
    _check_may_link(actor)
    with transaction.atomic(durable=True):
        zammad_user = _lock_zammad_user(zammad_user_id, people=[user_id])
        # A project's own user model only has to be an AbstractBaseUser.
        people = get_user_model()._default_manager.select_for_update(no_key=True)
        person = people.filter(pk=user_id).first()
        if person is None or not person.is_active:
            raise PersonNotFound
        if zammad_user.user_id is not None or ZammadUser.objects.filter(user=person.pk).exists():
            raise AlreadyLinked
        by_hand = {zammad_user: Decision(person.pk, Why.BY_HAND)}
        _write(by_hand, kind=ZammadUser.LinkKind.HAND, actor=actor, now=now)
        # The rule considers neither of them any more, which may change the links of others.
        settle_links(zammad_users=[zammad_user], people=[person.pk], now=now)
        zammad_user.refresh_from_db()
        return zammad_user


def unlink(*, actor: Actor, zammad_user_id: int, now: datetime) -> ZammadUser:
    """Remove a link for good: an equal address does not restore it.

    :raises LinkNotPermitted:
    :raises ZammadUserNotFound:
    """
    _check_may_link(actor)
    with transaction.atomic(durable=True):
        zammad_user = _lock_zammad_user(zammad_user_id)
        people = [zammad_user.user_id] if zammad_user.user_id is not None else []
        ZammadUser.objects.filter(pk=zammad_user.pk).update(auto_link=False)
        if people:
            _write({zammad_user: Decision(None, Why.UNLINKED)}, actor=actor, now=now)
        settle_links(zammad_users=[zammad_user], people=people, now=now)
        zammad_user.refresh_from_db()
        return zammad_user


def _check_may_link(actor: Actor) -> None:
    if not actor.has_perm("zammad.change_zammaduser"):
        raise LinkNotPermitted


def _lock_zammad_user(zammad_user_id: int, *, people: Collection[int] = ()) -> ZammadUser:
    """Lock the neighbourhood of a Zammad user and people, then the user's row.

    :raises ZammadUserNotFound:
    """
    _lock_around(zammad_users=[zammad_user_id], people=people)
    zammad_user = ZammadUser.objects.select_for_update().filter(pk=zammad_user_id).first()
    if zammad_user is None:
        raise ZammadUserNotFound
    return zammad_user
