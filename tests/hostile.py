"""Documents made to take long, each within the limit of bytes: for a test and a benchmark."""

from __future__ import annotations


def chain(count: int, spreads: str, last: str, *, on: str = "Query") -> str:
    """Write fragments, each of which spreads the next, as `spreads` writes it with {next}."""
    links = (f"fragment F{n} on {on} {{ {spreads.replace('{next}', f'...F{n + 1}')} }}" for n in range(count))
    return " ".join([*links, f"fragment F{count} on {on} {{ {last} }}"])


def many(text: str, count: int) -> str:
    """Write a text this many times, with another number for {n} each time."""
    return " ".join(text.replace("{n}", str(n)) for n in range(count))


PLAN = """id name members { id user { id email } } invites { edges { node { id user { id } } } }
  events { edges { node { id kind actor { id } subject { id } invite { id } } } }"""

HOSTILE = {
    # Fragments
    "each fragment spreads the next twice": "{ ...F0 } " + chain(70, "{next} {next}", "__typename"),
    "and the next below two fields": "{ viewer { plan { ...F0 } } } "
    + chain(30, "owner { id } members { id } {next} {next}", "id", on="FamilyPlan"),
    "a chain": "{ ...F0 } " + chain(100, "{next}", "__typename"),
    "a cycle": "{ ...F0 } " + many("fragment F{n} on Query { ...F{n}0 ...F0 }", 60),
    "a fragment of itself": "{ ...F } fragment F on Query { ...F ...F }",
    "each spreads all that follow": "{ ...F0 } "
    + " ".join(
        f"fragment F{n} on Query {{ {' '.join(f'...F{later}' for later in range(n + 1, 26))} __typename }}"
        for n in range(26)
    ),
    "one of two of a name is hidden": "{ ...F } fragment F on Query { "
    + "viewer { id } " * 200
    + "} fragment F on Query { viewer { id } }",
    "many operations share many": many("query Q{n} { ...F0 }", 60) + chain(60, "{next}", "__typename"),
    "many operations, many uses of a variable": many("query Q{n}($x: Int) { ...F }", 40)
    + " fragment F on Query { plans("
    + "first: $x " * 60
    + ") { edges { cursor } } }",
    "unknown ones": "{ " + many("...G{n}", 400) + " }",
    "unused ones": "{ __typename } " + many("fragment F{n} on Query { viewer { id } }", 90),
    # One name in one place
    "a name": "{" + " __typename" * 990 + " }",
    "a name with fields": "{ " + "viewer { id } " * 240 + "}",
    "a name in inline fragments": "{ " + "... on Query { viewer { id } } " * 120 + "}",
    "a name in fragments": "{ "
    + many("...F{n}", 60)
    + " } "
    + many("fragment F{n} on Query { viewer { id } }", 60),
    "a name at each level": "{ viewer { plan { "
    + "owner { id email } " * 20
    + "members { "
    + "user { id } " * 20
    + "} } } }",
    # Much work for the validation rules
    "unknown fields": "{ " + many("plam{n}", 900) + " }",
    "unknown types": many("fragment F{n} on FamilyPlam{n} { id }", 130),
    "unknown arguments": "{ plans(" + many("firts{n}: 1", 300) + ") { edges { cursor } } }",
    "unknown directives": "{ viewer " + many("@skap{n}", 300) + " { id } }",
    "unknown fields of an input": "{ plans(filters: {"
    + many("nama{n}: 1", 300)
    + "}) { edges { cursor } } }",
    "an argument again and again": "{ plans(" + "first: 1 " * 300 + ") { edges { cursor } } }",
    "unused variables": "query (" + many("$x{n}: Int", 240) + ") { __typename }",
    "errors behind many lines": "{" + "\n" * 49_000 + many("plam{n}", 180) + " }",
    "errors behind as many lines as may be": "{" + "\n" * 4_990 + many("plam{n}", 180) + " }",
    # Long or deep documents
    "a list in a list": "{ plans(filters: " + "[" * 180 + "]" * 180 + ") { edges { cursor } } }",
    "a long list": "{ plans(filters: [" + "1 " * 900 + "]) { edges { cursor } } }",
    "brackets that never close": "{ plans(filters: " + "[" * 990,
    "braces that never close": "{ a" * 499,
    "inline fragments in each other": "{ " + "... { " * 190 + "__typename" + " }" * 190 + " }",
    "a type in brackets": "query ($x: " + "[" * 190 + "Int" + "]" * 190 + ") { __typename }",
    "types of types": "{ __schema { types " + "{ fields { type " * 60 + "{ name }" + " } }" * 60 + " } }",
    "a comment": "{ __typename } #" + "x" * 100_000,
    "comments": "{ __typename }" + "\n#" * 33_000,
    "a text": '{ node(id: "' + "x" * 99_000 + '") { id } }',
    "a text of escapes": '{ node(id: "' + r"\u0041" * 14_000 + '") { id } }',
    "a text of many lines": '{ node(id: """' + "x\n" * 33_000 + '""") { id } }',
    "a text of quotes": '{ node(id: """' + '\\"""' * 12_000 + '""") { id } }',
    "a name of 100 KB": "{ " + "x" * 100_000 + " }",
    "a number of 100 KB": "{ plans(first: " + "9" * 99_000 + ") { edges { cursor } } }",
    "a fraction of 100 KB": "{ plans(first: 1." + "9" * 99_000 + ") { edges { cursor } } }",
    "commas": "{ __typename }" + "," * 99_000,
    # Short documents with long responses
    "a plan fifteen times": 'query ($id: ID = "RmFtaWx5UGxhbjox") { '
    + many("p{n}: plan(id: $id) { ...P }", 15)
    + " } fragment P on FamilyPlan { "
    + PLAN
    + " }",
    "all plans fifteen times": "{ "
    + many("p{n}: plans { edges { node { ...P } } }", 15)
    + " } fragment P on FamilyPlan { "
    + PLAN
    + " }",
}
