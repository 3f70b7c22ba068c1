"""A stand-in for Zammad over real HTTP, for development and tests. It keeps all data in memory.

It has only the endpoints that this project uses, and responds as Zammad does. Versions differ;
`Sandbox(version=...)` or `sandbox.version` selects one, by default 6.5.

=============================  ==========================  =========================  ====================
What                           up to 6.0                   6.5                        7.x (2026)
=============================  ==========================  =========================  ====================
Token: parameter and response  label, {"name": value}      name, {"token": value}     as 6.5
Unreadable expires_at          a token without an end      422, masked                422, masked
Condition of a user search     ignored                     obeyed                     obeyed
signature_token                in clear                    in clear                   ``**********``
http_method of a webhook       dropped, always POST        dropped, always POST       kept, and used
Content-Type of a delivery     application/json            with charset=utf-8         with charset=utf-8
Host unknown at sending        retried                     retried                    dropped
=============================  ==========================  =========================  ====================

The same in all three: the order of tokens and the dates in their list; the texts of errors, masked
if unexpected ("Error ID ...: Please contact your administrator.", without error_human); From headers;
unique names of triggers; which triggers fire, "selective" or "always"; a customer's updated_at, which
changes moments after each ticket (`count_tickets`, or `count_after`); attributes of users. The responses
of 6.5 were observed, the differences read in Zammad's sources; only the ignored condition is assumed.
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
