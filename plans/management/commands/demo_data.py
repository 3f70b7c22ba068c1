"""Fill a development database with accounts and a plan to try things out."""

from __future__ import annotations

import datetime
import secrets
import uuid
from typing import TYPE_CHECKING, Any

from allauth.account.models import EmailAddress
from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from plans.models import FamilyPlan, FamilyPlanInvite, Membership, PlanEvent, digest_of

if TYPE_CHECKING:
    from django.contrib.auth.models import User

PASSWORD = "demo-password"  # noqa: S105  # public: for development on a loopback address only
PEOPLE = {
    "admin@example.com": ("Ada", "Admin"),
    "alice@example.com": ("Alice", "Archer"),
    "bob@example.com": ("Bob", "Baker"),
    "carol@example.com": ("Carol", "Carter"),
}


class Command(BaseCommand):
    help = (
        "Create admin@, alice@, bob@ and carol@example.com with the password demo-password, and a plan "
        "that alice shares with bob. Existing accounts stay as they are."
    )

    def handle(self, **_options: Any) -> None:
        if not settings.DEBUG:
            raise CommandError("Demo accounts have a public password: they are created only with DEBUG on.")
        refuse_database_of_others()
        now = timezone.now()
        with transaction.atomic():
            made = {email: person for email in PEOPLE if (person := make_person(email))}
            if "alice@example.com" in made and "bob@example.com" in made:
                share_a_plan(owner=made["alice@example.com"], member=made["bob@example.com"], now=now)
        self.stdout.write(f"Demo data: {len(made)} accounts made, {len(PEOPLE) - len(made)} existed already.")


def refuse_database_of_others() -> None:
    """:raises CommandError: if there are accounts, but none of the demo's."""
    people = get_user_model().objects.all()
    ours = Q()
    for email in PEOPLE:
        ours |= Q(**{f"{get_user_model().get_email_field_name()}__iexact": email})
    if people.exists() and not people.filter(ours).exists():
        raise CommandError(
            "This database holds accounts of others, and demo accounts have a public password: "
            "choose another DATABASE_URL."
        )


def make_person(email: str) -> User | None:
    """Create the account of one of PEOPLE; return None if its address is taken."""
    user_model = get_user_model()
    if (
        EmailAddress.objects.filter(email=email).exists()
        or user_model.objects.filter(email__iexact=email).exists()
    ):
        return None
    is_admin = email.startswith("admin@")
    first_name, last_name = PEOPLE[email]
    # In a user model without user names both are the same field, and the address wins.
    names = {user_model.USERNAME_FIELD: uuid.uuid4().hex, user_model.get_email_field_name(): email}
    person = user_model(
        **names, first_name=first_name, last_name=last_name, is_staff=is_admin, is_superuser=is_admin
    )
    person.set_password(PASSWORD)
    person.save()
    EmailAddress.objects.create(user=person, email=email, verified=True, primary=True)
    return person


def share_a_plan(*, owner: User, member: User, now: datetime.datetime) -> None:
    """Create a plan that the member joined through an invite."""
    plan = FamilyPlan.objects.create(name="The Archers", created_at=now)
    Membership.objects.create(user=owner, family_plan=plan, role=Membership.Role.OWNER, joined_at=now)
    Membership.objects.create(user=member, family_plan=plan, joined_at=now)
    invite = FamilyPlanInvite.objects.create(
        family_plan=plan,
        created_by=owner,
        email=member.email,
        token_digest=digest_of(secrets.token_urlsafe(32)),  # nobody has this token
        zammad_token_name=f"{settings.ZAMMAD_TOKEN_PREFIX}-{uuid.uuid4()}",
        created_at=now,
        expires_at=now + datetime.timedelta(hours=48),
        user=member,
    )
    for kind, actor, subject, about in (
        (PlanEvent.Kind.PLAN_CREATED, owner, owner, None),
        (PlanEvent.Kind.INVITE_CREATED, owner, None, invite),
        (PlanEvent.Kind.INVITE_ACCEPTED, member, member, invite),
    ):
        PlanEvent.objects.create(
            family_plan=plan,
            kind=kind,
            actor=actor,
            subject=subject,
            invite=about,
            at=now,
            counts_for_actor=actor == owner,
        )
