"""A mailbox is counted once, however its address is spelled."""

import pytest

from plans.quotas import mailbox_of


@pytest.mark.parametrize(
    ("address", "mailbox"),
    [
        ("dana@example.com", "dana@example.com"),
        ("Dana@Example.COM", "dana@example.com"),
        ("dana+news@example.com", "dana@example.com"),
        ("dana+a+b@example.com", "dana@example.com"),
        ("+dana@example.com", "+dana@example.com"),
        ("da.na@example.com", "da.na@example.com"),
        ("d.a.na+x@gmail.com", "dana@gmail.com"),
        ("D.ana@googlemail.com", "dana@gmail.com"),
        ("dana@bücher.example", "dana@xn--bcher-kva.example"),
        ("dana@XN--BCHER-KVA.example", "dana@xn--bcher-kva.example"),
        ("no address", "@no address"),
    ],
)
def test_the_spellings_of_an_address_are_one_mailbox(address: str, mailbox: str) -> None:
    assert mailbox_of(address) == mailbox
