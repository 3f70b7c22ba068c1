"""A decorator for functions that must run in their caller's transaction."""

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from django.db import connection

P = ParamSpec("P")
R = TypeVar("R")


class TransactionMissing(Exception):
    """A function was called outside the transaction that it needs: a bug."""


def transaction_required(function: Callable[P, R]) -> Callable[P, R]:
    """Run a function only within a transaction; the one that a test case opens does not count.

    As in django-subatomic, which needs Python 3.12: https://github.com/kraken-tech/django-subatomic
    A function that must not run within another transaction opens its own by `atomic(durable=True)`.

    :raises TransactionMissing:
    """

    @wraps(function)
    def within_transaction(*args: P.args, **kwargs: P.kwargs) -> R:
        # Django's check of `durable` recognizes test cases by the same attribute.
        blocks: list[Any] = connection.atomic_blocks
        if not blocks or blocks[-1]._from_testcase:
            raise TransactionMissing(function.__qualname__)
        return function(*args, **kwargs)

    return within_transaction
