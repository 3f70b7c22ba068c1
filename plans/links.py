"""What mail programs take for a link, and how a text is written so that they do not.

Nobody marks such a link: mail programs make one of www.evil.example, evil.example/win or user@host
wherever it stands. So in a text that people chose, whatever joins the parts of an address is followed
by a space that everybody can see; something invisible would stop some programs, and not others.
"""

import re

# Each with its wider and smaller forms, and with what IDNA reads as a full stop.
DOT = "[.\u2024\u2025\u2026\ufe52\uff0e\u3002\uff61]"
COLON = "[:\ufe55\uff1a]"
AT = "[@\ufe6b\uff20]"
SLASH = r"[/\\\u2044\u2215\uff0f\uff3c]"
# Behind a dot no part of an address begins with these: "Dr.-Ing.", "(jun.)", "and so on..."
ENDING = r"""\s)\]}"'\u201d\u2019\u00bb\u203a,;!?\u2010-\u2014\-""" + DOT[1:-1]
# No address has parts of one letter alone, or of two numbers: "J.R.R. Tolkien", "Plan 2.0"
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
    """Keep a text from pretending to be several paragraphs."""
    return " ".join(text.split())


def without_links(text: str) -> str:
    """Return a text on one line, in which no mail program finds a link."""
    return JOINT.sub(lambda joint: joint[0] if joint["whole"] else f"{joint[0]} ", one_line(text))


def reads_as_link(text: str) -> bool:
    """Tell whether a mail program might make a link of a part of the text."""
    return without_links(text) != one_line(text)
