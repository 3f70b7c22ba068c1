"""Pages of the admin that call one service each, and the only way admin changes a seat.

A journey has an address of its own: Django wraps its change form in a transaction, and our
services must not run in one, for they may talk to Zammad.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin import helpers
from django.contrib.admin.utils import quote, unquote
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import models
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import translation
from django.utils.html import format_html
from django.utils.translation import gettext as _

from plans.models import display_name, is_storable
from plans.services import IssuedInvite
from plans.visibility import Viewer
from zammad.admin import ShallowPaginator

if TYPE_CHECKING:
    from django.utils.functional import _StrOrPromise

CHANGE_PLAN = "plans.change_familyplan"


@dataclass(frozen=True, slots=True, kw_only=True)
class Journey:
    """One service that staff may call for a row: how it is offered, called and told.

    `call` takes the actor, the row and the form's values by name. `done` tells of the id that
    `about` finds in the row and the service's answer.
    """

    name: str
    title: _StrOrPromise
    explanation: _StrOrPromise
    right: str
    offered: Callable[[Any], bool]
    call: Callable[..., object]
    done: _StrOrPromise
    about: Callable[[Any, Any], int] = lambda obj, _result: obj.pk
    form: type[forms.Form] = forms.Form


def attempt(request: HttpRequest, form: forms.Form, service: Callable[..., object]) -> object | None:
    """Call a service with what a valid form holds; on a refusal show the reason and answer None."""
    if not form.is_valid():
        return None
    try:
        return service(**form.cleaned_data)
    except PermissionDenied as refusal:
        messages.error(request, str(refusal))
    except ValidationError as refusal:
        if hasattr(refusal, "error_dict"):
            form.add_error(None, refusal)
        else:
            messages.error(request, " ".join(refusal.messages))
    return None


class LimitedChangeList(ChangeList):
    """Fetch no more than a page of rows, and say so to PostgreSQL: it then looks for these few."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        if not self.multi_page:
            self.result_list = self.queryset[: self.list_per_page]


def refuse_save_as_new(page: admin.ModelAdmin[Any], request: HttpRequest) -> None:
    """Hold what Django does not: a change form makes a new row only where `save_as` offers that.

    :raises PermissionDenied:
    """
    if "_saveasnew" in request.POST and not page.save_as:
        raise PermissionDenied


class JourneyAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # generic only to type checkers
    """Show rows to be read, and change them only through journeys."""

    journeys: tuple[Journey, ...] = ()

    actions = None
    change_form_template = "admin/plans/change_form.html"
    list_per_page = 50
    ordering = ("-pk",)
    # The tables grow for ever: nothing counts, sorts or sums up all of them.
    paginator = ShallowPaginator
    show_facets = admin.ShowFacets.NEVER
    show_full_result_count = False
    sortable_by = ()
    # By itself admin joins the relations shown, to all that a search finds before it is sorted.
    list_select_related = ()

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        refuse_save_as_new(self, request)
        return super().changeform_view(request, *args, **kwargs)

    def get_urls(self) -> list[URLPattern]:
        ours = [
            path(
                f"<path:object_id>/{journey.name}/",
                self.admin_site.admin_view(self.journey_view),
                {"journey": journey},
                name=f"{self.opts.app_label}_{self.opts.model_name}_{journey.name}",
            )
            for journey in self.journeys
        ]
        return ours + super().get_urls()

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return LimitedChangeList

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        term = search_term.strip()
        if not term:
            return queryset, False
        return self.find(queryset, term) if is_storable(term) else queryset.none(), False

    def find(self, rows: QuerySet[Any], term: str) -> QuerySet[Any]:
        """Narrow to what a term names: Django's own search would look for it in the middle of every text."""
        return rows

    def subject_of(self, obj: Any) -> Any:
        """Return the row whose page one comes back to, and whose history tells of the journey."""
        return obj

    def links_of(self, request: HttpRequest, obj: models.Model) -> list[tuple[str, _StrOrPromise]]:
        """List address and title of the journeys that this person may start for a row now."""
        prefix = f"admin:{self.opts.app_label}_{self.opts.model_name}_"
        return [
            (reverse(prefix + journey.name, args=[quote(obj.pk)]), journey.title)
            for journey in self.journeys
            if request.user.has_perm(journey.right) and journey.offered(obj)
        ]

    def render_change_form(
        self,
        request: HttpRequest,
        context: dict[str, Any],
        add: bool = False,
        change: bool = False,
        form_url: str = "",
        obj: Any = None,
    ) -> HttpResponse:
        context |= {"journeys": self.links_of(request, obj), "show_save_and_add_another": False}
        return super().render_change_form(request, context, add, change, form_url, obj)

    def journey_view(self, request: HttpRequest, object_id: str, journey: Journey) -> HttpResponse:
        """Ask for what the service needs, then call it."""
        if not request.user.has_perm(journey.right):
            raise PermissionDenied
        obj = self.get_object(request, unquote(object_id))
        if obj is None:
            self.message_user(
                request, _("There is no such %(kind)s.") % {"kind": self.opts.verbose_name}, messages.WARNING
            )
            return redirect("admin:index")
        subject = self.subject_of(obj)
        back = page_of(subject)
        form = journey.form(request.POST if request.method == "POST" else None)
        result = attempt(request, form, lambda **values: journey.call(request.user, obj, **values))
        if result is None:
            return self.form_page(
                request,
                form,
                title=journey.title,
                subtitle=str(obj),
                explanation=journey.explanation,
                subject=subject,
                back=back,
            )
        about = journey.about(obj, result)
        told = journey.done % {"id": about}
        with translation.override(None):  # the history is for readers of every language
            self.log_change(request, subject, [{"journey": {"done": str(journey.done), "id": about}}])
        if isinstance(result, IssuedInvite):
            # The link is on this answer and nowhere else: a message would be kept in the session.
            return self.page(
                request,
                "issued",
                title=_("Invite link"),
                told=told,
                issued=result,
                subject=subject,
                back=back,
            )
        self.message_user(request, told, messages.SUCCESS)
        return redirect(back)

    def form_page(self, request: HttpRequest, form: forms.Form, **context: Any) -> TemplateResponse:
        """Show a form as the admin shows its own."""
        fieldsets = [(None, {"fields": list(form.fields)})] if form.fields else []
        adminform = helpers.AdminForm(form, fieldsets, {}, model_admin=self)  # type: ignore[arg-type]
        media = self.media + form.media
        return self.page(request, "journey", form=form, adminform=adminform, media=media, **context)

    def page(self, request: HttpRequest, template: str, **context: Any) -> TemplateResponse:
        subject = context.get("subject")
        request.current_app = self.admin_site.name
        return TemplateResponse(
            request,
            f"admin/plans/{template}.html",
            {
                **self.admin_site.each_context(request),
                "opts": subject._meta if subject else self.opts,
                **context,
            },
        )


class OfPlanAdmin(JourneyAdmin):
    """Rows that belong to a plan: who may read plans may read them."""

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return Viewer(request.user).reads_all_plans


def page_of(obj: models.Model) -> str:
    """Return the address of a row's page in the admin."""
    return reverse(f"admin:{obj._meta.app_label}_{obj._meta.model_name}_change", args=[quote(obj.pk)])


def link_to(obj: models.Model | None, text: object = "") -> str:
    """Return a link to a row's page, which reads as the row unless another text is given."""
    return format_html('<a href="{}">{}</a>', page_of(obj), text or obj) if obj else "-"


def described(user: Any) -> str:
    """Name a person to staff, who may see the address."""
    return f"{display_name(user)} ({user.email})" if user else "-"


def is_id(term: str) -> bool:
    """Tell whether a search term can be an id; a longer number is none in any database."""
    return term.isdecimal() and len(term) < 19
