"""All URLs of the service."""

from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView

from config.metrics import metrics
from config.reauthentication import (
    ReauthenticateByCodeAPIView,
    ReauthenticateByCodeView,
    set_first_password,
)
from config.session_pages import SessionsAPIView, sessions_page
from config.views import healthz, home, not_offered, readyz
from graphql_api.views import graphql
from plans.admin.zammad_users import zammad_user_page

urlpatterns = [
    path("", home, name="home"),
    path("healthz", healthz, name="healthz"),
    path("readyz", readyz, name="readyz"),
    path("metrics", metrics, name="metrics"),
    path("graphql/", graphql, name="graphql"),
    path("graphql", graphql),  # a POST cannot be redirected to the URL with the slash
    path("invites/", include("plans.urls")),
    path("webhooks/", include("zammad.urls")),
    path("accounts/sessions/", sessions_page, name="account_sessions"),
    path("accounts/password/set/", set_first_password),  # overrides allauth's view, whose name still works
    path(
        "accounts/reauthenticate/code/",
        ReauthenticateByCodeView.as_view(),
        name="account_reauthenticate_by_code",
    ),
    path("accounts/2fa/", include("allauth.mfa.urls")),
    path("accounts/", include("allauth.account.urls")),
    path("_allauth/app/v1/auth/sessions", SessionsAPIView.as_api_view(client="app")),
    path("_allauth/app/v1/auth/reauthenticate/code", ReauthenticateByCodeAPIView.as_api_view(client="app")),
    # Accounts have no phone numbers, without which allauth's views fail.
    path("_allauth/app/v1/account/phone", not_offered),
    path("_allauth/app/v1/auth/phone/<path:_rest>", not_offered),
    path("_allauth/", include("allauth.headless.urls")),
    # The URL of constance's own settings page.
    path("admin/constance/config/", RedirectView.as_view(pattern_name="admin:plans_config_changelist")),
    path("admin/zammad-user/<str:zammad_id>/", zammad_user_page, name="zammad_user_page"),
    path("admin/", admin.site.urls),
]
