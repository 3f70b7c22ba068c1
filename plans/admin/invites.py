"""Admin pages of invites."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from plans import services
from plans.admin.journeys import Journey, OfPlanAdmin
from plans.models import FamilyPlanInvite, FamilyPlanInviteQuerySet
from zammad.admin_base import column, is_id


class StatusFilter(admin.SimpleListFilter):
    title = _("status")
    parameter_name = "status"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Any:
        return FamilyPlanInvite.Status.choices

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        invites: FamilyPlanInviteQuerySet = queryset  # type: ignore[assignment]
        status = {str(status): status for status in FamilyPlanInvite.Status}.get(self.value() or "")
        return invites.with_status(status, now=timezone.now())


@admin.register(FamilyPlanInvite)
class FamilyPlanInviteAdmin(OfPlanAdmin):
    list_display = ("id", "family_plan", "email", "status", "expires_at", "created_by", "mail_status")
    list_filter = (StatusFilter,)
    search_fields = ("email",)
    search_help_text = _("An invite's ID, or the start of its address.")
    fields = (
        "family_plan",
        "email",
        "status",
        "created_at",
        "created_by",
        "expires_at",
        "user",
        "mail_status",
        "zammad_token_name",
    )
    readonly_fields = ("status",)
    status = column(_("status"), lambda invite: str(invite.status(now=timezone.now()).label))
    journeys = (
        Journey(
            name="reissue",
            title=_("Reissue"),
            explanation=_(
                "A new link replaces the old one, which stops working. It is shown once, on the next page."
            ),
            offered=lambda invite: invite.user_id is None and invite.family_plan.closed_at is None,
            call=lambda actor, invite: services.reissue_invite(actor=actor, invite_id=invite.pk),
            done=_("Reissued invite %(id)s."),
        ),
        Journey(
            name="revoke",
            title=_("Revoke"),
            explanation=_("The link stops working, and the seat is free again."),
            offered=lambda invite: invite.status(now=timezone.now()) == FamilyPlanInvite.Status.OPEN,
            call=lambda actor, invite: services.revoke_invite(actor=actor, invite_id=invite.pk),
            done=_("Revoked invite %(id)s."),
        ),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[FamilyPlanInvite]:
        return super().get_queryset(request).prefetch_related("family_plan", "created_by", "user")

    def get_ordering(self, request: HttpRequest) -> Any:
        # Follow the index: ordered by id, few expired invites among many open ones are far apart.
        expired = request.GET.get(StatusFilter.parameter_name) == FamilyPlanInvite.Status.EXPIRED
        return ("-expires_at", "-pk") if expired else self.ordering

    def find(self, rows: QuerySet[Any], term: str) -> QuerySet[FamilyPlanInvite]:
        return rows.filter(pk=int(term)) if is_id(term) else rows.filter(email__startswith=term.lower())
