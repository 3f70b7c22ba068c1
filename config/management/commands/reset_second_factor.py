"""Remove the second factor of a person who lost it."""

from argparse import ArgumentParser
from typing import Any

from allauth.account.models import EmailAddress
from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandError, no_translations
from django.db.models import Q

from config.second_factor import reset_second_factor


class Command(BaseCommand):
    help = (
        "Remove the second factor of a person who lost it, and sign them out everywhere. It is recorded in "
        "the history of their account in admin, and they are told by mail."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--email", required=True, help="an address of the person")

    @no_translations
    def handle(self, *, email: str, **_options: Any) -> None:
        email = email.strip().lower()
        addresses = EmailAddress.objects.filter(email=email, verified=True).values("user")
        people = list(User.objects.filter(Q(pk__in=addresses) | Q(email__iexact=email)))
        if len(people) != 1:
            raise CommandError(
                "There is no account with this address."
                if not people
                else "Several accounts have this address; reset it in admin."
            )
        if not reset_second_factor(person=people[0], actor=None):
            raise CommandError("This person has no second factor; nothing was changed.")
        self.stdout.write(f"{email} signs in by password alone until they set up a second factor again.")
