"""The base of the admin pages, for tables that grow for ever and are mostly read-only."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from django.contrib import admin
from django.contrib.admin.templatetags.admin_urls import admin_urlname
from django.contrib.admin.utils import quote
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.functional import cached_property
from django.utils.http import urlencode

if TYPE_CHECKING:
    from django.utils.functional import _StrPromise

COUNTED = 10_000


def count_shallowly(rows: QuerySet[Any]) -> int:
    """Count rows, but no further than COUNTED."""
    # Ordered as shown, so that the index for a page also serves the count.
    return rows.values("pk")[:COUNTED].count()


class ShallowPaginator(Paginator):  # type: ignore[type-arg]  # generic only to type checkers
    """Counts no further than people turn pages."""

    @cached_property
    def count(self) -> int:
        return count_shallowly(self.object_list)  # type: ignore[arg-type]


class ShallowAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Shows a table that grows for ever, without counting, sorting, joining or searching all of it."""

    ordering: ClassVar[tuple[str, ...]] = ("-pk",)
    paginator = ShallowPaginator
    show_facets = admin.ShowFacets.NEVER
    show_full_result_count = False
    sortable_by = ()
    list_select_related: ClassVar[tuple[str, ...]] = ()

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        term = search_term.strip()
        if "\0" in term:  # PostgreSQL refuses it
            return queryset.none(), False
        return self.find(queryset, term) if term else queryset, False

    def find(self, rows: QuerySet[Any], term: str) -> QuerySet[Any]:
        """Filter by an index: Django's own search would look for the term inside every text."""
        return rows

    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        # Django creates a row from a change form even if `save_as` does not offer that.
        if "_saveasnew" in request.POST and not self.save_as:
            raise PermissionDenied
        return super().changeform_view(request, *args, **kwargs)


class ReadOnly:
    """Forbids writing through Django's own forms, whatever the user's rights."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    has_change_permission = has_delete_permission = has_add_permission


def column(title: str | _StrPromise, value: Callable[[Any], str]) -> Callable[[Any, Any], str]:
    """Return an admin method that displays a value of a row."""

    @admin.display(description=title)
    def shown(_admin: Any, row: Any) -> str:
        return value(row)

    return shown


def list_of(model: type[Model], **query: Any) -> str:
    """Return the URL of a model's list in the admin."""
    address = reverse(admin_urlname(model._meta, "changelist"))  # type: ignore[arg-type]
    return f"{address}?{urlencode(query)}" if query else address


def page_of(row: Model) -> str:
    """Return the URL of a row's page in the admin."""
    return reverse(admin_urlname(row._meta, "change"), args=[quote(row.pk)])  # type: ignore[arg-type]


def is_id(term: str) -> bool:
    """Return whether a search term can be an id; a longer number exceeds every id column."""
    return term.isdecimal() and len(term) < 19
