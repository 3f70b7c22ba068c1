"""The list of a person's sessions: a page, and allauth's documented endpoint for our session model."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from allauth.account.internal import flows
from allauth.headless.base.response import AuthenticationResponse
from allauth.headless.base.views import AuthenticatedAPIView
from allauth.headless.internal.restkit import inputs
from allauth.headless.internal.restkit.response import APIResponse
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from config.models import Session

SHOWN = 100  # the newest; "everywhere else" includes the rest
BROWSERS = (  # in this order, because each also has the names of later ones in its User-Agent
    ("Edg", "Edge"),
    ("OPR/", "Opera"),
    ("SamsungBrowser", "Samsung Internet"),
    ("Firefox/", "Firefox"),
    ("FxiOS", "Firefox"),
    ("CriOS", "Chrome"),
    ("Chrome/", "Chrome"),
    ("Safari/", "Safari"),
)
SYSTEMS = (
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Android", "Android"),
    ("Windows", "Windows"),
    ("Mac OS X", "macOS"),
    ("CrOS", "ChromeOS"),
    ("Linux", "Linux"),
)


def describe(client: str) -> str:
    """Describe a User-Agent in plain words; an app's by its first word."""
    if not client:
        return gettext("Unknown browser or app")
    browser = next((name for mark, name in BROWSERS if mark in client), "")
    system = next((name for mark, name in SYSTEMS if mark in client), "")
    if browser and system:
        return gettext("%(browser)s on %(system)s") % {"browser": browser, "system": system}
    return browser or client.split("/")[0].split()[0][:40]


def sessions_of(request: HttpRequest) -> list[Session]:
    person: User = request.user  # type: ignore[assignment]
    return list(Session.objects.living_of(person).order_by("-created_at")[:SHOWN])


def end(request: HttpRequest, sessions: list[Session]) -> None:
    """End sessions; if the current one is among them, sign out as usual."""
    Session.objects.filter(user=request.user.pk, pk__in=[session.pk for session in sessions]).delete()
    if any(session.pk == request.session.session_key for session in sessions):
        flows.logout.logout(request)


@never_cache
@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def sessions_page(request: HttpRequest) -> HttpResponse:
    """List a person's sessions, and end one or all others."""
    if request.method == "POST":
        if "others" in request.POST:
            Session.objects.filter(user=request.user.pk).exclude(pk=request.session.session_key).delete()
            messages.success(request, gettext("You are signed out everywhere else."))
        else:
            number = request.POST.get("session", "")
            chosen = [session for session in sessions_of(request) if str(session.number) == number]
            end(request, chosen)
            if chosen and request.user.is_authenticated:
                messages.success(request, gettext("The session has ended."))
        return redirect("account_sessions")
    rows = [
        {
            "session": session,
            "client": describe(session.client),
            "is_current": session.pk == request.session.session_key,
        }
        for session in sessions_of(request)
    ]
    rows.sort(key=lambda row: not row["is_current"])
    return render(request, "account/sessions.html", {"rows": rows})


class SessionsInput(inputs.Input):
    sessions = inputs.Field()

    def __init__(self, *args: Any, request: HttpRequest, **kwargs: Any) -> None:
        self.request = request
        super().__init__(*args, **kwargs)

    def clean_sessions(self) -> list[Session]:
        numbers = self.cleaned_data["sessions"]
        known = {session.number: session for session in sessions_of(self.request)}
        if not isinstance(numbers, list) or not all(type(n) is int and n in known for n in numbers):
            raise ValidationError(_("This session does not exist."), code="invalid")
        return [known[number] for number in numbers]


class SessionsAPIView(AuthenticatedAPIView):
    """allauth's GET and DELETE of auth/sessions, without IP addresses, which we do not store."""

    input_class = {"DELETE": SessionsInput}  # noqa: RUF012  # allauth's own spelling

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        return APIResponse(
            request,
            data=[
                {
                    "id": session.number,
                    "user_agent": session.client,
                    "ip": "",
                    "created_at": session.created_at.timestamp(),
                    "last_seen_at": session.last_used_at.timestamp(),
                    "is_current": session.pk == request.session.session_key,
                }
                for session in sessions_of(request)
            ],
            status=HTTPStatus.OK,
        )

    def delete(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        end(request, self.input.cleaned_data["sessions"])
        return self.get(request) if request.user.is_authenticated else AuthenticationResponse(request)

    def get_input_kwargs(self) -> dict[str, Any]:
        return {"request": self.request}
