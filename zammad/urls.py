"""The URL that Zammad calls, below webhooks/."""

from django.urls import path

from zammad.views import webhook

urlpatterns = [path("zammad/", webhook, name="zammad-webhook")]
