"""Admin shows everything to staff with the right, and changes seats only through services."""

import datetime
import html
import re
from typing import Any

import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, Permission, User
from django.db import connection
from django.forms.models import model_to_dict
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from plans.models import FamilyPlan, FamilyPlanInvite, Membership, PlanEvent, digest_of
from plans.templatetags.plans import change_message
from tests.admin_pages import TABLES, as_person, everything, queries_of, row_of, text_of, told, url
from tests.factories import (
    InviteFactory,
    MembershipFactory,
    OwnerFactory,
    UserFactory,
    ZammadUserFactory,
)
from zammad.models import WebhookDelivery, ZammadUser
from zammad.sandbox import Sandbox


@pytest.fixture
def zammad_user(db: None) -> ZammadUser:
    return ZammadUserFactory(zammad_id=57, email="lena@acme.example", firstname="Lena", lastname="Vogt")


# --- The group Support --------------------------------------------------------------------------


def test_the_group_support_has_the_rights_of_the_design(db: None) -> None:
    rights = Group.objects.get(name="Support").permissions.values_list("content_type__app_label", "codename")

    assert set(rights) == {
        ("plans", "view_familyplan"),
        ("plans", "change_familyplan"),
        ("plans", "add_familyplan"),
        ("zammad", "view_zammaduser"),
    }


def test_the_rights_of_support_are_those_that_django_makes(db: None) -> None:
    for right in Group.objects.get(name="Support").permissions.all():
        assert (
            Permission.objects.filter(content_type=right.content_type, codename=right.codename).count() == 1
        )
        action, model = right.codename.split("_")
        verbose_name = apps.get_model(right.content_type.app_label, model)._meta.verbose_name
        assert right.name == f"Can {action} {verbose_name}"


# --- Who sees what ------------------------------------------------------------------------------


def test_support_finds_plans_and_zammad_users_in_the_menu_but_no_settings(support: User) -> None:
    menu = text_of(as_person(support).get(reverse("admin:index")))

    assert "Family plans" in menu
    assert "Family plan invites" in menu
    assert "Zammad users" in menu
    assert "Memberships" not in menu
    assert "settings" not in menu


def test_staff_without_rights_are_refused_every_page(
    clerk: User, plan: FamilyPlan, zammad_user: ZammadUser
) -> None:
    client = as_person(clerk)
    bob_seat = plan.memberships.get(role="MEMBER")
    invite = plan.invites.get()
    rows = ((FamilyPlan, plan), (Membership, bob_seat), (FamilyPlanInvite, invite), (ZammadUser, zammad_user))

    for model, row in rows:
        for address in (url(model, "changelist"), url(model, "change", row.pk), url(model, "add")):
            assert client.get(address).status_code == 403, address
    assert "permission to view or edit anything" in text_of(client.get(reverse("admin:index")))


def test_people_who_are_not_staff_are_sent_away(alice: User, plan: FamilyPlan) -> None:
    response = as_person(alice).get(url(FamilyPlan, "change", plan.pk))

    assert response.status_code in {302, 403}
    assert "The Archers" not in response.content.decode()


# --- Lists --------------------------------------------------------------------------------------


def test_the_list_of_plans_tells_owner_and_seats(support: User, plan: FamilyPlan) -> None:
    InviteFactory(family_plan=plan)
    InviteFactory(family_plan=plan, expires_at=timezone.now() - datetime.timedelta(seconds=1))
    FamilyPlan.objects.create(name="Nobody's plan", user_limit=7)

    page = as_person(support).get(url(FamilyPlan, "changelist"))

    assert row_of(page, "The Archers").startswith(
        "The Archers | Alice Archer (alice@example.com) | 3 of 5 | "
    )
    assert row_of(page, "Nobody&#x27;s plan").startswith("Nobody's plan | - | 0 of 7 | ")


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("q=the arch", {"The Archers"}),
        ("q=Archers", set()),
        ("q=alice@example.com", {"The Archers"}),
        ("q=ALICE@EXAMPLE.COM", {"The Archers"}),
        ("q=bob@example.com", set()),
        ("q=12 Main Street", {"12 Main Street"}),
        ("q=12", {"12 Main Street"}),
        ("q=" + "9" * 40, set()),
        ("state=open", {"The Archers"}),
        ("state=closed", {"12 Main Street"}),
        ("state=odd", {"The Archers", "12 Main Street"}),
    ],
)
def test_plans_are_found(support: User, plan: FamilyPlan, query: str, found: set[str]) -> None:
    FamilyPlan.objects.create(name="12 Main Street", closed_at=timezone.now())

    page = as_person(support).get(f"{url(FamilyPlan, 'changelist')}?{query}")

    assert page.status_code == 200
    assert {str(row) for row in page.context["cl"].result_list} == found


def test_a_plan_is_found_by_its_id(support: User, plan: FamilyPlan) -> None:
    FamilyPlan.objects.create(name="Another plan")

    page = as_person(support).get(f"{url(FamilyPlan, 'changelist')}?q={plan.pk}")

    assert [row.pk for row in page.context["cl"].result_list] == [plan.pk]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("q=dave@", {"dave@example.com"}),
        ("q=DAVE", {"dave@example.com"}),
        ("q=example.com", set()),
        ("status=OPEN", {"dave@example.com"}),
        ("status=EXPIRED", {"erin@example.com"}),
        ("status=USED", {""}),
        ("status=odd", {"", "dave@example.com", "erin@example.com"}),
    ],
)
def test_invites_are_found(support: User, plan: FamilyPlan, query: str, found: set[str]) -> None:
    InviteFactory(family_plan=plan, email="dave@example.com")
    InviteFactory(family_plan=plan, email="erin@example.com", expires_at=timezone.now())

    page = as_person(support).get(f"{url(FamilyPlanInvite, 'changelist')}?{query}")

    assert page.status_code == 200
    assert {row.email for row in page.context["cl"].result_list} == found


def test_an_invite_is_found_by_its_id(support: User, plan: FamilyPlan) -> None:
    invite = InviteFactory(family_plan=plan, email="dave@example.com")

    page = as_person(support).get(f"{url(FamilyPlanInvite, 'changelist')}?q={invite.pk}")

    assert [row.email for row in page.context["cl"].result_list] == ["dave@example.com"]
    assert row_of(page, "dave@example.com").startswith(
        f"{invite.pk} | The Archers | dave@example.com | Open | "
    )


def test_members_are_not_searched(support: User, plan: FamilyPlan) -> None:
    page = as_person(support).get(f"{url(Membership, 'changelist')}?q=nobody")

    assert len(page.context["cl"].result_list) == 2


@pytest.mark.parametrize(
    ("term", "found"),
    [
        ("57", {57}),
        ("5", set()),
        ("lena@", {57}),
        ("LENA", {57}),
        ("vog", {57}),
        ("acme", set()),
    ],
)
def test_zammad_users_are_found(support: User, zammad_user: ZammadUser, term: str, found: set[int]) -> None:
    ZammadUserFactory(zammad_id=570)

    page = as_person(support).get(f"{url(ZammadUser, 'changelist')}?q={term}")

    assert {row.zammad_id for row in page.context["cl"].result_list} == found


def test_the_list_of_zammad_users_tells_person_and_plan(support: User, plan: FamilyPlan, bob: User) -> None:
    ZammadUserFactory(zammad_id=57, email="bob@example.com", firstname="Bob", lastname="Baker", user=bob)

    page = as_person(support).get(url(ZammadUser, "changelist"))

    cells = row_of(page, "The Archers")
    assert cells == "57 | Bob Baker | bob@example.com |  | bob@example.com | The Archers (Member) | "


def test_who_may_not_read_plans_sees_zammad_users_without_them(
    clerk: User, plan: FamilyPlan, bob: User
) -> None:
    clerk.user_permissions.add(Permission.objects.get(codename="view_zammaduser"))
    zammad_user = ZammadUserFactory(user=bob)

    client = as_person(clerk)

    for address in (url(ZammadUser, "changelist"), url(ZammadUser, "change", zammad_user.pk)):
        page = client.get(address)
        assert zammad_user.email in page.content.decode()
        assert "The Archers" not in page.content.decode()


@pytest.mark.parametrize(
    "field",
    [
        ("plans", "membership", "family_plan"),
        ("plans", "planevent", "invite"),
        ("zammad", "webhookdelivery", "zammad_user"),
    ],
)
def test_no_row_is_found_by_a_term_that_no_database_holds(
    superuser: User, plan: FamilyPlan, zammad_user: ZammadUser, field: tuple[str, str, str]
) -> None:
    asked = dict(zip(("app_label", "model_name", "field_name"), field, strict=True))

    response = as_person(superuser).get(reverse("admin:autocomplete"), asked | {"term": "The\0Archers"})

    assert response.json()["results"] == []


def fill_plan(plan: FamilyPlan, rows: int) -> None:
    for _ in range(rows):
        member = MembershipFactory(family_plan=plan).user
        invite = InviteFactory(family_plan=plan, user=member, created_by=UserFactory())
        PlanEvent.objects.create(
            family_plan=plan, kind="INVITE_ACCEPTED", actor=UserFactory(), subject=member, invite=invite
        )
        ZammadUserFactory(user=member)
        OwnerFactory()


@pytest.mark.parametrize(
    ("page", "of_plan"),
    [
        ("plans_familyplan_changelist", False),
        ("plans_familyplan_change", True),
        ("plans_membership_changelist", False),
        ("plans_familyplaninvite_changelist", False),
        ("zammad_zammaduser_changelist", False),
    ],
)
def test_fifty_rows_take_as_many_queries_as_one(
    support: User, plan: FamilyPlan, page: str, of_plan: bool
) -> None:
    client = as_person(support)
    address = reverse(f"admin:{page}", args=[plan.pk] if of_plan else [])
    fill_plan(plan, 1)
    queries_of(client, address)  # the first visit fetches content types
    for_few = queries_of(client, address)
    fill_plan(plan, 48)

    assert queries_of(client, address) == for_few


def test_pages_are_counted_without_the_seats_of_every_plan(support: User, plan: FamilyPlan) -> None:
    client = as_person(support)

    with CaptureQueriesContext(connection) as queries:
        client.get(url(FamilyPlan, "changelist"))

    counts = [query["sql"] for query in queries if "COUNT(*)" in query["sql"]]
    assert len(counts) == 1
    assert "LIMIT 10000" in counts[0]
    assert "plans_familyplaninvite" not in counts[0]


def test_a_plans_page_shows_members_invites_and_history(
    support: User, plan: FamilyPlan, alice: User, bob: User
) -> None:
    InviteFactory(family_plan=plan, email="dave@example.com")
    PlanEvent.objects.create(family_plan=plan, kind="OWNERSHIP_TRANSFERRED", actor=alice, subject=bob)

    page = as_person(support).get(url(FamilyPlan, "change", plan.pk))

    assert row_of(page, "Make owner").startswith("Bob Baker (bob@example.com) | Member | ")
    assert row_of(page, "dave@example.com").endswith("| - | None | Reissue | Revoke")
    assert row_of(page, "Ownership Transferred").endswith(
        "| Ownership Transferred | Alice Archer (alice@example.com) | Bob Baker (bob@example.com) | -"
    )


def test_a_plans_page_shows_the_newest_hundred_invites(support: User, plan: FamilyPlan) -> None:
    invites = [InviteFactory(family_plan=plan, email=f"guest{n}@example.com") for n in range(101)]

    page = as_person(support).get(url(FamilyPlan, "change", plan.pk)).content.decode()

    assert "guest100@example.com" in page
    assert invites[0].email not in page
    assert len(re.findall(r"guest\d+@example.com", page)) == 100


def test_who_may_only_read_plans_is_offered_no_journey(clerk: User, plan: FamilyPlan) -> None:
    clerk.user_permissions.add(Permission.objects.get(codename="view_familyplan"))
    InviteFactory(family_plan=plan)
    client = as_person(clerk)

    page = client.get(url(FamilyPlan, "change", plan.pk)).content.decode()

    assert "Bob Baker (bob@example.com)" in page
    for journey in ("Detach", "Make owner", "Reissue", "Revoke", "Invite</a>", "Close plan", "_save"):
        assert journey not in page
    assert "Add family plan" not in client.get(url(FamilyPlan, "changelist")).content.decode()


# --- A plan's own fields ------------------------------------------------------------------------


def test_staff_change_name_and_limit_of_a_plan(support: User, plan: FamilyPlan) -> None:
    response = as_person(support).post(
        url(FamilyPlan, "change", plan.pk), {"name": "The Bakers", "user_limit": "1"}
    )

    plan.refresh_from_db()
    assert response.status_code == 302
    assert (plan.name, plan.user_limit) == ("The Bakers", 1)
    assert plan.memberships.count() == 2  # a lowered limit removes nobody
    entry = LogEntry.objects.get()
    assert (entry.user, entry.get_change_message()) == (support, "Changed Name and User limit.")


def test_a_plan_that_is_closed_meanwhile_stays_closed(
    support: User, plan: FamilyPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan_admin: Any = admin.site.get_model_admin(FamilyPlan)
    read = plan_admin.get_object
    closed_at = timezone.now()

    def read_then_close(*args: Any, **kwargs: Any) -> FamilyPlan:
        found: FamilyPlan = read(*args, **kwargs)
        FamilyPlan.objects.update(closed_at=closed_at)
        return found

    monkeypatch.setattr(plan_admin, "get_object", read_then_close)
    as_person(support).post(url(FamilyPlan, "change", plan.pk), {"name": "The Bakers", "user_limit": ""})

    plan.refresh_from_db()
    assert (plan.name, plan.closed_at) == ("The Bakers", closed_at)


LINK = "A plan's name must not contain a link. Put a space after each dot, colon and @ in it."


def test_a_name_from_before_stays_while_the_limit_is_changed(support: User, plan: FamilyPlan) -> None:
    FamilyPlan.objects.update(name="evil.example")

    as_person(support).post(url(FamilyPlan, "change", plan.pk), {"name": "evil.example", "user_limit": "7"})

    assert FamilyPlan.objects.values("name", "user_limit").get() == {"name": "evil.example", "user_limit": 7}


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"name": "", "user_limit": ""}, "This field is required."),
        ({"name": "see https://evil.example", "user_limit": ""}, LINK),
        ({"name": "evil.example/win", "user_limit": ""}, LINK),
        ({"name": "x" * 81, "user_limit": ""}, "Ensure this value has at most 80 characters (it has 81)."),
        ({"name": "Fine", "user_limit": "0"}, "Ensure this value is greater than or equal to 1."),
        ({"name": "Fine", "user_limit": "101"}, "Ensure this value is less than or equal to 100."),
    ],
)
def test_a_name_or_limit_out_of_range_is_refused(
    support: User, plan: FamilyPlan, fields: dict[str, str], reason: str
) -> None:
    before = everything()

    page = as_person(support).post(url(FamilyPlan, "change", plan.pk), fields)

    assert reason in text_of(page)
    assert "Bob Baker (bob@example.com)" in text_of(page)
    assert everything() == before


# --- Journeys: create a plan --------------------------------------------------------------------


def test_staff_create_a_plan_for_a_person(support: User, carol: User) -> None:
    client = as_person(support)
    assert "Owner's address" in text_of(client.get(url(FamilyPlan, "add")))

    response = client.post(
        url(FamilyPlan, "add"), {"name": "The Carvers", "owner_email": "Carol@example.com"}, follow=True
    )

    plan = FamilyPlan.objects.get()
    assert (plan.name, plan.memberships.get().user, plan.memberships.get().role) == (
        "The Carvers",
        carol,
        "OWNER",
    )
    assert response.redirect_chain == [(url(FamilyPlan, "change", plan.pk), 302)]
    assert told(response) == ["Created The Carvers."]
    entry = LogEntry.objects.get()
    assert (entry.user, entry.object_id, entry.is_addition()) == (support, str(plan.pk), True)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"name": "New", "owner_email": "alice@example.com"}, "This person is already in a plan."),
        ({"name": "New", "owner_email": "ghost@example.com"}, "No user has verified this address."),
        ({"name": "New", "owner_email": "not an address"}, "Enter a valid e-mail address."),
        ({"name": "New", "owner_email": ""}, "This field is required."),
        ({"name": "a\x07b", "owner_email": "carol@example.com"}, "one line without control characters"),
    ],
)
def test_a_plan_that_cannot_be_created_is_refused_with_the_reason(
    support: User, plan: FamilyPlan, carol: User, fields: dict[str, str], reason: str
) -> None:
    before = everything()

    page = as_person(support).post(url(FamilyPlan, "add"), fields)

    assert page.status_code == 200
    assert reason in html.unescape(page.content.decode())
    assert everything() == before
    assert not LogEntry.objects.exists()


# --- Journeys: invite, reissue, revoke ----------------------------------------------------------


def test_an_invite_is_made_and_its_link_is_shown_once(
    support: User, plan: FamilyPlan, sandbox: Sandbox
) -> None:
    client = as_person(support)
    assert "Invite" in text_of(client.get(url(FamilyPlan, "invite", plan.pk)))

    page = client.post(url(FamilyPlan, "invite", plan.pk), {"email": ""})

    [token] = re.findall(r"http://127.0.0.1:8000/invites/([\w-]{43})/", page.content.decode())
    invite = FamilyPlanInvite.objects.get(token_digest=digest_of(token))
    assert (invite.family_plan, invite.created_by, invite.email) == (plan, support, "")
    assert "no-store" in page["Cache-Control"]
    assert "None: no address was given." in text_of(page)

    entry = LogEntry.objects.get()
    assert (entry.user, entry.object_id) == (support, str(plan.pk))
    assert change_message(entry) == f"Made invite {invite.pk}."
    kept = [str(row) for row in LogEntry.objects.values()] + [str(dict(client.session.items()))]
    kept += [str(cookie) for cookie in client.cookies.values()]
    kept += [client.get(url(FamilyPlan, "change", plan.pk)).content.decode()]
    assert not [place for place in kept if token in place]


def test_an_invite_for_an_address_is_mailed(
    support: User, plan: FamilyPlan, sandbox: Sandbox, mailoutbox: list[Any]
) -> None:
    page = as_person(support).post(url(FamilyPlan, "invite", plan.pk), {"email": "Dave@example.com"})

    assert [mail.to for mail in mailoutbox] == [["dave@example.com"]]
    assert "Sent (dave@example.com)" in text_of(page)


def test_a_full_plan_is_told_and_zammad_is_not_asked(
    support: User, plan: FamilyPlan, sandbox: Sandbox
) -> None:
    FamilyPlan.objects.update(user_limit=2)
    before = everything()

    page = as_person(support).post(url(FamilyPlan, "invite", plan.pk), {"email": ""})

    assert told(page) == ["Every seat of this plan is taken."]
    assert everything() == before
    assert not LogEntry.objects.exists()


def test_a_zammad_that_does_not_answer_is_told(support: User, plan: FamilyPlan) -> None:
    before = everything()

    page = as_person(support).post(url(FamilyPlan, "invite", plan.pk), {"email": ""})

    assert told(page) == ["The invite could not be created just now. Try again in a moment."]
    assert everything() == before


def test_an_odd_address_is_told_beside_its_field(support: User, plan: FamilyPlan) -> None:
    before = everything()

    page = as_person(support).post(url(FamilyPlan, "invite", plan.pk), {"email": "not an address"})

    assert page.context["form"].errors == {"email": ["Enter a valid e-mail address."]}
    assert "not an address" in page.content.decode()
    assert everything() == before


def test_a_reissued_invite_has_a_new_link_and_the_old_one_is_dead(
    support: User, plan: FamilyPlan, sandbox: Sandbox
) -> None:
    invite = InviteFactory(family_plan=plan, token="t" * 43)

    page = as_person(support).post(url(FamilyPlanInvite, "reissue", invite.pk))

    [token] = re.findall(r"/invites/([\w-]{43})/", page.content.decode())
    invite.refresh_from_db()
    assert invite.token_digest == digest_of(token) != digest_of("t" * 43)
    entry = LogEntry.objects.get()
    assert (entry.object_id, change_message(entry)) == (str(invite.pk), f"Reissued invite {invite.pk}.")


def test_a_revoked_invite_has_expired(support: User, plan: FamilyPlan) -> None:
    invite = InviteFactory(family_plan=plan)

    response = as_person(support).post(url(FamilyPlanInvite, "revoke", invite.pk), follow=True)

    invite.refresh_from_db()
    assert invite.status(now=timezone.now()) == "EXPIRED"
    assert response.redirect_chain == [(url(FamilyPlanInvite, "change", invite.pk), 302)]
    assert told(response) == [f"Revoked invite {invite.pk}."]
    assert "Reissue" in text_of(response)
    assert "Revoke</a>" not in response.content.decode()


@pytest.mark.parametrize("journey", ["reissue", "revoke"])
def test_a_used_invite_is_left_alone(support: User, plan: FamilyPlan, sandbox: Sandbox, journey: str) -> None:
    before = everything()

    page = as_person(support).post(url(FamilyPlanInvite, journey, plan.invites.get().pk))

    assert told(page) == ["This invite has already been used."]
    assert everything() == before


# --- Journeys: detach, transfer, close ----------------------------------------------------------


def test_a_member_is_detached(support: User, plan: FamilyPlan, bob: User) -> None:
    seat = Membership.objects.get(user=bob)

    response = as_person(support).post(url(Membership, "detach", seat.pk), follow=True)

    assert not Membership.objects.filter(user=bob).exists()
    assert plan.events.get().kind == "MEMBER_DETACHED"
    assert response.redirect_chain == [(url(FamilyPlan, "change", plan.pk), 302)]
    assert told(response) == [f"Detached user {bob.pk}."]
    entry = LogEntry.objects.get()
    assert (entry.user, entry.object_id, change_message(entry)) == (
        support,
        str(plan.pk),
        f"Detached user {bob.pk}.",
    )


def test_the_owner_is_not_detached(support: User, plan: FamilyPlan, alice: User) -> None:
    before = everything()

    page = as_person(support).post(url(Membership, "detach", Membership.objects.get(user=alice).pk))

    assert told(page) == ["The owner cannot be detached. Transfer the ownership or close the plan."]
    assert everything() == before


def test_a_member_is_made_owner(support: User, plan: FamilyPlan, alice: User, bob: User) -> None:
    response = as_person(support).post(
        url(Membership, "transfer", Membership.objects.get(user=bob).pk), follow=True
    )

    assert dict(plan.memberships.values_list("user__email", "role")) == {
        "alice@example.com": "MEMBER",
        "bob@example.com": "OWNER",
    }
    assert told(response) == [f"Made user {bob.pk} the owner."]


def test_an_empty_plan_is_closed(support: User, carol: User) -> None:
    plan = OwnerFactory(user=carol).family_plan

    response = as_person(support).post(url(FamilyPlan, "close", plan.pk), follow=True)

    plan.refresh_from_db()
    assert plan.closed_at is not None
    assert told(response) == ["Closed the plan."]
    assert "Close plan</a>" not in response.content.decode()


def test_a_plan_with_members_is_not_closed(support: User, plan: FamilyPlan) -> None:
    before = everything()

    page = as_person(support).post(url(FamilyPlan, "close", plan.pk))

    assert told(page) == ["This plan still has members."]
    assert everything() == before


# --- Journeys: link, unlink ---------------------------------------------------------------------


def test_a_zammad_user_is_linked_by_hand_and_unlinked_for_good(
    superuser: User, zammad_user: ZammadUser, carol: User
) -> None:
    client = as_person(superuser)
    asked = client.get(url(ZammadUser, "link", zammad_user.pk))
    assert 'data-ajax--url="/admin/autocomplete/"' in asked.content.decode()
    assert "carol@example.com" not in asked.content.decode()

    linked = client.post(url(ZammadUser, "link", zammad_user.pk), {"user": carol.pk}, follow=True)

    zammad_user.refresh_from_db()
    assert zammad_user.user == carol
    assert told(linked) == [f"Linked to user {carol.pk}."]

    unlinked = client.post(url(ZammadUser, "unlink", zammad_user.pk), follow=True)

    zammad_user.refresh_from_db()
    assert zammad_user.user_id is None
    assert not zammad_user.auto_link
    assert told(unlinked) == [f"Unlinked from user {carol.pk}."]
    assert LogEntry.objects.filter(object_id=str(zammad_user.pk), user=superuser).count() == 2


def test_a_person_who_is_linked_already_is_not_linked_again(
    superuser: User, zammad_user: ZammadUser, carol: User
) -> None:
    ZammadUserFactory(user=carol)
    before = everything()

    page = as_person(superuser).post(url(ZammadUser, "link", zammad_user.pk), {"user": carol.pk})

    assert told(page) == ["The person or the Zammad user is linked already."]
    assert everything() == before


def test_a_link_to_nobody_is_asked_again(superuser: User, zammad_user: ZammadUser) -> None:
    page = as_person(superuser).post(url(ZammadUser, "link", zammad_user.pk), {"user": "999999"})

    assert page.context["form"].errors == {
        "user": ["Select a valid choice. That choice is not one of the available choices."]
    }


def test_support_sees_zammad_users_but_links_none(
    support: User, zammad_user: ZammadUser, carol: User
) -> None:
    client = as_person(support)
    before = everything()

    assert "Link</a>" not in client.get(url(ZammadUser, "change", zammad_user.pk)).content.decode()
    for journey in ("link", "unlink"):
        response = client.post(url(ZammadUser, journey, zammad_user.pk), {"user": carol.pk})
        assert response.status_code == 403
    assert everything() == before


# --- Every journey ------------------------------------------------------------------------------


def every_journey(plan: FamilyPlan, zammad_user: ZammadUser) -> list[str]:
    """Return the URL of each journey on any admin page, for a row on which it exists."""
    rows: dict[Any, Any] = {
        FamilyPlan: plan,
        Membership: plan.memberships.get(role="MEMBER"),
        FamilyPlanInvite: InviteFactory(family_plan=plan),
        ZammadUser: zammad_user,
    }
    addresses = [
        url(model, journey.name, rows[model].pk)
        for model, model_admin in admin.site._registry.items()
        for journey in getattr(model_admin, "journeys", ())
    ]
    assert len(addresses) == 8
    return addresses


def test_asking_for_a_journey_changes_nothing(
    superuser: User, plan: FamilyPlan, zammad_user: ZammadUser
) -> None:
    client = as_person(superuser)
    addresses = every_journey(plan, zammad_user)
    before = everything()

    for address in addresses:
        assert client.get(address).status_code == 200
        assert client.head(address).status_code == 200
    assert everything() == before


def test_no_journey_starts_without_its_right(
    clerk: User, plan: FamilyPlan, zammad_user: ZammadUser, carol: User
) -> None:
    reading = Permission.objects.filter(
        codename__startswith="view_", content_type__app_label__in=["plans", "zammad"]
    )
    clerk.user_permissions.add(*reading)
    client = as_person(clerk)
    addresses = [*every_journey(plan, zammad_user), url(FamilyPlan, "add")]
    before = everything()

    for address in addresses:
        data = {"user": carol.pk, "name": "New", "owner_email": "carol@example.com"}
        assert client.post(address, data).status_code == 403, address
        assert client.get(address).status_code == 403, address
    assert everything() == before


def test_no_journey_starts_without_the_pages_csrf_token(
    superuser: User, plan: FamilyPlan, zammad_user: ZammadUser
) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(superuser)
    addresses = [*every_journey(plan, zammad_user), url(FamilyPlan, "add")]
    before = everything()

    for address in addresses:
        assert client.post(address).status_code == 403, address
    assert everything() == before


def test_a_journey_for_a_row_that_is_gone_says_so(superuser: User) -> None:
    response = as_person(superuser).post(url(Membership, "detach", 999999), follow=True)

    assert told(response) == ["There is no such membership."]


def test_a_right_that_is_withdrawn_meanwhile_is_told(
    support: User, plan: FamilyPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    invite_admin: Any = admin.site.get_model_admin(FamilyPlanInvite)
    read = invite_admin.get_object
    invite = InviteFactory(family_plan=plan)

    def read_then_withdraw(request: Any, object_id: str) -> FamilyPlanInvite:
        found: FamilyPlanInvite = read(request, object_id)
        support.groups.clear()
        support.user_permissions.add(Permission.objects.get(codename="view_familyplan"))
        request.user = User.objects.get(pk=support.pk)
        return found

    monkeypatch.setattr(invite_admin, "get_object", read_then_withdraw)
    page = as_person(support).post(url(FamilyPlanInvite, "revoke", invite.pk))

    assert told(page) == ["You may not do this."]
    invite.refresh_from_db()
    assert invite.expires_at > timezone.now()


# --- No way around the services -----------------------------------------------------------------


def test_no_form_of_django_writes_what_services_write(
    superuser: User, plan: FamilyPlan, zammad_user: ZammadUser
) -> None:
    PlanEvent.objects.create(family_plan=plan, kind="PLAN_CREATED")
    WebhookDelivery.objects.create(body_digest="0" * 64, outcome="APPLIED", zammad_user=zammad_user)
    client = as_person(superuser)
    before = everything()
    tried = 0

    for model in TABLES:
        if not admin.site.is_registered(model):
            continue
        row = model.objects.first()
        data = {key: value for key, value in model_to_dict(row).items() if value is not None}
        data |= {"post": "yes", "action": "delete_selected", "_selected_action": row.pk, "index": "0"}
        assert client.post(url(model, "delete", row.pk), data).status_code == 403
        client.post(url(model, "changelist"), data)
        if model is not FamilyPlan:  # journeys appear in these places
            assert client.post(url(model, "add"), data).status_code == 403
            assert client.post(url(model, "change", row.pk), data).status_code == 403
        tried += 1

    assert tried == 5  # events have no page of their own
    assert everything() == before


def test_rows_smuggled_into_a_plans_form_are_not_read(superuser: User, plan: FamilyPlan, carol: User) -> None:
    alice_seat, bob_seat = plan.memberships.owner_first()
    data = {
        "name": "The Archers",
        "user_limit": "",
        "closed_at": "2026-01-01",
        "memberships-TOTAL_FORMS": "3",
        "memberships-INITIAL_FORMS": "2",
        "memberships-0-id": str(alice_seat.pk),
        "memberships-0-role": "MEMBER",
        "memberships-1-id": str(bob_seat.pk),
        "memberships-1-DELETE": "on",
        "memberships-2-user": str(carol.pk),
        "memberships-2-role": "OWNER",
        "memberships-2-family_plan": str(plan.pk),
    }
    before = everything()

    response = as_person(superuser).post(url(FamilyPlan, "change", plan.pk), data)

    assert response.status_code == 302
    assert everything() == before
