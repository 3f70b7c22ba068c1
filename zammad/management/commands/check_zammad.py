"""Check what our token may do in Zammad, and whether its owner may do too much."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from zammad.client import ZammadError, get_patient_client
from zammad.installation import concern_about_minting


class Command(BaseCommand):
    help = "Check that ZAMMAD_API_TOKEN mints invite tokens and lists users. Asks only, and changes nothing."

    def handle(self, *args: Any, **options: Any) -> None:
        client = get_patient_client()
        try:
            client.me()
            self.stdout.write("Zammad knows the token.")
            concern = concern_about_minting(client)
            self.stdout.write("It may make invite tokens.")
            lists_users = client.can_list_users()
        except ZammadError as error:
            needed = " Does the token have user_preferences.access_token?" if error.status == 403 else ""
            raise CommandError(f"{error}{needed}") from error
        if lists_users:
            self.stdout.write("It may list users, as import_zammad_users does.")
        else:
            self._warn("The token may not list users: import_zammad_users needs ticket.agent.")
        if concern:
            self._warn(concern)

    def _warn(self, text: str) -> None:
        self.stderr.write(self.style.WARNING(f"Warning: {text}"))
