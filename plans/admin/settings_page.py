"""Admin page of the settings: constance's page, under Plans, with values in its history."""

from __future__ import annotations

from typing import Any

from constance.admin import Config, ConstanceAdmin
from constance.forms import ConstanceForm
from constance.utils import get_values
from django.contrib import admin
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.text import capfirst
from django.utils.translation import gettext_lazy as _


class SettingsForm(ConstanceForm):  # type: ignore[misc]  # constance has no types
    def save(self) -> list[str]:
        """Save the changes, and list each with its old and new value."""
        old = get_values()
        names: list[str] = super().save()
        return [f"{name}: {old[name]} -> {self.cleaned_data[name]}" for name in names]


class FamilyPlanSettings:
    """What admin needs for a page without a model."""

    class Meta(Config.Meta):  # type: ignore[misc]
        app_label = "plans"
        verbose_name = verbose_name_plural = _("family plan settings")

    _meta = Meta()


class SettingsAdmin(ConstanceAdmin):  # type: ignore[misc]
    change_list_form = SettingsForm
    change_list_template = "admin/plans/config/change_list.html"

    def __init__(self, model: type[FamilyPlanSettings], admin_site: admin.AdminSite) -> None:
        super().__init__(model, admin_site)
        # Otherwise the history would belong to constance's page, which is unregistered.
        model._meta.concrete_model = model

    def has_view_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return request.user.has_perm("constance.view_config") or self.has_change_permission(request)

    def has_change_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return request.user.has_perm("constance.change_config")

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request)

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show the settings, or save changes together with their history."""
        may_change = self.has_change_permission(request)
        if request.method == "POST" and not may_change:
            raise PermissionDenied
        with transaction.atomic():
            context = {**(extra_context or {}), "may_change": may_change}
            response: HttpResponse = super().changelist_view(request, context)
        if isinstance(response, TemplateResponse) and response.context_data is not None:
            response.context_data["title"] = capfirst(self.model._meta.verbose_name)
        return response

    def _log_config_change(self, request: HttpRequest, changes: list[str]) -> None:
        """Record the values, too: constance's own entry has only names."""
        message = "; ".join(changes)
        LogEntry.objects.create(
            user_id=request.user.pk,  # type: ignore[misc]  # users are signed in here
            content_type=ContentType.objects.get_for_model(self.model),
            object_id="Config",
            object_repr=message[:200],
            action_flag=CHANGE,
            change_message=message,
        )


admin.site.unregister([Config])
admin.site.register([FamilyPlanSettings], SettingsAdmin)  # type: ignore[type-var]  # its only part of a model is _meta
