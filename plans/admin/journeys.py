"""Journeys: admin pages that call one service each, the only way in which admin changes a seat.

A journey has its own URL: Django wraps its change form in a transaction, in which our services
must not run, because they may call Zammad.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import messages
from django.contrib.admin import helpers
from django.contrib.admin.utils import quote, unquote
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import models
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import translation
from django.utils.html import format_html
from django.utils.translation import gettext as _

from plans.models import display_name
from plans.services import IssuedInvite
from plans.visibility import Viewer
from zammad.admin_base import ReadOnly, ShallowAdmin, page_of
from zammad.models import ZammadUser

if TYPE_CHECKING:
    from django.utils.functional import _StrOrPromise


@dataclass(frozen=True, slots=True, kw_only=True)
class Journey:
    """A service that staff may call for a row: how it is offered, called and reported.

    `call` takes the actor, the row and the form's values by name. `done` is the message afterwards,
    with the id that `about` returns for the row and the service's result.
    """

    name: str
    title: _StrOrPromise
    explanation: _StrOrPromise
    offered: Callable[[Any], bool]
    call: Callable[..., object]
    done: _StrOrPromise
    right: str = "plans.change_familyplan"
    about: Callable[[Any, Any], int] = lambda obj, _result: obj.pk
    form: type[forms.Form] = forms.Form


def attempt(request: HttpRequest, form: forms.Form, service: Callable[..., object]) -> object | None:
    """Call a service with a valid form's values; return None, and show the reason, if it refuses."""
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
    """Limit the query to one page, so that PostgreSQL plans for few rows."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        if not self.multi_page:
            self.result_list = self.queryset[: self.list_per_page]


class JourneyAdmin(ReadOnly, ShallowAdmin):
    """Show rows read-only, and change them only through journeys."""

    journeys: tuple[Journey, ...] = ()

    actions = None
    change_form_template = "admin/plans/change_form.html"
    list_per_page = 50

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

    def subject_of(self, obj: Any) -> Any:
        """Return the row to go back to, whose history records the journey."""
        return obj

    def links_of(self, request: HttpRequest, obj: models.Model) -> list[tuple[str, _StrOrPromise]]:
        """List URL and title of the journeys that the user may start for a row now."""
        prefix = f"admin:{self.opts.app_label}_{self.opts.model_name}_"
        return [
            (reverse(prefix + journey.name, args=[quote(obj.pk)]), journey.title)
            for journey in self.journeys
            if request.user.has_perm(journey.right) and journey.offered(obj)
        ]

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        journeys = self.links_of(request, context["original"])
        context |= {"journeys": journeys, "show_save_and_add_another": False}
        return super().render_change_form(request, context, *args, **kwargs)

    def journey_view(self, request: HttpRequest, object_id: str, journey: Journey) -> HttpResponse:
        """Show the journey's form, then call its service."""
        if not request.user.has_perm(journey.right):
            raise PermissionDenied
        obj = self.get_object(request, unquote(object_id))
        if obj is None:
            self.message_user(
                request, _("There is no such %(kind)s.") % {"kind": self.opts.verbose_name}, messages.WARNING
            )
            return redirect("admin:index")
        subject = self.subject_of(obj)
        place = {"subject": subject, "back": page_of(subject)}
        form = journey.form(request.POST if request.method == "POST" else None)
        result = attempt(request, form, lambda **values: journey.call(request.user, obj, **values))
        if result is None:
            return self.form_page(
                request,
                form,
                title=journey.title,
                subtitle=str(obj),
                explanation=journey.explanation,
                **place,
            )
        about = journey.about(obj, result)
        done = journey.done % {"id": about}
        with translation.override(None):  # entries are translated when they are read
            self.log_change(request, subject, [{"journey": {"done": str(journey.done), "id": about}}])
        if isinstance(result, IssuedInvite):
            # The link is only in this response: a message would be stored in the session.
            return self.page(request, "issued", title=_("Invite link"), done=done, issued=result, **place)
        self.message_user(request, done, messages.SUCCESS)
        return redirect(place["back"])

    def form_page(self, request: HttpRequest, form: forms.Form, **context: Any) -> TemplateResponse:
        """Show a form in the style of admin's own."""
        fieldsets = [(None, {"fields": list(form.fields)})] if form.fields else []
        adminform = helpers.AdminForm(form, fieldsets, {}, model_admin=self)  # type: ignore[arg-type]
        media = self.media + form.media
        return self.page(request, "journey", form=form, adminform=adminform, media=media, **context)

    def page(self, request: HttpRequest, template: str, **context: Any) -> TemplateResponse:
        request.current_app = self.admin_site.name
        opts = context["subject"]._meta if "subject" in context else self.opts
        context = {**self.admin_site.each_context(request), "opts": opts, **context}
        return TemplateResponse(request, f"admin/plans/{template}.html", context)


class OfPlanAdmin(JourneyAdmin):
    """Rows of a plan: staff who may read plans may read them."""

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return Viewer(request.user).reads_all_plans


def link_to(obj: models.Model | None, text: object = "") -> str:
    """Return a link to a row's page, labelled with the row unless a text is given."""
    return format_html('<a href="{}">{}</a>', page_of(obj), text or obj) if obj else "-"


def label_of(user: Any) -> str:
    """Return a user's name and address, for staff."""
    return f"{display_name(user)} ({user.email})" if user else "-"


def in_zammad(zammad_user: ZammadUser, shown: object) -> str:
    """Show the ID of a Zammad user, followed by a link to Zammad itself."""
    return format_html('{} (<a href="{}">{}</a>)', shown, zammad_user.page, _("in Zammad"))
