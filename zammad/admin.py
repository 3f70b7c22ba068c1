"""Webhook deliveries in the admin, to be read. Zammad users stand beside their plans in plans/."""

import uuid
from typing import ClassVar

from django.contrib import admin
from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.functional import cached_property

from zammad.models import WebhookDelivery

COUNTED = 10_000


class ShallowPaginator(Paginator):  # type: ignore[type-arg]  # generic only to type checkers
    """Count no further than anybody turns pages: the table is a log and grows for ever."""

    @cached_property
    def count(self) -> int:
        rows: QuerySet[WebhookDelivery] = self.object_list  # type: ignore[assignment]
        return rows.order_by().values("pk")[:COUNTED].count()


@admin.register(WebhookDelivery)
class WebhookDeliveryAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ("received_at", "outcome", "detail", "zammad_user", "trigger", "attempts")
    list_filter = ("outcome", "received_at")
    list_select_related = ("zammad_user",)
    list_per_page = 50
    show_facets = admin.ShowFacets.NEVER  # they would count the whole table
    ordering = ("-received_at", "-pk")
    paginator = ShallowPaginator
    show_full_result_count = False
    search_fields: ClassVar = ["delivery_id", "zammad_user__zammad_id"]
    search_help_text = "A delivery ID or a Zammad ID, in full."

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[WebhookDelivery], search_term: str
    ) -> tuple[QuerySet[WebhookDelivery], bool]:
        """Look up by index: a search for parts would read the whole table."""
        term = search_term.strip()
        if not term:
            return queryset, False
        try:
            if term.isdecimal():
                return queryset.filter(zammad_user__zammad_id=int(term)), False
            return queryset.filter(delivery_id=uuid.UUID(term)), False
        except ValueError:
            return queryset.none(), False

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: WebhookDelivery | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: WebhookDelivery | None = None) -> bool:
        return False
