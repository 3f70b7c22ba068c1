"""Zammad as a Django application."""

from django.apps import AppConfig


class ZammadConfig(AppConfig):
    name = "zammad"
    verbose_name = "Zammad"

    def ready(self) -> None:
        # allauth's own signal is the only notice of a verified address, by whatever door.
        from allauth.account.models import EmailAddress
        from allauth.account.signals import email_confirmed

        from zammad.services import link_waiting_user

        def link(*, email_address: EmailAddress, **_: object) -> None:
            link_waiting_user(user=email_address.user)

        email_confirmed.connect(link, dispatch_uid="zammad.link_waiting_user", weak=False)
