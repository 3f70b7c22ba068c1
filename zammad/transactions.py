"""Functions that need their caller's transaction say so, and are refused without one."""

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from django.db import connection

P = ParamSpec("P")
R = TypeVar("R")


class TransactionMissing(Exception):
    """A function was called outside the transaction that it needs: a mistake in the code."""


def transaction_required(function: Callable[P, R]) -> Callable[P, R]:
    """Run a function only within a transaction; the one that a test case opens does not count.

    As in django-subatomic, which needs Python 3.12: https://github.com/kraken-tech/django-subatomic
    A function that must not run within another's transaction opens its own by `atomic(durable=True)`.

    :raises TransactionMissing:
    """

    @wraps(function)
    def within_transaction(*args: P.args, **kwargs: P.kwargs) -> R:
        # Django tells its test cases apart by the same name when it holds `durable`.
        blocks: list[Any] = connection.atomic_blocks
        if not blocks or blocks[-1]._from_testcase:
            raise TransactionMissing(function.__qualname__)
        return function(*args, **kwargs)

    return within_transaction
