"""Admin pages of plans and their members."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.widgets import AdminEmailInputWidget, AdminTextInputWidget
from django.core.exceptions import PermissionDenied
from django.db import models
from django.db.models import Prefetch, Q, QuerySet, Value
from django.db.models.functions import Coalesce
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils import timezone
from django.utils.html import format_html_join
from django.utils.safestring import SafeString
from django.utils.text import format_lazy
from django.utils.translation import gettext, pgettext, pgettext_lazy
from django.utils.translation import gettext_lazy as _

from plans import services
from plans.admin.invites import FamilyPlanInviteAdmin
from plans.admin.journeys import Journey, JourneyAdmin, OfPlanAdmin, attempt, in_zammad, label_of, link_to
from plans.models import (
    FamilyPlan,
    FamilyPlanInvite,
    FamilyPlanQuerySet,
    Membership,
    MembershipQuerySet,
    PlanEvent,
)
from plans.settings import PlanSettings
from plans.visibility import Viewer
from zammad.admin_base import ReadOnly, column, is_id, list_of, page_of

SHOWN = 100  # rows of each kind on a plan's page: the most members that a plan can have


# --- Forms -----------------------------------------------------------------------------


class PlanForm(forms.Form):
    name = forms.CharField(label=_("Name"), widget=AdminTextInputWidget)
    owner_email = forms.CharField(
        label=_("Owner's address"),
        widget=AdminEmailInputWidget,
        help_text=_("It must be verified here, and its holder must not be in a plan."),
    )


class PlanChangeForm(forms.ModelForm):  # type: ignore[type-arg]
    """Change a plan's fields; a name older than the rules for names is valid until it is edited."""

    def _get_validation_exclusions(self) -> set[str]:
        excluded: set[str] = super()._get_validation_exclusions()  # type: ignore[misc]
        return excluded if "name" in self.changed_data else excluded | {"name"}


class InviteForm(forms.Form):
    email = forms.CharField(
        label=_("Address"),
        required=False,
        widget=AdminEmailInputWidget,
        help_text=_(
            "The invite is mailed there, and nobody else may accept it. Empty: anyone with the link."
        ),
    )


# --- Rows on a plan's page -------------------------------------------------------------


class NewestFormSet(forms.BaseInlineFormSet):  # type: ignore[type-arg]
    """Show the first rows of a table, and ignore what a browser posts about them."""

    def __init__(self, data: object = None, files: object = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.new_objects, self.changed_objects, self.deleted_objects = [], [], []

    def get_queryset(self) -> Any:
        if not hasattr(self, "_queryset"):
            self._queryset = super().get_queryset()[:SHOWN]
        return self._queryset

    def is_valid(self) -> bool:
        return True

    def save(self, commit: bool = True) -> list[Any]:
        return []


class RowsInline(ReadOnly, admin.TabularInline):  # type: ignore[type-arg]
    """A read-only table on a plan's page."""

    formset = NewestFormSet
    template = "admin/plans/rows.html"
    extra = max_num = 0
    ordering = ("-pk",)
    joined: tuple[str, ...]
    request: HttpRequest

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        self.request = request  # Django creates inlines for each request
        return super().get_queryset(request).select_related(*self.joined)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return self.get_fields(request, obj)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return Viewer(request.user).reads_all_plans

    @admin.display(description=_("actions"))
    def links(self, row: models.Model) -> SafeString:
        links = self.admin_site.get_model_admin(type(row)).links_of(self.request, row)  # type: ignore[attr-defined]
        return format_html_join(" | ", '<a href="{}">{}</a>', links)


class MembersInline(RowsInline):
    model = Membership
    verbose_name_plural = _("members")
    fields = ("person", "role", "joined_at", "joined_through", "zammad_id", "links")
    joined = ("user__family_plan_invite", "user__zammad_user")
    person = column(_("person"), lambda membership: label_of(membership.user))
    joined_through = column(
        _("joined through"), lambda membership: link_to(getattr(membership.user, "family_plan_invite", None))
    )

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        may_view = request.user.has_perm("zammad.view_zammaduser")
        return [name for name in self.fields if name != "zammad_id" or may_view]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Membership]:
        members: MembershipQuerySet = super().get_queryset(request)  # type: ignore[assignment]
        return members.owner_first()

    @admin.display(description=_("Zammad ID"))
    def zammad_id(self, membership: Membership) -> str:
        zammad_user = membership.zammad_user
        return in_zammad(zammad_user, link_to(zammad_user, zammad_user.zammad_id)) if zammad_user else "-"


class InvitesInline(RowsInline):
    model = FamilyPlanInvite
    verbose_name_plural = format_lazy(_("invites, the newest {count}"), count=SHOWN)
    fields = ("itself", "email", "status", "expires_at", "accepted_by", "mail_status", "links")
    joined = ("family_plan", "user")
    itself = column(_("invite"), link_to)
    status = FamilyPlanInviteAdmin.status
    accepted_by = column(_("accepted by"), lambda invite: label_of(invite.user))


class EventsInline(RowsInline):
    model = PlanEvent
    verbose_name_plural = format_lazy(_("history, the newest {count}"), count=SHOWN)
    fields = ("at", "kind", "by", "about", "through")
    joined = ("actor", "subject", "invite")
    by = column(_("by"), lambda event: label_of(event.actor))
    about = column(_("about"), lambda event: label_of(event.subject))
    through = column(_("invite"), lambda event: link_to(event.invite))


# --- Pages -----------------------------------------------------------------------------


class StateFilter(admin.SimpleListFilter):
    title = _("state")
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("open", pgettext("plan", "Open")), ("closed", pgettext("plan", "Closed"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        closed = {"open": False, "closed": True}.get(self.value() or "")
        return queryset if closed is None else queryset.filter(closed_at__isnull=not closed)


@admin.register(FamilyPlan)
class FamilyPlanAdmin(JourneyAdmin):
    """Plans. Only their name and limit are editable fields."""

    list_display = ("name", "owner", "seats", "created_at", "closed_at")
    list_filter = (StateFilter,)
    search_fields = ("name",)
    search_help_text = _("The start of a name, a plan's ID, or the address of its owner in full.")
    form = PlanChangeForm
    fields = ("name", "user_limit", "owner", "seats", "created_at", "closed_at")
    readonly_fields = ("owner", "seats", "created_at", "closed_at")
    inlines = (MembersInline, InvitesInline, EventsInline)
    journeys = (
        Journey(
            name="invite",
            title=pgettext_lazy("button", "Invite"),
            explanation=_(
                "The invite holds a seat until it expires. Its link is shown once, on the next page."
            ),
            offered=lambda plan: plan.closed_at is None,
            form=InviteForm,
            call=lambda actor, plan, email: services.create_invite(
                actor=actor, plan_id=plan.pk, email=email or None
            ),
            about=lambda _plan, issued: issued.invite.pk,
            done=_("Made invite %(id)s."),
        ),
        Journey(
            name="close",
            title=_("Close plan"),
            explanation=_(
                "The owner's membership ends and open invites expire. You can still read the plan and its "
                "history here, but not reopen it."
            ),
            offered=lambda plan: plan.closed_at is None,
            call=lambda actor, plan: services.close_plan(actor=actor, plan_id=plan.pk),
            done=_("Closed the plan."),
        ),
    )

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm("plans.add_familyplan")

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm("plans.change_familyplan")

    def get_queryset(self, request: HttpRequest) -> QuerySet[FamilyPlan]:
        owners = Membership.objects.filter(role=Membership.Role.OWNER).select_related("user")
        plans: FamilyPlanQuerySet = super().get_queryset(request)  # type: ignore[assignment]
        return (
            plans.with_seats(now=timezone.now())
            .annotate(limit_now=Coalesce("user_limit", Value(PlanSettings.current().user_limit)))
            .prefetch_related(Prefetch("memberships", queryset=owners, to_attr="owners"))
        )

    def find(self, rows: QuerySet[Any], term: str) -> QuerySet[FamilyPlan]:
        plans: FamilyPlanQuerySet = rows  # type: ignore[assignment]
        if "@" in term:
            return plans.matching(owner_email=term)
        named = Q(name__istartswith=term)
        return plans.filter(named | Q(pk=int(term)) if is_id(term) else named)

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Create a plan with an owner; Django's own page has none, and runs in a transaction."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        form = PlanForm(request.POST if request.method == "POST" else None)
        plan = attempt(request, form, lambda **values: services.create_plan(actor=request.user, **values))
        if not isinstance(plan, FamilyPlan):
            return self.form_page(request, form, title=_("Create a plan"), back=list_of(FamilyPlan))
        self.log_addition(request, plan, [{"added": {}}])
        self.message_user(request, gettext("Created %(plan)s.") % {"plan": plan}, messages.SUCCESS)
        return redirect(page_of(plan))

    def save_model(self, request: HttpRequest, obj: FamilyPlan, form: Any, change: bool) -> None:
        # Only what was edited: a plan that is closed concurrently stays closed.
        obj.save(update_fields=form.changed_data)

    @admin.display(description=_("owner"))
    def owner(self, plan: FamilyPlan) -> str:
        owners: list[Membership] = plan.owners  # type: ignore[attr-defined]
        return label_of(owners[0].user if owners else None)

    @admin.display(description=_("seats taken"))
    def seats(self, plan: FamilyPlan) -> str:
        return gettext("%(taken)s of %(limit)s") % {
            "taken": plan.seats_taken_now,
            "limit": plan.limit_now,  # type: ignore[attr-defined]
        }


@admin.register(Membership)
class MembershipAdmin(OfPlanAdmin):
    """Members, listed on their plan's page instead of one of their own."""

    list_display = ("user", "family_plan", "role", "joined_at")
    fields = ("user", "family_plan", "role", "joined_at")
    journeys = (
        Journey(
            name="detach",
            title=_("Detach"),
            explanation=_(
                "The seat is free again. The invite this person accepted expires, and can be reissued."
            ),
            offered=lambda membership: not membership.is_owner,
            call=lambda actor, membership: services.detach_member(actor=actor, membership_id=membership.pk),
            about=lambda membership, _result: membership.user_id,
            done=_("Detached user %(id)s."),
        ),
        Journey(
            name="transfer",
            title=_("Make owner"),
            explanation=_("This person becomes the plan's owner; the current owner becomes a member."),
            offered=lambda membership: not membership.is_owner,
            call=lambda actor, membership: services.transfer_ownership(
                actor=actor, membership_id=membership.pk
            ),
            about=lambda membership, _result: membership.user_id,
            done=_("Made user %(id)s the owner."),
        ),
    )

    def get_model_perms(self, request: HttpRequest) -> dict[str, bool]:
        return {}  # no entry in the menu

    def get_queryset(self, request: HttpRequest) -> QuerySet[Membership]:
        return super().get_queryset(request).select_related("user", "family_plan")

    def subject_of(self, obj: Membership) -> FamilyPlan:
        return obj.family_plan
