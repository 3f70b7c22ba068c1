"""Webhook deliveries in the admin, read-only. The pages of Zammad users are in plans/."""

import uuid
from contextlib import suppress
from typing import Any, ClassVar

from django.contrib import admin
from django.contrib.admin.views.main import SEARCH_VAR
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.defaultfilters import linebreaksbr
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from zammad.admin_base import ReadOnly, ShallowAdmin, column, is_id, list_of
from zammad.models import LinkChange, RefusedDelivery, WebhookDelivery

SHOWN_CHANGES = 50
NOT_AGAIN = _(
    "Nothing here needs or can be processed again: bodies are not stored, and only the newest version of a "
    "user counts. The next delivery about a user brings it, and so does the command import_zammad_users. "
    "Ignored deliveries state the reason."
)
OF_REFUSED = _(
    "Deliveries that the webhook refused, counted by hour and reason; nothing else of them is stored. Zammad "
    "retries a refused delivery up to four times with the same ID, and each attempt counts. A delivery that "
    "Zammad gave up is lost: the command import_zammad_users brings the data of its customer."
)


def history_of_links(changes: QuerySet[LinkChange]) -> str:
    """List the newest changes of links as lines of text."""
    rows = changes.select_related("from_user", "to_user", "actor").order_by("-at", "-pk")[:SHOWN_CHANGES]
    return linebreaksbr("\n".join(map(_line, rows))) or "-"


def _line(change: LinkChange) -> str:
    return gettext("%(at)s: from %(before)s to %(after)s. %(why)s%(by)s") % {
        "at": date_format(timezone.localtime(change.at), "DATETIME_FORMAT"),
        "before": change.from_user or gettext("nobody"),
        "after": change.to_user or gettext("nobody"),
        "why": change.get_why_display(),
        "by": f" ({change.actor})" if change.actor else "",
    }


class LogAdmin(ReadOnly, ShallowAdmin):
    """Shows one of the two tables that only the webhook writes, with a link to the other."""

    list_per_page = 50
    change_list_template = "admin/zammad/log.html"
    note: Any
    other: type[Model]
    other_title: Any

    def find(self, rows: QuerySet[Any], term: str) -> QuerySet[Any]:
        """Find by delivery ID, which is the first of `search_fields`."""
        with suppress(ValueError):
            return rows.filter(**{self.search_fields[0]: uuid.UUID(term)})
        return rows.none()

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        return super().changelist_view(request, {**(extra_context or {}), "other_log": self._link(request)})

    def _link(self, request: HttpRequest) -> str:
        """Return the URL of the other log with the same search, or nothing without the right to view it."""
        if not self.admin_site.get_model_admin(self.other).has_view_permission(request):
            return ""
        searched = request.GET.get(SEARCH_VAR)
        return list_of(self.other, **({SEARCH_VAR: searched} if searched else {}))

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        return [(None, {"fields": self.get_fields(request, obj), "description": self.note})]


@admin.register(RefusedDelivery)
class RefusedDeliveryAdmin(LogAdmin):
    list_display = ("hour", "reason", "count", "last_at", "last_delivery_id")
    list_filter = ("reason", "hour")
    ordering = ("-hour", "reason")
    fields = list_display
    search_fields: ClassVar = ["last_delivery_id"]
    search_help_text = _("A delivery ID, in full.")
    note = OF_REFUSED
    other = WebhookDelivery
    other_title = _("Accepted deliveries")


@admin.register(WebhookDelivery)
class WebhookDeliveryAdmin(LogAdmin):
    list_display = ("received_at", "outcome", "why", "zammad_user", "trigger")
    list_filter = ("outcome", "received_at")
    list_select_related = ("zammad_user",)
    ordering = ("-received_at", "-pk")
    fields = (
        "received_at",
        "outcome",
        "why",
        "zammad_user",
        "link_history",
        "trigger",
        "delivery_id",
        "attempts",
        "last_received_at",
        "body_digest",
    )
    readonly_fields = ("why", "zammad_id", "link_history")
    search_fields: ClassVar = ["delivery_id", "zammad_user__zammad_id"]
    search_help_text = _("A delivery ID or a Zammad ID, in full.")
    note = NOT_AGAIN
    other = RefusedDelivery
    other_title = _("Refused deliveries")

    why = column(
        _("why"), lambda row: "; ".join(gettext(part) for part in row.detail.split("; ") if part) or "-"
    )
    link_history = column(_("links"), lambda row: history_of_links(row.link_changes.all()))
    zammad_id = column(_("Zammad ID"), lambda row: str(row.zammad_user.zammad_id) if row.zammad_user else "-")

    def find(self, rows: QuerySet[Any], term: str) -> QuerySet[WebhookDelivery]:
        return rows.filter(zammad_user__zammad_id=int(term)) if is_id(term) else super().find(rows, term)

    def get_list_display(self, request: HttpRequest) -> Any:
        return self._shown(super().get_list_display(request), request)

    def get_fields(self, request: HttpRequest, obj: WebhookDelivery | None = None) -> Any:
        return self._shown(super().get_fields(request, obj), request)

    def _shown(self, names: Any, request: HttpRequest) -> list[str]:
        """Return the names of the columns; without the right to view Zammad users, only their IDs."""
        if request.user.has_perm("zammad.view_zammaduser"):
            return list(names)
        return ["zammad_id" if name == "zammad_user" else name for name in names if name != "link_history"]
