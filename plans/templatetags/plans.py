"""How the pages name people, and tell what staff did."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from django import template
from django.utils.translation import gettext

from plans.models import display_name

if TYPE_CHECKING:
    from django.contrib.admin.models import LogEntry

register = template.Library()
register.filter("display_name", display_name)


@register.filter
def change_message(entry: LogEntry) -> str:
    """Tell an entry of admin's history in the reader's language; Django knows only its own kinds."""
    message = entry.change_message
    if not message.startswith('[{"journey"'):
        return entry.get_change_message()
    [entry_of_ours] = json.loads(message)
    told: dict[str, str] = entry_of_ours["journey"]
    return gettext(told["done"]) % told
