"""Create the first account: a superuser with a verified address."""

import os
from argparse import ArgumentParser
from getpass import getpass
from typing import Any

from allauth.account.models import EmailAddress
from django.contrib.auth.models import User
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, no_translations
from django.db import transaction

from config.accounts import has_account, opaque_username
from zammad.addresses import validated_address


class Command(BaseCommand):
    help = "Create a superuser with a verified address. Existing accounts are never changed."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--email", required=True)
        parser.add_argument(
            "--password-from-env",
            metavar="NAME",
            help="the environment variable that contains the password; without it, you are prompted",
        )

    @no_translations
    def handle(self, *, email: str, password_from_env: str | None, **_options: Any) -> None:
        email = email.strip().lower()
        try:
            validated_address(email)
        except ValidationError as error:
            raise CommandError("This is not an email address.") from error
        if has_account(email):
            raise CommandError("An account with this address already exists; nothing was changed.")

        user = User(username=opaque_username(), email=email, is_staff=True, is_superuser=True)
        password = self.read_password(password_from_env)
        try:
            validate_password(password, user)
        except ValidationError as error:
            raise CommandError(" ".join(error.messages)) from error

        user.set_password(password)
        with transaction.atomic():
            user.save()
            EmailAddress.objects.create(user=user, email=email, verified=True, primary=True)
        self.stdout.write(f"{email} can sign in at /accounts/login/ and use /admin/.")

    def read_password(self, variable: str | None) -> str:
        if variable:
            if password := os.environ.get(variable, ""):
                return password
            raise CommandError(f"The environment variable {variable} is empty.")
        password = getpass("Password: ")
        if password != getpass("Password (again): "):
            raise CommandError("The passwords do not match.")
        return password
