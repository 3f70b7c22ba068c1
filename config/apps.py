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
        # They need models, which are there by now only.
        from config.account_mail import count_codes
        from config.attempts import count_in_the_database

        count_codes()
        count_in_the_database()
        connect_account_signals()
        if settings.SENTRY_DSN:
            sentry.start(settings.SENTRY_DSN)


class FamilyPlansAdminConfig(AdminConfig):
    default_site = "config.admin_site.FamilyPlansAdminSite"


def connect_account_signals() -> None:
    """Connect what allauth tells of; these modules need the models, which are not there before."""
    from allauth.account.signals import email_confirmed, email_removed
    from allauth.mfa.signals import authenticator_added

    from config.notices import tell_of_verified_address, tell_removed_address
    from config.second_factor import remember_use

    email_confirmed.connect(tell_of_verified_address)
    email_removed.connect(tell_removed_address)
    authenticator_added.connect(remember_use)
