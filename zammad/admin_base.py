"""What admin's pages have in common: tables that grow for ever, and are mostly there to be read."""

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
    # In the order shown: what serves that for a page serves the count.
    return rows.values("pk")[:COUNTED].count()


class ShallowPaginator(Paginator):  # type: ignore[type-arg]  # generic only to type checkers
    """Count no further than anybody turns pages."""

    @cached_property
    def count(self) -> int:
        return count_shallowly(self.object_list)  # type: ignore[arg-type]


class ShallowAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Show a table that grows for ever: nothing counts, sorts, joins or searches all of it."""

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
        """Narrow by index: Django's own search would look for a term in the middle of every text."""
        return rows

    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        # Django makes a new row of a change form whether `save_as` offers that or not.
        if "_saveasnew" in request.POST and not self.save_as:
            raise PermissionDenied
        return super().changeform_view(request, *args, **kwargs)


class ReadOnly:
    """Let nobody write through Django's own forms, whatever their rights."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    has_change_permission = has_delete_permission = has_add_permission


def column(title: str | _StrPromise, value: Callable[[Any], str]) -> Callable[[Any, Any], str]:
    """Return a method that displays something of a row."""

    @admin.display(description=title)
    def shown(_admin: Any, row: Any) -> str:
        return value(row)

    return shown


def list_of(model: type[Model], **query: Any) -> str:
    """Return the address of a model's list in admin."""
    address = reverse(admin_urlname(model._meta, "changelist"))  # type: ignore[arg-type]
    return f"{address}?{urlencode(query)}" if query else address


def page_of(row: Model) -> str:
    """Return the address of a row's page in admin."""
    return reverse(admin_urlname(row._meta, "change"), args=[quote(row.pk)])  # type: ignore[arg-type]


def is_id(term: str) -> bool:
    """Tell whether a search term can be an id; a longer number is none in any database."""
    return term.isdecimal() and len(term) < 19
