"""Write the codes of refusals into docs/api.md; run it by `manage.py shell`."""

from pathlib import Path

from graphql_api.refusals import codes_as_table

BEGIN, END = "<!-- codes: make schema writes them -->", "<!-- end of codes -->"

page = Path("docs/api.md")
text = page.read_text()
begin, end = text.index(BEGIN) + len(BEGIN), text.index(END)
page.write_text(f"{text[:begin]}\n{codes_as_table()}\n{text[end:]}")
