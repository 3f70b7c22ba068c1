"""The Zammad app, which connects signals of people and addresses to the receivers in doors.py."""

from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.db.models.signals import post_delete, post_save, pre_delete, pre_save


class ZammadConfig(AppConfig):
    name = "zammad"
    verbose_name = "Zammad"

    def ready(self) -> None:
        # People and addresses belong to Django and allauth. Their pages, API and admin all save and
        # delete models, so signals see every change.
        from zammad import doors

        addresses, people = "account.EmailAddress", settings.AUTH_USER_MODEL
        receivers: list[tuple[Any, str, Any]] = [
            (pre_save, addresses, doors.remember_address),
            (post_save, addresses, doors.address_saved),
            (post_delete, addresses, doors.address_deleted),
            (post_save, people, doors.person_saved),
            (pre_delete, people, doors.person_leaves),
            (post_delete, people, doors.person_left),
        ]
        for signal, sender, receiver in receivers:
            signal.connect(receiver, sender=sender, dispatch_uid=f"zammad.{receiver.__name__}")
