"""Template filters: names of people, and entries of admin's history."""

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
    """Translate an entry of admin's history; Django translates only its own kinds."""
    message = entry.change_message
    if not message.startswith('[{"journey"'):
        return entry.get_change_message()
    [change] = json.loads(message)
    journey: dict[str, str] = change["journey"]
    return gettext(journey["done"]) % journey
