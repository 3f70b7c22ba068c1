"""Link Zammad users to people: the one rule, where it is applied, and what staff do by hand."""

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

from zammad.addresses import ascii_form, spellings
from zammad.models import LinkChange, LinkReason, WebhookDelivery, ZammadUser
from zammad.transactions import transaction_required

Actor: TypeAlias = AbstractUser | AnonymousUser
Why = LinkReason
P = ParamSpec("P")
T = TypeVar("T")

# The first half of the keys of PostgreSQL's advisory locks; the second half stands for an address.
LOCKS: Final = 0x5A4C
# Each look around may find addresses that were not locked. People rarely have several.
LOOKS: Final = 5
# What the rule reads of a Zammad user.
STATE: Final = attrgetter("user_id", "link_kind", "email", "active", "auto_link")
# PostgreSQL's code for it, and after how many of them one more is a failure.
DEADLOCK: Final = "40P01"
DEADLOCKS: Final = 3


class LinkNotPermitted(PermissionDenied):
    code = "PERMISSION_DENIED"

    def __init__(self) -> None:
        super().__init__(_("Linking Zammad users needs the right to change them."))


class LinkRefused(ValidationError):
    """A rule of linking by hand is broken."""


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
    """The person a Zammad user is to be linked to, if any, and the reason."""

    user_id: int | None
    why: Why


def decide(zammad_users: Iterable[ZammadUser], holders: Mapping[str, Collection[int]]) -> dict[int, Decision]:
    """Decide on the link of each Zammad user that is not linked by hand, by primary key.

    An automatic link belongs to the one active Zammad user whose address is among the verified
    addresses of an active person. Of several, the one that is linked already keeps the link; else
    there is none. An address that several people have verified links nobody. Neither does a Zammad
    user whom staff unlinked.

    :param holders: the active people who have verified each address, by its ASCII form; without
        the people who are linked by hand.
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


# --- Where it is applied ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbourhood:
    """All that decides on the links of some Zammad users, people and addresses."""

    zammad_users: list[ZammadUser]
    holders: Mapping[str, Collection[int]]
    addresses: frozenset[str]  # in their ASCII form

    @classmethod
    def around(
        cls,
        *,
        zammad_users: Collection[int],
        people: Collection[int] = (),
        addresses: Iterable[str] = (),
    ) -> "Neighbourhood":
        """Read what surrounds Zammad users and people (primary keys) and addresses."""
        found = list(ZammadUser.objects.filter(pk__in=zammad_users)) if zammad_users else []
        people = {*people, *_linked(found)}
        spelt = _spelt([*addresses, *(each.email for each in found)])
        claims: list[Claim] = []
        while people or spelt:
            claims = _claims(people=people, spelt=spelt)
            people |= {claim.user_id for claim in claims}
            verified = {claim.email for claim in claims}
            # One person alone can verify an address as it is spelt, several its other spellings.
            unread = _spelt(verified) - verified - spelt
            spelt |= verified | unread
            if not people:
                break
            found = list(
                ZammadUser.objects.filter(
                    Q(pk__in=zammad_users) | Q(email__in=spelt) | Q(user__in=people)
                ).order_by("zammad_id")
            )
            others = _linked(found) - people
            unread |= _spelt(each.email for each in found) - spelt
            if not unread and not others:
                break
            people |= others
            spelt |= unread
        holders = defaultdict[str, set[int]](set)
        for claim in claims:
            if claim.counts:
                holders[ascii_form(claim.email)].add(claim.user_id)
        return cls(zammad_users=found, holders=holders, addresses=frozenset(map(ascii_form, spelt)))


def again_after_deadlock(settle: Callable[P, T]) -> Callable[P, T]:
    """Settle, and once more if PostgreSQL chose this transaction to end a deadlock.

    One transaction may settle several changes, as admin's actions do, and so lock in any order.
    """

    @wraps(settle)
    def settle_again(*args: P.args, **kwargs: P.kwargs) -> T:
        for _attempt in range(DEADLOCKS):
            try:
                return settle(*args, **kwargs)
            except OperationalError as error:
                if getattr(error.__cause__, "sqlstate", "") != DEADLOCK or connection.in_atomic_block:
                    raise
        return settle(*args, **kwargs)

    return settle_again


@again_after_deadlock
def settle_links(
    *,
    zammad_users: Collection[ZammadUser] = (),
    people: Collection[int] = (),
    addresses: Collection[str] = (),
    delivery: WebhookDelivery | None = None,
    now: datetime,
) -> list[LinkChange]:
    """Make, move and end links after something about Zammad users, people or addresses has changed.

    Call it once the change is visible to this connection: after its commit, or in its transaction
    before any of the rows of Zammad users is locked. An address is locked while links that depend
    on it are settled, so of two changes at once the later one sees both.

    :param people: primary keys.
    :param delivery: the receipt of what brought the change.
    """
    pks = [each.pk for each in zammad_users]
    addresses = [*addresses, *(each.email for each in zammad_users)]
    locked = frozenset(map(ascii_form, addresses)) - {""}
    for _look in range(LOOKS):
        with transaction.atomic():
            _lock(locked)
            around = Neighbourhood.around(zammad_users=pks, people=people, addresses=addresses)
            if around.addresses <= locked:
                changes = _apply(around, delivery=delivery, now=now)
                if changes is not None:
                    return changes
            # Locks are taken in one order: give back what is held before more is asked for.
            transaction.set_rollback(True)
        locked |= around.addresses
    return []  # others have changed this at every look, and each of them settles what they changed


def settle_person(*, user_id: int, addresses: Collection[str], now: datetime) -> None:
    """Settle the link of a person if a Zammad user with one of their addresses is not linked to them."""
    others = ZammadUser.objects.filter(email__in=_spelt(addresses)).exclude(user=user_id)
    if others.exists():
        settle_links(people=[user_id], addresses=addresses, now=now)


@transaction_required
def release_person(*, user_id: int, now: datetime) -> list[str]:
    """End the link of a person who is about to be deleted, and return the addresses that this frees.

    Settle those once the person is gone, and all who are deleted with them: none of them
    may be linked meanwhile.
    """
    addresses = _hold(people=[user_id])
    # Nor may staff link them: a person without addresses is locked by their row alone.
    list(get_user_model()._default_manager.select_for_update().filter(pk=user_id))
    linked = list(ZammadUser.objects.select_for_update().filter(user=user_id))
    _write({each: Decision(None, Why.PERSON_DELETED) for each in linked}, now=now)
    return addresses


def explain(zammad_user: ZammadUser) -> Why:
    """Tell staff why a Zammad user is linked as they are, by the rule and the present state."""
    if zammad_user.link_kind == ZammadUser.LinkKind.HAND:
        return Why.BY_HAND
    around = Neighbourhood.around(zammad_users=[zammad_user.pk])
    return decide(around.zammad_users, around.holders)[zammad_user.pk].why


class Claim(NamedTuple):
    """An address that a person has verified, and whether that counts for the rule."""

    user_id: int
    email: str
    is_active: bool
    link_kind: str | None

    @property
    def counts(self) -> bool:
        return self.is_active and self.link_kind != ZammadUser.LinkKind.HAND


def _claims(*, people: Collection[int], spelt: Collection[str]) -> list[Claim]:
    """List the verified addresses of people, and of everybody who has verified one of these addresses."""
    verified = EmailAddress.objects.filter(verified=True).order_by()
    # Two statements: with OR, PostgreSQL would read every address there is.
    people = {*people, *verified.filter(email__in=spelt).values_list("user_id", flat=True)}
    if not people:
        return []
    names = "user_id", "email", "user__is_active", "user__zammad_user__link_kind"
    return list(map(Claim._make, verified.filter(user__in=people).values_list(*names)))


def _apply(
    around: Neighbourhood, *, delivery: WebhookDelivery | None, now: datetime
) -> list[LinkChange] | None:
    """Write what the rule decides; None if a row was changed after it was read."""
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
    """Write links and their history; a person leaves one before they get another."""
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


@transaction_required
def _hold(*, zammad_users: Collection[int] = (), people: Collection[int] = ()) -> list[str]:
    """Lock all that surrounds Zammad users and people (primary keys), and return their addresses.

    What is settled later in the transaction then waits for no lock, and nobody for two in turn.
    """
    locked = frozenset[str]()
    for _look in range(LOOKS):
        with transaction.atomic():
            _lock(locked)
            around = Neighbourhood.around(zammad_users=zammad_users, people=people)
            if around.addresses <= locked:
                break
            transaction.set_rollback(True)
        locked |= around.addresses
    verified = EmailAddress.objects.filter(user__in=people, verified=True).values_list("email", flat=True)
    linked = Q(pk__in=zammad_users) | Q(user__in=people)
    return [*verified, *ZammadUser.objects.filter(linked).values_list("email", flat=True)]


@transaction_required
def _lock(addresses: Iterable[str]) -> None:
    """Lock addresses until the transaction ends. SQLite has one writer at a time by itself."""
    keys = sorted({zlib.crc32(address.encode()) - 2**31 for address in addresses if address})
    if keys and connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_advisory_xact_lock(%s, key) FROM unnest(%s::int[]) AS key", [LOCKS, keys]
            )


def _linked(zammad_users: Iterable[ZammadUser]) -> set[int]:
    """Return the people that Zammad users are linked to."""
    return {each.user_id for each in zammad_users if each.user_id is not None}


def _spelt(addresses: Iterable[str]) -> set[str]:
    return set[str]().union(*map(spellings, addresses)) - {""}


# --- By hand ---------------------------------------------------------------------------------


def link_by_hand(*, actor: Actor, zammad_user_id: int, user_id: int, now: datetime) -> ZammadUser:
    """Link a Zammad user to a person of staff's choice; both ids are primary keys.

    :raises LinkNotPermitted:
    :raises ZammadUserNotFound:
    :raises PersonNotFound:
    :raises AlreadyLinked:
    """
    _check_may_link(actor)
    with transaction.atomic(durable=True):
        zammad_user = _found(zammad_user_id, people=[user_id])
        # Only AbstractBaseUser is promised of a project's own user model.
        people = get_user_model()._default_manager.select_for_update(no_key=True)
        person = people.filter(pk=user_id).first()
        if person is None or not person.is_active:
            raise PersonNotFound
        if zammad_user.user_id is not None or ZammadUser.objects.filter(user=person.pk).exists():
            raise AlreadyLinked
        _write(
            {zammad_user: Decision(person.pk, Why.BY_HAND)},
            kind=ZammadUser.LinkKind.HAND,
            actor=actor,
            now=now,
        )
        # Neither takes part any more, which may decide on their neighbours.
        settle_links(zammad_users=[zammad_user], people=[person.pk], now=now)
        zammad_user.refresh_from_db()
        return zammad_user


def unlink(*, actor: Actor, zammad_user_id: int, now: datetime) -> ZammadUser:
    """Remove a link for good: an equal address will not bring it back by itself.

    :raises LinkNotPermitted:
    :raises ZammadUserNotFound:
    """
    _check_may_link(actor)
    with transaction.atomic(durable=True):
        zammad_user = _found(zammad_user_id)
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


def _found(zammad_user_id: int, *, people: Collection[int] = ()) -> ZammadUser:
    """Lock the addresses around a Zammad user, then the row.

    :raises ZammadUserNotFound:
    """
    _hold(zammad_users=[zammad_user_id], people=people)
    zammad_user = ZammadUser.objects.select_for_update().filter(pk=zammad_user_id).first()
    if zammad_user is None:
        raise ZammadUserNotFound
    return zammad_user
