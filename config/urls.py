"""Every address that the service answers at."""

from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView

from config.metrics import metrics
from config.views import healthz, home, readyz
from graphql_api.views import graphql
from plans.admin.zammad_users import zammad_user_page

urlpatterns = [
    path("", home, name="home"),
    path("healthz", healthz, name="healthz"),
    path("readyz", readyz, name="readyz"),
    path("metrics", metrics, name="metrics"),
    path("graphql/", graphql, name="graphql"),
    path("graphql", graphql),  # a POST cannot be redirected to where the slash is
    path("invites/", include("plans.urls")),
    path("webhooks/", include("zammad.urls")),
    path("accounts/", include("allauth.account.urls")),
    path("_allauth/", include("allauth.headless.urls")),
    # Where constance itself would put the settings page.
    path("admin/constance/config/", RedirectView.as_view(pattern_name="admin:plans_config_changelist")),
    path("admin/zammad-user/<str:zammad_id>/", zammad_user_page, name="zammad_user_page"),
    path("admin/", admin.site.urls),
]
