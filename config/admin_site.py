"""The admin site: access, sign-in and the figures on its index."""

from __future__ import annotations

from typing import Any

from allauth.account.decorators import secure_admin_login
from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.utils.translation import gettext_lazy as _

from graphql_api.second_factor import lacks_second_factor, second_factor_page
from plans.dashboard import figures


class FamilyPlansAdminSite(admin.AdminSite):
    site_header = site_title = _("Family Plans")
    index_template = "admin/plans/index.html"

    def has_permission(self, request: HttpRequest) -> bool:
        """Admit staff; if REQUIRE_MFA_FOR_STAFF is set, only with a second factor."""
        return super().has_permission(request) and not lacks_second_factor(request.user, request.session)

    def login(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Redirect to the common sign-in page, so that its limits apply."""
        if lacks_second_factor(request.user, request.session):
            return second_factor_page(request)
        response: HttpResponse = secure_admin_login(super().login)(request, extra_context)
        return response

    def password_change(self, *_args: Any, **_options: Any) -> HttpResponse:  # type: ignore[override]
        """Redirect to the common page, which sends a mail and ends other sessions."""
        return redirect("account_change_password")

    def index(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> TemplateResponse:
        return super().index(request, {"figures": figures(request), **(extra_context or {})})
