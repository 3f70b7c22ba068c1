"""Find what mail programs turn into a link, and rewrite a text so that they do not.

Mail programs make a link of www.evil.example, evil.example/win or user@host wherever they find it.
So in texts that people chose, a visible space follows each character that joins the parts of an
address; an invisible character would stop some programs, but not others.
"""

import re

# Each with its wide and small forms, and with all that IDNA reads as a full stop.
DOT = "[.\u2024\u2025\u2026\ufe52\uff0e\u3002\uff61]"
COLON = "[:\ufe55\uff1a]"
AT = "[@\ufe6b\uff20]"
SLASH = r"[/\\\u2044\u2215\uff0f\uff3c]"
# After a dot, no part of an address begins with these: "Dr.-Ing.", "(jun.)", "and so on..."
ENDING = r"""\s)\]}"'\u201d\u2019\u00bb\u203a,;!?\u2010-\u2014\-""" + DOT[1:-1]
# No address consists of single letters, or of two numbers: "J.R.R. Tolkien", "Plan 2.0"
INITIAL = "[A-Za-z\u00c0-\u024f]"
WHOLE = rf"""(?<![^\s("'])(?:\d+\.\d+|(?:{INITIAL}\.)+{INITIAL}\.?)(?![^\s)"',;!?-])"""

JOINT = re.compile(
    rf"(?P<whole>{WHOLE})"
    rf"|{DOT}(?=[^{ENDING}])"
    rf"|(?<=\S){COLON}(?=\S)(?!(?<=\d{COLON})\d)"  # 10:30 is a time
    rf"|(?<=\S){AT}(?=\S)"
    rf"|{SLASH}(?={SLASH})"
)


def one_line(text: str) -> str:
    """Put a text on one line, so that it cannot pose as several paragraphs."""
    return " ".join(text.split())


def without_links(text: str) -> str:
    """Return a text on one line, in which mail programs find no link."""
    return JOINT.sub(lambda joint: joint[0] if joint["whole"] else f"{joint[0]} ", one_line(text))


def reads_as_link(text: str) -> bool:
    """Return whether mail programs might find a link in a text."""
    return without_links(text) != one_line(text)
