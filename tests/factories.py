"""Test data: each call makes an object with everything it needs."""

from __future__ import annotations

import datetime
import uuid
from typing import Any

import factory
from allauth.account.models import EmailAddress
from django.contrib.auth.models import User
from django.utils import timezone
from factory.django import DjangoModelFactory

from plans.models import FamilyPlan, FamilyPlanInvite, Membership, digest_of
from zammad.models import ZammadUser

PASSWORD = "correct horse battery staple"


class UserFactory(DjangoModelFactory[User]):
    """A person with one verified address."""

    class Meta:
        model = User
        skip_postgeneration_save = True

    username = factory.LazyFunction(lambda: uuid.uuid4().hex)
    email = factory.Sequence(lambda n: f"person{n}@example.com")
    first_name = "Pat"
    last_name = factory.Sequence(lambda n: f"Person{n}")
    password = factory.django.Password(PASSWORD)

    @factory.post_generation
    def verified(self: User, create: bool, extracted: bool | None, **kwargs: Any) -> None:
        EmailAddress.objects.create(
            user=self, email=self.email.lower(), verified=extracted is not False, primary=True
        )


class FamilyPlanFactory(DjangoModelFactory[FamilyPlan]):
    class Meta:
        model = FamilyPlan

    name = factory.Sequence(lambda n: f"Plan {n}")


class MembershipFactory(DjangoModelFactory[Membership]):
    class Meta:
        model = Membership

    user = factory.SubFactory(UserFactory)
    family_plan = factory.SubFactory(FamilyPlanFactory)


class OwnerFactory(MembershipFactory):
    role = Membership.Role.OWNER


class InviteFactory(DjangoModelFactory[FamilyPlanInvite]):
    """An open invite; `token=` chooses the token that opens it."""

    class Meta:
        model = FamilyPlanInvite

    class Params:
        token = factory.Sequence(lambda n: f"{n:043d}")

    family_plan = factory.SubFactory(FamilyPlanFactory)
    token_digest = factory.LazyAttribute(lambda invite: digest_of(invite.token))
    zammad_token_name = factory.LazyFunction(lambda: f"family-plan-invite-{uuid.uuid4()}")
    expires_at = factory.LazyFunction(lambda: timezone.now() + datetime.timedelta(hours=48))


class ZammadUserFactory(DjangoModelFactory[ZammadUser]):
    class Meta:
        model = ZammadUser

    zammad_id = factory.Sequence(lambda n: 100 + n)
    email = factory.Sequence(lambda n: f"customer{n}@example.com")
    login = factory.SelfAttribute("email")
    firstname = "Chris"
    lastname = factory.Sequence(lambda n: f"Customer{n}")
    updated_at = factory.LazyFunction(timezone.now)
    link_kind = factory.LazyAttribute(
        lambda zammad_user: ZammadUser.LinkKind.AUTOMATIC if getattr(zammad_user, "user", None) else ""
    )
