"""Webhook deliveries in the admin, to be read. Zammad users are shown with their plans, in plans/."""

import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import Any, ClassVar

from django.contrib import admin
from django.contrib.admin.views.main import SEARCH_VAR
from django.core.paginator import Paginator
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.defaultfilters import linebreaksbr
from django.urls import reverse
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.functional import cached_property
from django.utils.http import urlencode
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from zammad.models import LinkChange, RefusedDelivery, WebhookDelivery

COUNTED = 10_000
SHOWN_CHANGES = 50
NOT_AGAIN = _(
    "Nothing here needs to be processed again, and nothing can be: bodies are not kept, and only the newest "
    "version of a user counts. The next delivery about a user brings it, and so does the command "
    "import_zammad_users. What was ignored says why."
)
OF_REFUSED = _(
    "What the webhook refused, counted by hour and reason; nothing else of it is kept. Zammad sends what was "
    "refused up to four times more with the same ID, and each time counts. A delivery that Zammad gave up is "
    "lost: the command import_zammad_users brings what it said about its customer."
)


def count_shallowly(rows: QuerySet[Any]) -> int:
    """Count rows, but no further than COUNTED."""
    # In the order shown: what serves that for a page serves the count.
    return rows.values("pk")[:COUNTED].count()


class ShallowPaginator(Paginator):  # type: ignore[type-arg]  # generic only to type checkers
    """Count no further than anybody turns pages: the table is a log and grows for ever."""

    @cached_property
    def count(self) -> int:
        return count_shallowly(self.object_list)  # type: ignore[arg-type]


def history_of_links(changes: QuerySet[LinkChange]) -> str:
    """Tell the newest changes of links: when, from whom to whom, why, and by whom."""
    rows = changes.select_related("from_user", "to_user", "actor").order_by("-at", "-pk")[:SHOWN_CHANGES]
    return linebreaksbr("\n".join(map(_told, rows))) or "-"


def _told(change: LinkChange) -> str:
    return gettext("%(at)s: from %(before)s to %(after)s. %(why)s%(by)s") % {
        "at": date_format(timezone.localtime(change.at), "DATETIME_FORMAT"),
        "before": change.from_user or gettext("nobody"),
        "after": change.to_user or gettext("nobody"),
        "why": change.get_why_display(),
        "by": f" ({change.actor})" if change.actor else "",
    }


def decimal_number(term: str) -> int:
    """:raises ValueError: for what int() takes, too, such as a sign or underscores."""
    if not term.isdecimal():
        raise ValueError(term)
    return int(term)


class LogAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Show a table that only the webhook writes. It grows for ever: nothing counts or sorts all of it."""

    list_per_page = 50
    paginator = ShallowPaginator
    show_facets = admin.ShowFacets.NEVER
    show_full_result_count = False
    sortable_by = ()
    change_list_template = "admin/zammad/log.html"
    note: Any
    other: type[Model]
    other_title: Any
    # The lookups that a term may be for, and what reads it or raises ValueError.
    searched_by: ClassVar[dict[str, Callable[[str], object]]]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Look up by index: a search for parts would read the whole table."""
        term = search_term.strip()
        if not term:
            return queryset, False
        for lookup, read in self.searched_by.items():
            with suppress(ValueError):
                return queryset.filter(**{lookup: read(term)}), False
        return queryset.none(), False

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        context = {"note": self.note, "other_log": self._link(request), "other_title": self.other_title}
        return super().changelist_view(request, {**(extra_context or {}), **context})

    def _link(self, request: HttpRequest) -> str:
        """Return the page of the other log, searched for the same, or nothing without the right to see it."""
        if not self.admin_site.get_model_admin(self.other).has_view_permission(request):
            return ""
        opts = self.other._meta
        page = reverse(f"admin:{opts.app_label}_{opts.model_name}_changelist")
        searched = request.GET.get(SEARCH_VAR)
        return f"{page}?{urlencode({SEARCH_VAR: searched})}" if searched else page


@admin.register(RefusedDelivery)
class RefusedDeliveryAdmin(LogAdmin):
    list_display = ("hour", "reason", "count", "last_at", "last_delivery_id")
    list_filter = ("reason", "hour")
    ordering = ("-hour", "reason")
    fields = list_display
    search_fields: ClassVar = ["last_delivery_id"]
    search_help_text = _("A delivery ID, in full.")
    searched_by: ClassVar = {"last_delivery_id": uuid.UUID}

    note = OF_REFUSED
    other = WebhookDelivery
    other_title = _("Deliveries that were taken")

    def get_fieldsets(self, request: HttpRequest, obj: RefusedDelivery | None = None) -> Any:
        return [(None, {"fields": self.fields, "description": OF_REFUSED})]


@admin.register(WebhookDelivery)
class WebhookDeliveryAdmin(LogAdmin):
    list_display = ("received_at", "outcome", "why", "zammad_user", "trigger")
    list_filter = ("outcome", "received_at")
    list_select_related = ("zammad_user",)
    ordering = ("-received_at", "-pk")
    fields = (*list_display, "delivery_id", "attempts", "last_received_at", "body_digest")
    readonly_fields = ("why", "zammad_id", "link_history")
    search_fields: ClassVar = ["delivery_id", "zammad_user__zammad_id"]
    search_help_text = _("A delivery ID or a Zammad ID, in full.")
    searched_by: ClassVar = {"zammad_user__zammad_id": decimal_number, "delivery_id": uuid.UUID}

    note = NOT_AGAIN
    other = RefusedDelivery
    other_title = _("Deliveries that were refused")

    def get_list_display(self, request: HttpRequest) -> Any:
        return self._shown(self.list_display, request)

    def get_fieldsets(self, request: HttpRequest, obj: WebhookDelivery | None = None) -> Any:
        fields = self._shown(self.get_fields(request, obj), request)
        if "zammad_user" in fields:
            fields.insert(fields.index("zammad_user") + 1, "link_history")
        return [(None, {"fields": fields, "description": NOT_AGAIN})]

    def _shown(self, names: Any, request: HttpRequest) -> list[str]:
        """Name the columns: who may not see Zammad users sees their IDs only."""
        column = "zammad_user" if request.user.has_perm("zammad.view_zammaduser") else "zammad_id"
        return [column if name == "zammad_user" else name for name in names]

    @admin.display(description=_("why"))
    def why(self, delivery: WebhookDelivery) -> str:
        return "; ".join(gettext(part) for part in delivery.detail.split("; ") if part) or "-"

    @admin.display(description=_("links"))
    def link_history(self, delivery: WebhookDelivery) -> str:
        return history_of_links(delivery.link_changes.all())

    @admin.display(description=_("Zammad ID"))
    def zammad_id(self, delivery: WebhookDelivery) -> str:
        return str(delivery.zammad_user.zammad_id) if delivery.zammad_user else "-"
