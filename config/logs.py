"""How log lines leave the process: without invite tokens, and without addresses."""

import logging
import re

# An invite token is a capability: its 43 characters stand in the path of the invite's
# page, and again, quoted, in ?next= of the sign-in page.
INVITE_TOKEN = re.compile(r"(invites(?:/|%(?:25)*2[Ff]))[A-Za-z0-9_-]{43}")
# GraphiQL writes the operation, with all that was typed into it, into its page's address.
OPERATION = re.compile(r"(/graphql/(?:\?|%3[Ff]))[^\s\"]+")
# The text of a database's or a mail server's error quotes what it refused.
ADDRESS = re.compile(r"[^\s@<>()'\",;:=]+@[^\s@<>()'\",;:=]+")


class MaskingFormatter(logging.Formatter):
    """Mask invite tokens, operations and addresses in the whole record, its traceback included."""

    def format(self, record: logging.LogRecord) -> str:
        line = INVITE_TOKEN.sub(r"\1***", super().format(record))
        line = OPERATION.sub(r"\1***", line)
        return ADDRESS.sub("***@***", line)
