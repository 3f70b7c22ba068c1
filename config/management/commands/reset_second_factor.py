"""Remove the second factor of a person who has lost it."""

from argparse import ArgumentParser
from typing import Any

from allauth.account.models import EmailAddress
from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandError, no_translations
from django.db.models import Q

from config.second_factor import reset_second_factor


class Command(BaseCommand):
    help = (
        "Remove the second factor of a person who has lost it, and sign them out everywhere. This is "
        "recorded in the history of their account in admin, and the person is notified by mail."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--email", required=True, help="one of the person's addresses")

    @no_translations
    def handle(self, *, email: str, **_options: Any) -> None:
        email = email.strip().lower()
        addresses = EmailAddress.objects.filter(email=email, verified=True).values("user")
        people = list(User.objects.filter(Q(pk__in=addresses) | Q(email__iexact=email)))
        if len(people) != 1:
            raise CommandError(
                "Several accounts have this address. Reset the second factor in admin."
                if people
                else "There is no account with this address."
            )
        if not reset_second_factor(person=people[0], actor=None):
            raise CommandError("This person has no second factor; nothing was changed.")
        self.stdout.write(
            f"{email} can sign in with the password alone until a second factor is set up again."
        )
