"""The project as a Django application."""

from django.apps import AppConfig
from django.contrib import admin


class FamilyPlansConfig(AppConfig):
    name = "config"
    verbose_name = "Family Plans"

    def ready(self) -> None:
        admin.site.site_header = admin.site.site_title = "Family Plans"
