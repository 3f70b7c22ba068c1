"""Admin pages as staff see them: their addresses, and what is on a page."""

import html
import re
from typing import Any

from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from plans.models import FamilyPlan, FamilyPlanInvite, Membership, PlanEvent
from zammad.models import LinkChange, WebhookDelivery, ZammadUser

TABLES: tuple[Any, ...] = (
    FamilyPlan,
    Membership,
    FamilyPlanInvite,
    PlanEvent,
    ZammadUser,
    WebhookDelivery,
    LinkChange,
)


def as_person(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def url(model: type[Any], page: str, *args: Any) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{page}", args=args)


def everything() -> dict[str, list[dict[str, Any]]]:
    """Return every row that only services may write."""
    return {model.__name__: list(model.objects.order_by("pk").values()) for model in TABLES}


def told(response: Any) -> list[str]:
    """Return the messages that the page shows."""
    lists = re.findall(r'<ul class="messagelist">(.*?)</ul>', response.content.decode(), re.DOTALL)
    return [
        html.unescape(text).strip() for text in re.findall(r"<li[^>]*>(.*?)</li>", "".join(lists), re.DOTALL)
    ]


def text_of(response: Any) -> str:
    """Return the text that a person reads on the page."""
    main = response.content.decode().partition('<main id="content-start"')[2]
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", main)).split())


def row_of(response: Any, name: str) -> str:
    """Return the cells of the row that contains a text."""
    rows = re.findall(r"<tr.*?</tr>", response.content.decode(), re.DOTALL)
    [row] = [row for row in rows if name in row]
    return " | ".join(
        html.unescape(re.sub(r"<[^>]*>", "", cell)).strip()
        for cell in re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row, re.DOTALL)
    )


def queries_of(client: Client, address: str) -> int:
    with CaptureQueriesContext(
        connection,
    ) as queries:
        assert client.get(address).status_code == 200
    return len(queries)
