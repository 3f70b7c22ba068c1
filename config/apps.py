"""The project as a Django application."""

from django.apps import AppConfig
from django.conf import settings
from django.contrib import admin
from django.utils.translation import gettext_lazy as _

from config import sentry


class FamilyPlansConfig(AppConfig):
    name = "config"
    verbose_name = _("Family Plans")

    def ready(self) -> None:
        # They need models, which are there by now only.
        from config.account_mail import count_codes
        from config.attempts import count_in_the_database

        count_codes()
        count_in_the_database()
        admin.site.site_header = admin.site.site_title = self.verbose_name
        if settings.SENTRY_DSN:
            sentry.start(settings.SENTRY_DSN)
