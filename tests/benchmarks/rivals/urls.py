"""The service's URLs, and those of the rivals that need no packages of their own."""

from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from strawberry.django.views import GraphQLView

from config.urls import urlpatterns as ours
from tests.benchmarks.rivals.plain import empty_view, plan_view, with_session_token
from tests.benchmarks.rivals.strawberry_documented import schema

urlpatterns = [
    path("rivals/empty/", empty_view),
    path("rivals/plain/", plan_view),
    path("rivals/strawberry-django/", csrf_exempt(with_session_token(GraphQLView.as_view(schema=schema)))),
    *ours,
]
