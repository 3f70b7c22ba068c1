"""The pages of an invite link. Only POST accepts, so scanners and prefetching change nothing."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from django.contrib.auth.mixins import LoginRequiredMixin
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.utils.decorators import method_decorator
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from django.views.generic import View

from plans.models import FamilyPlanInvite
from plans.rules import InviteExpired, InviteNotFound, Refusal
from plans.services import accept_invite, preview_invite
from plans.settings import PlanSettings

STATUSES = {InviteNotFound: HTTPStatus.NOT_FOUND, InviteExpired: HTTPStatus.GONE}


# no-store: the URL of the page contains the token.
@method_decorator(never_cache, name="dispatch")
class InviteView(LoginRequiredMixin, View):
    """Show what an invite is for, and accept it when the button is pressed."""

    http_method_names = ["get", "head", "post"]  # noqa: RUF012  # Django's own spelling

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        try:
            return super().dispatch(request, *args, **kwargs)
        except Refusal as refusal:
            status = STATUSES.get(type(refusal), HTTPStatus.CONFLICT)
            return render(request, "plans/invite_refused.html", {"refusal": refusal}, status=status)

    def get(self, request: HttpRequest, token: str) -> HttpResponse:
        preview = preview_invite(actor=request.user, token=token)
        if preview.refusal:
            raise preview.refusal
        if preview.status == FamilyPlanInvite.Status.USED:
            return redirect(PlanSettings.current().invite_accepted_url)
        return render(request, "plans/invite.html", {"preview": preview})

    def post(self, request: HttpRequest, token: str) -> HttpResponse:
        return redirect(accept_invite(actor=request.user, token=token).page)


@require_safe
@never_cache
def accepted(request: HttpRequest) -> HttpResponse:
    """Show the plan that the user is in: the page after accepting, unless staff chose another."""
    membership = getattr(request.user, "membership", None)
    return render(request, "plans/invite_accepted.html", {"membership": membership})
