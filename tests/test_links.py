"""No name that people choose is a link in a mail; the oracle is what Markdown programs make links with."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from linkify_it import LinkifyIt

from plans.links import reads_as_link, without_links

# It knows the usual top-level domains; these are our hostile ones.
ORACLE = LinkifyIt(options={"fuzzy_ip": True, "fuzzy_link": True, "fuzzy_email": True})
ORACLE.tlds(["example", "win", "zip", "xyz", "рф", "网络", "みんな"], keep_old=True)
# Wider than any list of top-level domains: a dotted text, a word on both sides of an @, a scheme.
LOOKS_LIKE_ONE = re.compile(
    r"\w[.。．｡․﹒]\w{2}|\w@\w|//|\\\\|\b(?:https?|ftp|mailto|tel|sms|skype|file):\S|\d+\.\d+\.\d+\.\d+",
    re.IGNORECASE,
)

HOSTILE = [
    "evil.example",
    "evil.example/win",
    "EVIL.EXAMPLE",
    "www.evil.example/win",
    "www.evil",
    "www.evil.example",
    "x.co",
    "t.co/abc",
    "a.b.example",
    "evil.example:8080",
    "evil.example:80/win?a=b#c",
    "win at evil.example, now",
    "(evil.example)",
    '"evil.example"',
    "<evil.example>",
    "evil.example.",
    "-evil.example-",
    "_evil.example_",
    "Bob,evil.example",
    "Bob:evil.example",
    "Bob|evil.example",
    "Dr.evil.example",
    "J.R.evil.example",
    "evil.co.uk",
    "evil-site.com",
    "xn--bcher-kva.com",
    "bücher.com",
    "evil.рф",
    "почта.рф",
    "邪悪.みんな",
    "邪悪。みんな",
    "evil。example",
    "evil．example",
    "evil｡example",
    "evil․example",
    "evil﹒com",
    "evil.\u200bexample",
    "evil.\u2060example",
    "evil.\u00adexample",
    "evil\u200b.example",
    "i❤.ws",
    "☃.net",
    "user@host",
    "user@evil.example",
    "user@localhost",
    "user＠evil.example",
    "user+tag@evil.example",
    "192.0.2.1",
    "http://192.0.2.1/win",
    "1.1.1.1",
    "1.1.1.1:80/win",
    "[2001:db8::1]",
    "http://[2001:db8::1]/",
    "http://evil",
    "HTTP://evil.example",
    "http:evil.example",
    "http:/evil.example",
    "http:\\\\evil.example",
    "https://evil.example/@win",
    "ftp://evil/",
    "mailto:user",
    "mailto:user@evil.example",
    "tel:+4912345",
    "sms:12345",
    "skype:evil?call",
    "javascript:alert(1)",
    "file:///etc/passwd",
    "//evil.example/win",
    "//localhost/win",
    "\\\\evil\\share",
    "evil.example\\win",
    "see\nevil.example",
    "see\u2028evil.example",
    "evil.example\u00a0now",
    "2.0.evil.example",
    "evil.2.0.example",
    "evil.zip",
]
INNOCENT = [
    "Dr. Müller",
    "Müller & Co. KG",
    "St. John",
    "Dr.-Ing. Müller",
    "Prof. Dr. h.c. Müller",
    "Martin Luther King jr.",
    "Sammy Davis (Jr.)",
    "J.R.R. Tolkien",
    "J. R. R. Tolkien",
    "U.S.A.",
    "Anna-Maria O'Neill",
    "Familie 2.0",
    "Plan Nr. 7",
    "Nr. 1,5",
    "And so on...",
    "And so on…",
    "Zoë & <b>Söhne</b>",
    "Und/oder",
    "Müller/Schmidt",
    "10:30",
    "Plan: ours",
    "Team :-)",
    "50 % @ home",
    "@home",
    "家族プラン",
    "家族。",
    "हिन्दी परिवार",
    "😀 plan",
    "#1 family!",
    "R&D",
]
# They are not links, and read as well with a space.
SPACED = {
    "Müller & Co.KG": "Müller & Co. KG",
    "Dr.Müller": "Dr. Müller",
    "J.R.R.Tolkien": "J. R. R. Tolkien",
    "Team@Home": "Team@ Home",
    "Plan:ours": "Plan: ours",
    "www.evil.example/win": "www. evil. example/win",
    "http://evil.example": "http: / /evil. example",
    "  two \n lines ": "two lines",
}


def links_in(text: str) -> list[str]:
    found = [match.text for match in ORACLE.match(text) or []]
    return found + LOOKS_LIKE_ONE.findall(text)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_no_link(name: str) -> None:
    written = without_links(name)

    assert reads_as_link(name)
    assert links_in(written) == []
    assert links_in(f"{written} invites you.") == []
    assert links_in(f"You are now in the family plan {written}.") == []
    # and nothing but visible spaces was added
    assert "".join(written.split()) == "".join(name.split())


def test_the_oracle_sees_what_it_is_there_for() -> None:
    seen = [name for name in HOSTILE if links_in(name)]

    assert len(seen) > 60
    assert {"evil.example/win", "www.evil.example/win", "192.0.2.1", "user@host", "邪悪。みんな"} <= set(seen)


@pytest.mark.parametrize("name", INNOCENT)
def test_an_innocent_name_stays_as_it_is(name: str) -> None:
    assert links_in(name) == []
    assert without_links(name) == name
    assert not reads_as_link(name)


@pytest.mark.parametrize(("name", "written"), SPACED.items())
def test_a_name_stays_legible(name: str, written: str) -> None:
    assert without_links(name) == written


PIECES = st.sampled_from(
    [
        *"aeZ0179.:/\\@-_~?#%&=+,;!'\"()[]<>| \t\n",
        "。",
        "．",
        "｡",
        "＠",
        "：",
        "／",
        "\u200b",
        "\u00ad",
        "\u0301",
        "www",
        "evil",
        "com",
        "example",
        "win",
        "http",
        "mailto",
        "localhost",
        "xn--",
        "рф",
        "1.1",
        "J.",
        "co.",
    ]
)


@given(st.lists(PIECES, max_size=12).map("".join) | st.text(max_size=80))
def test_whatever_is_put_together_is_no_link(name: str) -> None:
    written = without_links(name)

    assert links_in(f"{written} invites you.") == []
    assert without_links(written) == written
    assert "".join(written.split()) == "".join(name.split())
