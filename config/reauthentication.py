"""Reauthentication: before you change how you sign in, unless you have just signed in."""

from __future__ import annotations

import time
from typing import Any

from allauth.account import app_settings
from allauth.account.adapter import get_adapter
from allauth.account.authentication import get_authentication_records
from allauth.account.internal.flows import reauthentication
from allauth.account.internal.flows.code_verification import AbstractCodeVerificationProcess
from allauth.account.internal.flows.login import record_authentication
from allauth.account.models import EmailAddress
from allauth.account.views import BaseReauthenticateView, password_set
from allauth.core import ratelimit
from allauth.core.exceptions import ReauthenticationRequired
from allauth.core.internal.cryptokit import compare_user_code
from allauth.headless.base.response import AuthenticationResponse
from allauth.headless.base.views import AuthenticatedAPIView
from allauth.headless.internal.restkit import inputs
from allauth.headless.internal.restkit.response import APIResponse, ErrorResponse
from django import forms
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import AnonymousUser, User
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.shortcuts import redirect
from django.utils.decorators import method_decorator
from django.utils.translation import gettext_lazy as _

BY_CODE = "reauthenticate_by_code"
APP = "allauth.account"

flows_of_allauth = reauthentication.get_reauthentication_flows


def get_reauthentication_flows(user: User | AnonymousUser) -> list[dict[str, Any]]:
    """Add a mailed code for people without password and second factor, whom allauth would not ask."""
    flows: list[dict[str, Any]] = flows_of_allauth(user)
    return flows or ([{"id": BY_CODE}] if user.is_authenticated else [])


reauthentication.get_reauthentication_flows = get_reauthentication_flows


def signed_in_just_now(request: HttpRequest) -> bool:
    """Return whether the last step of the sign-in is as recent as a reauthentication has to be."""
    records = get_authentication_records(request, request.user)
    timeout: float = app_settings.REAUTHENTICATION_TIMEOUT
    return bool(records) and time.time() - records[-1]["at"] < timeout


@login_required
def set_first_password(request: HttpRequest) -> HttpResponseBase:
    """Reauthenticate before the form: allauth would keep the new password in the session meanwhile."""
    if reauthentication.is_reauthentication_required(request, app=APP):
        if request.method == "POST":
            return redirect("account_set_password")
        raise ReauthenticationRequired
    return password_set(request)


# --- A mailed code, for people without password and second factor ----------------------------------


class MailedCode(AbstractCodeVerificationProcess):
    KEY = "reauthentication_code"

    def __init__(self, request: HttpRequest, state: dict[str, Any]) -> None:
        self.request = request
        super().__init__(
            max_attempts=app_settings.EMAIL_VERIFICATION_BY_CODE_MAX_ATTEMPTS,
            timeout=app_settings.EMAIL_VERIFICATION_BY_CODE_TIMEOUT,
            state=state,
            user=request.user,
        )

    @classmethod
    def start(cls, request: HttpRequest) -> None:
        """Mail a new code, which invalidates the previous one."""
        process = cls(request, cls.initial_state(request.user))
        process.send()
        process.persist()

    @classmethod
    def resume(cls, request: HttpRequest) -> MailedCode | None:
        state = request.session.get(cls.KEY)
        return cls(request, state).abort_if_invalid() if state else None

    def send(self) -> None:
        adapter = get_adapter()
        self.state["code"] = adapter.generate_email_verification_code()
        email = EmailAddress.objects.get_primary_email(self.request.user)
        adapter.send_mail("account/email/reauthentication_code", email, {"code": self.code})

    def persist(self) -> None:
        self.request.session[self.KEY] = self.state

    def abort(self) -> None:
        self.request.session.pop(self.KEY, None)


def check_code(request: HttpRequest, code: str) -> None:
    """:raises ValidationError: if it is wrong, or there were too many wrong ones."""
    process = MailedCode.resume(request)
    if process is None:
        raise ValidationError(_("Request a new code."), code="no_code")
    if not compare_user_code(actual=code, expected=process.code):
        process.record_invalid_attempt()
        raise ValidationError(_("Incorrect code."), code="incorrect_code")
    process.abort()
    record_authentication(request, request.user, "code", reauthenticated=True)


class CodeForm(forms.Form):
    code = forms.CharField(label=_("Code"), widget=forms.TextInput(attrs={"autocomplete": "one-time-code"}))

    def __init__(self, request: HttpRequest, **options: Any) -> None:
        self.request = request
        super().__init__(**options)

    def clean_code(self) -> str:
        code: str = self.cleaned_data["code"]
        check_code(self.request, code)
        return code


@method_decorator(login_required, name="dispatch")
class ReauthenticateByCodeView(BaseReauthenticateView):
    form_class = CodeForm
    template_name = "account/reauthenticate_by_code.html"

    def get_form_kwargs(self) -> dict[str, Any]:
        return {**super().get_form_kwargs(), "request": self.request}

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        mailed = MailedCode.resume(self.request) is not None
        return {**super().get_context_data(**kwargs), "mailed": mailed}

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if "send" in request.POST:
            MailedCode.start(request)
            return HttpResponseRedirect(self.passthrough_next_url(request.path))
        return super().post(request, *args, **kwargs)


class CodeInput(inputs.Input):
    code = inputs.CharField(required=False)


class ReauthenticateByCodeAPIView(AuthenticatedAPIView):
    """Mail a code if the request has none, or else check it."""

    input_class = CodeInput

    def handle(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        refused = ratelimit.consume_or_429(request, action="reauthenticate", user=request.user)
        return refused or super().handle(request, *args, **kwargs)

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        code = self.input.cleaned_data["code"]
        if {"id": BY_CODE} not in get_reauthentication_flows(request.user):
            return APIResponse(request, status=409)
        if not code:
            MailedCode.start(request)
            return APIResponse(request)
        try:
            check_code(request, code)
        except ValidationError as error:
            return ErrorResponse(request, exception=error)
        return AuthenticationResponse(request)
