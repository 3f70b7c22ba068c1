"""Admin pages of Zammad users, with the plans of the people they are linked to."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.admin.utils import unquote
from django.contrib.admin.widgets import AutocompleteSelect
from django.contrib.auth import get_permission_codename, get_user_model
from django.core.exceptions import PermissionDenied
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils import timezone
from django.utils.html import format_html
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

from plans.admin.journeys import Journey, JourneyAdmin, in_zammad, label_of, link_to
from plans.visibility import Viewer
from zammad.admin import history_of_links
from zammad.admin_base import column, is_id, page_of
from zammad.linking import explain, link_by_hand, unlink
from zammad.models import ZammadUser

LINK = "zammad.change_zammaduser"
WHAT_A_LINK_MEANS = _(
    "A link means that two addresses are equal, not that this person wrote a ticket: anybody can send "
    "a mail with a forged sender. It grants no rights. A link made by staff stays until staff end it; any "
    "other link follows the addresses, here and in Zammad."
)
IN_ZAMMAD = (
    "known_as",
    "email",
    "login",
    "firstname",
    "lastname",
    "organization",
    "phone",
    "mobile",
    "active",
    "vip",
    "updated_at",
    "synced_at",
)


class LinkForm(forms.Form):
    user = forms.ModelChoiceField(
        label=_("Person"),
        queryset=get_user_model()._default_manager.all(),
        widget=AutocompleteSelect(ZammadUser._meta.get_field("user"), admin.site),
        help_text=_("To find people here, you need the right to view users."),
    )


@admin.register(ZammadUser)
class ZammadUserAdmin(JourneyAdmin):
    """Users of Zammad as it described them, and the people they are linked to here."""

    list_display = ("zammad_id", "name", "email", "active", "user", "plan", "auto_link")
    search_fields = ("email",)
    search_help_text = _("A Zammad ID, or the start of an address, a first or a last name.")
    readonly_fields = ("person", "account", "plan", "why", "link_history", "known_as")
    name = column(_("name"), lambda zammad_user: f"{zammad_user.firstname} {zammad_user.lastname}".strip())
    person = column(_("person"), lambda zammad_user: label_of(zammad_user.user))
    account = column(_("person"), lambda zammad_user: link_to(zammad_user.user, label_of(zammad_user.user)))
    why = column(_("why"), lambda zammad_user: str(explain(zammad_user).label))
    link_history = column(
        _("history of the link"), lambda zammad_user: history_of_links(zammad_user.link_changes.all())
    )
    known_as = column(_("Zammad ID"), lambda zammad_user: in_zammad(zammad_user, str(zammad_user.zammad_id)))
    journeys = (
        Journey(
            name="link",
            title=pgettext_lazy("button", "Link"),
            explanation=_("A link records who this is. It grants no rights."),
            right=LINK,
            offered=lambda zammad_user: zammad_user.user_id is None,
            form=LinkForm,
            call=lambda actor, zammad_user, user: link_by_hand(
                actor=actor, zammad_user_id=zammad_user.pk, user_id=user.pk, now=timezone.now()
            ),
            about=lambda _zammad_user, linked: linked.user_id,
            done=_("Linked to user %(id)s."),
        ),
        Journey(
            name="unlink",
            title=_("Unlink"),
            explanation=_(
                "An equal address will not link this Zammad user again; you can still link it by hand."
            ),
            right=LINK,
            offered=lambda zammad_user: zammad_user.user_id is not None,
            call=lambda actor, zammad_user: unlink(
                actor=actor, zammad_user_id=zammad_user.pk, now=timezone.now()
            ),
            about=lambda zammad_user, _result: zammad_user.user_id,
            done=_("Unlinked from user %(id)s."),
        ),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[ZammadUser]:
        return super().get_queryset(request).prefetch_related("user__membership__family_plan")

    def get_list_display(self, request: HttpRequest) -> Any:
        return [name for name in self.list_display if name != "plan" or Viewer(request.user).reads_all_plans]

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        people = get_user_model()
        view = f"{people._meta.app_label}.{get_permission_codename('view', people._meta)}"
        may_view_people = self.admin_site.is_registered(people) and request.user.has_perm(view)
        plan = ["plan"] if Viewer(request.user).reads_all_plans else []
        person = "account" if may_view_people else "person"
        here = [person, *plan, "link_kind", "why", "auto_link", "link_history"]
        return [
            (_("Here"), {"fields": here, "description": WHAT_A_LINK_MEANS}),
            (_("In Zammad"), {"fields": IN_ZAMMAD}),
        ]

    def find(self, rows: QuerySet[Any], term: str) -> QuerySet[ZammadUser]:
        if is_id(term):
            return rows.filter(zammad_id=int(term))
        email = Q(email__startswith=term.lower())
        if "@" in term:
            return rows.filter(email)
        return rows.filter(email | Q(firstname__istartswith=term) | Q(lastname__istartswith=term))

    @admin.display(description=_("plan"))
    def plan(self, zammad_user: ZammadUser) -> str:
        membership = getattr(zammad_user.user, "membership", None)
        if membership is None:
            return "-"
        return format_html("{} ({})", link_to(membership.family_plan), membership.get_role_display())

    def history_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        zammad_user = self.get_object(request, unquote(object_id))
        history = history_of_links(zammad_user.link_changes.all()) if zammad_user else "-"
        return super().history_view(request, object_id, {"link_history": history, **(extra_context or {})})

    def by_zammad_id(self, request: HttpRequest, zammad_id: str) -> HttpResponse:
        """Redirect to the page of the user with this ID in Zammad, or report that none is known.

        :raises PermissionDenied:
        """
        if not self.has_view_permission(request):
            raise PermissionDenied
        wanted = None
        if is_id(zammad_id):
            wanted = ZammadUser(zammad_id=int(zammad_id))
            known = ZammadUser.objects.filter(zammad_id=wanted.zammad_id).first()
            if known:
                return redirect(page_of(known))
        page = self.page(request, "unknown_zammad_user", title=_("Unknown Zammad user"), wanted=wanted)
        page.status_code = HTTPStatus.NOT_FOUND
        return page


@admin.site.admin_view
def zammad_user_page(request: HttpRequest, zammad_id: str) -> HttpResponse:
    """Open a Zammad user by its ID in Zammad, for links from Zammad itself."""
    zammad_user_admin: Any = admin.site.get_model_admin(ZammadUser)
    response: HttpResponse = zammad_user_admin.by_zammad_id(request, zammad_id)
    return response
