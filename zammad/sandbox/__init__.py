"""A stand-in for Zammad over real HTTP, for development and tests. It keeps everything in memory.

What it answers, it answers as Zammad does where this project asks; nothing more is there. Where
versions differ, `Sandbox(version=...)` or `sandbox.version` says which one it is; 6.5 unless told otherwise.

=============================  ==========================  =========================  ====================
What                           up to 6.0                   6.5                        7.x (2026)
=============================  ==========================  =========================  ====================
Token: parameter and answer    label, {"name": value}      name, {"token": value}     as 6.5
Unreadable expires_at          a token without an end      422, masked                422, masked
Condition of a user search     ignored                     obeyed                     obeyed
signature_token                in clear                    in clear                   ``**********``
http_method of a webhook       dropped, always POST        dropped, always POST       kept, and used
Content-Type of a delivery     application/json            with charset=utf-8         with charset=utf-8
Host unknown at sending        retried                     retried                    dropped
=============================  ==========================  =========================  ====================

The same in all three: the order of tokens and the dates in their list; the texts of refusals, of
which those that nobody foresaw are masked ("Error ID ...: Please contact your administrator.", without
error_human); From headers; unique names of triggers; which triggers fire, "selective" or "always"; a
customer's updated_at, which moves some moments after each ticket (`count_tickets`, or `count_after`);
attributes of users. The answers of 6.5 were seen; what differs elsewhere was read in Zammad's sources,
but that 6.0 ignores the condition of a search is assumed.
"""

from zammad.sandbox.calls import Call
from zammad.sandbox.faults import (
    BROKEN_JSON,
    HTML_PAGE,
    NULL_TOKEN,
    OVERSIZED,
    REDIRECT,
    WRONG_TYPE,
    Fault,
    Faults,
    Reply,
)
from zammad.sandbox.records import ADMIN, CUSTOMER, PEOPLE, Version
from zammad.sandbox.server import Sandbox
from zammad.sandbox.webhooks import COUNTED_AFTER, Delivery

__all__ = [
    "ADMIN",
    "BROKEN_JSON",
    "COUNTED_AFTER",
    "CUSTOMER",
    "HTML_PAGE",
    "NULL_TOKEN",
    "OVERSIZED",
    "PEOPLE",
    "REDIRECT",
    "WRONG_TYPE",
    "Call",
    "Delivery",
    "Fault",
    "Faults",
    "Reply",
    "Sandbox",
    "Version",
]
