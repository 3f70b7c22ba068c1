"""The admin's pages of Zammad users, who stand here beside their plans."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.admin.widgets import AutocompleteSelect
from django.contrib.auth import get_user_model
from django.db.models import Q, QuerySet
from django.http import HttpRequest

from plans.admin.journeys import Journey, JourneyAdmin, is_id
from plans.models import (
    may_read_all_plans,
)
from zammad.models import ZammadUser
from zammad.services import link_by_hand, unlink

LINK = "zammad.change_zammaduser"


class LinkForm(forms.Form):
    user = forms.ModelChoiceField(
        label="Person",
        queryset=get_user_model()._default_manager.all(),
        widget=AutocompleteSelect(ZammadUser._meta.get_field("user"), admin.site),
        help_text="Finding people here needs the right to view users.",
    )


@admin.register(ZammadUser)
class ZammadUserAdmin(JourneyAdmin):
    """Zammad's users as Zammad described them, and who they are here."""

    list_display = ("zammad_id", "name", "email", "active", "user", "plan", "auto_link")
    search_fields = ("email",)
    search_help_text = "A Zammad ID, or the start of an address, a first or a last name."
    readonly_fields = ("plan",)
    journeys = (
        Journey(
            name="link",
            title="Link",
            explanation="A link says who this is. It grants nothing.",
            right=LINK,
            offered=lambda zammad_user: zammad_user.user_id is None,
            form=LinkForm,
            call=lambda actor, zammad_user, user: link_by_hand(
                actor=actor, zammad_user_id=zammad_user.pk, user_id=user.pk
            ),
            done="Linked to user {result.user_id}.",
        ),
        Journey(
            name="unlink",
            title="Unlink",
            explanation="An equal address will not link this Zammad user again; only a link by hand will.",
            right=LINK,
            offered=lambda zammad_user: zammad_user.user_id is not None,
            call=lambda actor, zammad_user: unlink(actor=actor, zammad_user_id=zammad_user.pk),
            done="Unlinked from user {obj.user_id}.",
        ),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[ZammadUser]:
        return super().get_queryset(request).select_related("user__membership__family_plan")

    def get_list_display(self, request: HttpRequest) -> Any:
        return [name for name in self.list_display if name != "plan" or may_read_all_plans(request.user)]

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        fields = super().get_fields(request, obj)
        return [name for name in fields if name != "plan" or may_read_all_plans(request.user)]

    def find(self, rows: QuerySet[Any], term: str) -> QuerySet[ZammadUser]:
        if is_id(term):
            return rows.filter(zammad_id=int(term))
        email = Q(email__startswith=term.lower())
        if "@" in term:
            return rows.filter(email)
        return rows.filter(email | Q(firstname__istartswith=term) | Q(lastname__istartswith=term))

    @admin.display
    def name(self, zammad_user: ZammadUser) -> str:
        return f"{zammad_user.firstname} {zammad_user.lastname}".strip()

    @admin.display
    def plan(self, zammad_user: ZammadUser) -> str:
        membership = getattr(zammad_user.user, "membership", None)
        return str(membership.family_plan) if membership else "-"
