"""The project as a Django application."""

from django.apps import AppConfig
from django.conf import settings
from django.contrib.admin.apps import AdminConfig
from django.utils.translation import gettext_lazy as _

from config import sentry


class FamilyPlansConfig(AppConfig):
    name = "config"
    verbose_name = _("Family Plans")

    def ready(self) -> None:
        # They need models, which are loaded only now.
        from allauth.account.signals import email_confirmed, email_removed
        from allauth.mfa.signals import authenticator_added

        from config import account_mail, attempts, second_factor

        account_mail.limit_codes()
        attempts.count_in_the_database()
        email_confirmed.connect(account_mail.notify_of_added_address)
        email_removed.connect(account_mail.notify_removed_address)
        authenticator_added.connect(second_factor.remember_use)
        if settings.SENTRY_DSN:
            sentry.start(settings.SENTRY_DSN)


class FamilyPlansAdminConfig(AdminConfig):
    default_site = "config.admin_site.FamilyPlansAdminSite"
