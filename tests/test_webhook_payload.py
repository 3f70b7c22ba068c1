"""What is read from a payload: strict about who and when, lenient with everything else."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zammad.webhooks import TEXT_LENGTHS, Unusable, UserData, parse_customer, parse_user

SAMPLE = Path(__file__).parent / "samples" / "ticket_create.json"
NOW = datetime(2026, 8, 3, 9, 0, tzinfo=UTC)


def user(**changes: object) -> dict[str, Any]:
    return {"id": 57, "email": "lena.vogt@acme.example", "updated_at": "2026-08-03T08:15:02.230Z", **changes}


def delivery(**changes: object) -> bytes:
    return json.dumps({"ticket": {"customer": user(**changes)}, "article": {}}).encode()


def test_the_sample_of_zammad_is_read_in_full() -> None:
    assert parse_customer(SAMPLE.read_bytes(), now=NOW) == UserData(
        zammad_id=57,
        email="lena.vogt@acme.example",
        login="lena.vogt@acme.example",
        firstname="Lena",
        lastname="Vogt",
        phone="+49 30 5550142",
        mobile="",
        organization="Acme Example GmbH",
        active=True,
        vip=False,
        updated_at=datetime(2026, 8, 3, 8, 15, 2, 230_000, tzinfo=UTC),
    )


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"not json", id="text"),
        pytest.param(b'{"ticket": ', id="cut"),
        pytest.param(b'\xff{"ticket": {}}', id="not-utf-8"),
        pytest.param('{"ticket": {}}'.encode("utf-16"), id="utf-16"),
        pytest.param(b"[" * 200_000, id="deep"),
        pytest.param(b'{"ticket": {"customer": {"id": ' + b"9" * 5000 + b"}}}", id="long-integer"),
    ],
)
def test_what_is_not_json_is_unusable(body: bytes) -> None:
    with pytest.raises(Unusable, match=r"^the body is not readable JSON$"):
        parse_customer(body, now=NOW)


@pytest.mark.parametrize(
    "payload",
    [
        None,
        True,
        17,
        "text",
        [],
        {},
        {"error": "unexpected token"},
        {"ticket": None},
        {"ticket": "31233"},
        {"ticket": {}},
        {"ticket": {"customer": None}},
        {"ticket": {"customer": [57]}},
        {"ticket": {"customer": "lena.vogt@acme.example"}},
    ],
)
def test_what_has_no_customer_is_unusable(payload: object) -> None:
    with pytest.raises(Unusable, match=r"^the body has no ticket with a customer$"):
        parse_customer(json.dumps(payload).encode(), now=NOW)


@pytest.mark.parametrize("record", [None, [], "57", 57])
def test_what_is_no_object_is_no_user(record: object) -> None:
    with pytest.raises(Unusable, match=r"^the user is not an object$"):
        parse_user(record, now=NOW)


@pytest.mark.parametrize(
    "zammad_id",
    [
        None,
        True,
        False,
        "57",
        57.0,
        [57],
        0,
        -57,
        2**31,
        10**30,
        float("nan"),
        float("inf"),
        "#{no such method}",
    ],
)
def test_an_id_that_is_not_zammads_is_unusable(zammad_id: object) -> None:
    with pytest.raises(Unusable, match=r"^the user has no usable id$"):
        parse_user(user(id=zammad_id), now=NOW)


def test_a_customer_without_anything_is_unusable() -> None:
    with pytest.raises(Unusable, match=r"^the user has no usable id$"):
        parse_customer(b'{"ticket": {"customer": {}}}', now=NOW)


@pytest.mark.parametrize("zammad_id", [2, 2**31 - 1])
def test_the_smallest_and_the_largest_id_are_read(zammad_id: int) -> None:
    assert parse_user(user(id=zammad_id), now=NOW).zammad_id == zammad_id


def test_zammads_own_user_is_never_taken_in() -> None:
    with pytest.raises(Unusable, match=r"^user 1 is Zammad's own$"):
        parse_user(user(id=1), now=NOW)


@pytest.mark.parametrize(
    "updated_at",
    [
        None,
        "",
        1_785_744_902,
        "yesterday",
        "2026-08-03T08:15:02.230",  # in whose time zone?
        "2026-08-03 08:15:02",
        "2026-08-03",
        "2026-13-03T08:15:02Z",
        "0001-01-01T00:00:00+23:00",  # before the first year
        "9999-12-31T23:59:59-23:00",  # after the last one
        "2026-08-03T08:15:02Z\ud800",
        ["2026-08-03T08:15:02Z"],
    ],
)
def test_a_time_that_cannot_be_compared_is_unusable(updated_at: object) -> None:
    with pytest.raises(Unusable, match=r"^the user has no usable updated_at$"):
        parse_user(user(updated_at=updated_at), now=NOW)


def test_a_time_may_be_a_day_ahead_of_our_clock_and_no_more() -> None:
    tomorrow = NOW + timedelta(days=1)

    assert parse_user(user(updated_at=tomorrow.isoformat()), now=NOW).updated_at == tomorrow
    with pytest.raises(Unusable, match=r"^updated_at is ahead of our clock$"):
        parse_user(user(updated_at=(tomorrow + timedelta(milliseconds=1)).isoformat()), now=NOW)


def test_a_time_in_another_zone_is_the_same_moment() -> None:
    data = parse_user(user(updated_at="2026-08-03T10:15:02+02:00"), now=NOW)

    assert data.updated_at == datetime(2026, 8, 3, 8, 15, 2, tzinfo=UTC)
    assert data.updated_at.tzinfo is UTC


@pytest.mark.parametrize("odd", [None, 5, 1e400, True, [], {"name": "Acme"}])
@pytest.mark.parametrize("name", sorted(TEXT_LENGTHS))
def test_a_text_that_is_none_is_empty(name: str, odd: object) -> None:
    assert getattr(parse_user(user(**{name: odd}), now=NOW), name) == ""


def test_what_is_missing_is_empty_and_the_user_active() -> None:
    data = parse_user({"id": 57, "updated_at": "2026-08-03T08:15:02Z"}, now=NOW)

    assert data == UserData(
        zammad_id=57,
        email="",
        login="",
        firstname="",
        lastname="",
        phone="",
        mobile="",
        organization="",
        active=True,
        vip=False,
        updated_at=datetime(2026, 8, 3, 8, 15, 2, tzinfo=UTC),
    )


@pytest.mark.parametrize(("active", "read"), [(True, True), (False, False), (None, True), ("false", True)])
def test_only_a_plain_false_deactivates(active: object, read: bool) -> None:
    assert parse_user(user(active=active), now=NOW).active is read


@pytest.mark.parametrize(("vip", "read"), [(True, True), (False, False), (None, False), ("true", False)])
def test_only_a_plain_true_makes_a_vip(vip: object, read: bool) -> None:
    assert parse_user(user(vip=vip), now=NOW).vip is read


def test_texts_are_cut_to_what_is_stored() -> None:
    data = parse_user(user(firstname="ä" * 101, organization="o" * 151), now=NOW)

    assert data.firstname == "ä" * 100
    assert data.organization == "o" * 150


def test_characters_that_no_database_stores_are_dropped() -> None:
    body = delivery(firstname="Le\0na\ud800", lastname="Vogt \U0001f600")

    data = parse_customer(body, now=NOW)

    assert (data.firstname, data.lastname) == ("Lena", "Vogt \U0001f600")


@pytest.mark.parametrize(
    ("email", "read"),
    [
        (" Lena.Vogt@ACME.example ", "lena.vogt@acme.example"),
        ("a" * 243 + "@example.com", "a" * 243 + "@example.com"),
        ("a" * 244 + "@example.com", ""),  # half an address could be another person's
        ("le\0na@example.com", ""),
        ("lena\ud800@example.com", ""),
    ],
)
def test_an_address_is_taken_whole_or_not_at_all(email: str, read: str) -> None:
    assert parse_user(user(email=email), now=NOW).email == read


def test_of_a_repeated_key_the_last_one_counts() -> None:
    body = b'{"ticket": {"customer": {"id": 7, "id": 57, "updated_at": "2026-08-03T08:15:02Z"}}}'

    assert parse_customer(body, now=NOW).zammad_id == 57


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=300),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
USERS = st.fixed_dictionaries(
    {
        "id": st.integers(-1, 2**31) | JSON,
        "updated_at": st.datetimes(timezones=st.timezones()).map(datetime.isoformat) | JSON,
    },
    optional=dict.fromkeys([*TEXT_LENGTHS, "active", "vip"], JSON),
)


def storable_or_unusable(body: bytes) -> None:
    try:
        data = parse_customer(body, now=NOW)
    except Unusable:
        return
    assert 2 <= data.zammad_id < 2**31
    assert data.updated_at <= NOW + timedelta(days=1)
    for name, length in TEXT_LENGTHS.items():
        text = getattr(data, name)
        assert len(text) <= length
        assert "\0" not in text.encode().decode()


@given(st.binary())
def test_any_bytes_are_a_user_or_unusable(body: bytes) -> None:
    storable_or_unusable(body)


@given(JSON)
def test_any_json_is_a_user_or_unusable(payload: object) -> None:
    storable_or_unusable(json.dumps(payload).encode())


@given(USERS)
def test_any_customer_is_a_user_or_unusable(customer: dict[str, object]) -> None:
    storable_or_unusable(json.dumps({"ticket": {"customer": customer}}).encode())
