"""Admin pages for people, groups and addresses; user names are never shown."""

from contextlib import nullcontext
from typing import Any

from allauth.account.admin import EmailAddressAdmin as AllauthEmailAddressAdmin
from allauth.account.models import EmailAddress
from allauth.mfa import admin as _second_factors  # noqa: F401  # it registers the page that is removed below
from allauth.mfa.models import Authenticator
from django import forms
from django.contrib import admin, messages
from django.contrib.admin.utils import flatten_fieldsets, unquote
from django.contrib.auth.admin import GroupAdmin as DjangoGroupAdmin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.forms import AdminUserCreationForm
from django.contrib.auth.models import Group, User
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.db.models.constants import LOOKUP_SEP
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from config.accounts import has_account, opaque_username
from config.models import Session
from config.passwords import place_to_hash
from config.rights import NAMES, WrittenBySuperusers, may_change, may_change_access
from config.second_factor import reset_second_factor
from zammad.addresses import validated_address
from zammad.admin_base import ShallowAdmin


def address_of(user: User) -> str:
    return user.email or f"User {user.pk}"


# Admin shows str(user) in lists, titles and histories; Django's is the user name.
User.__str__ = address_of  # type: ignore[method-assign,assignment]

# The page of a second factor would show its secrets.
admin.site.unregister([User, Group, EmailAddress, Authenticator])


class UserCreationForm(AdminUserCreationForm):  # type: ignore[type-arg]
    """Create an account for an address without one; its owner verifies the address by signing in."""

    email = forms.EmailField(label=_("Email"))

    class Meta:
        model = User
        fields = ("email",)

    def clean_email(self) -> str:
        email: str = self.cleaned_data["email"].lower()
        validated_address(email)
        if has_account(email):
            raise forms.ValidationError(_("An account with this address already exists."))
        return email

    def save(self, commit: bool = True) -> User:
        self.instance.username = opaque_username()
        user: User = super().save(commit)
        return user


@admin.register(User)
class UserAdmin(WrittenBySuperusers, ShallowAdmin, DjangoUserAdmin):  # type: ignore[type-arg]
    list_display = ("email", "first_name", "last_name", "is_active", "is_staff", "is_superuser")
    search_fields = ("email__istartswith", "first_name__istartswith", "last_name__istartswith")
    search_help_text = _("Search by the start of an address, first name or last name.")
    get_search_results = admin.ModelAdmin.get_search_results  # by each word, such as of a full name
    add_form = UserCreationForm
    add_fieldsets = ((None, {"fields": ("email", "usable_password", "password1", "password2")}),)
    fieldsets = (
        (None, {"fields": ("email", "password", "first_name", "last_name")}),
        (
            _("Permissions"),
            {"fields": ("is_active", "is_staff", "is_superuser", "groups", "user_permissions")},
        ),
        (_("Dates"), {"fields": ("last_login", "date_joined")}),
    )
    readonly_fields = ("last_login", "date_joined")
    actions = ("reset_second_factor",)

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest | None = None) -> bool:
        # Django also allows reverse relations: filtering people by the start of a session's key would
        # reveal the key letter by letter.
        name = lookup.split(LOOKUP_SEP)[0]
        allowed = {"pk", "groups"}.union(
            *({field.name, field.attname} for field in self.opts.concrete_fields)
        )
        return name in allowed and super().lookup_allowed(lookup, value, request)  # type: ignore[arg-type]

    def has_add_permission(self, request: HttpRequest, *args: Any) -> bool:
        return request.user.has_perm("auth.add_user")

    def has_change_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        allowed = request.user.has_perm("auth.change_user")
        return allowed and (obj is None or may_change(request.user, obj))

    def get_fieldsets(self, request: HttpRequest, obj: User | None = None) -> Any:
        fieldsets = super().get_fieldsets(request, obj)
        if obj is None or may_change_access(request.user):
            return fieldsets
        (title, options), *rest = fieldsets
        fields = tuple(name for name in options["fields"] if name != "password")
        return ((title, {**options, "fields": fields}), *rest)

    def get_readonly_fields(self, request: HttpRequest, obj: User | None = None) -> tuple[str, ...]:
        if obj is None:
            return tuple(super().get_readonly_fields(request, obj))
        if not may_change_access(request.user):
            shown = flatten_fieldsets(self.get_fieldsets(request, obj))
            return tuple(str(name) for name in shown if name not in NAMES)
        # An address must be verified by its owner, so nobody else changes it.
        return (*super().get_readonly_fields(request, obj), "email")

    def save_model(self, request: HttpRequest, obj: User, form: Any, change: bool) -> None:
        if not change:
            super().save_model(request, obj, form, change)
            return
        # Only edited fields, so that a concurrent deactivation is kept.
        columns = {field.name for field in User._meta.concrete_fields}
        obj.save(update_fields=[name for name in form.changed_data if name in columns])

    @admin.action(description=_("Reset the second factor"))
    def reset_second_factor(self, request: HttpRequest, queryset: QuerySet[User]) -> None:
        for person in queryset:
            if reset_second_factor(person=person, actor=request.user):  # type: ignore[arg-type]
                text = gettext("Reset the second factor of %(person)s.") % {"person": person}
                self.message_user(request, text, messages.SUCCESS)
            else:
                text = gettext("%(person)s has no second factor.") % {"person": person}
                self.message_user(request, text, messages.WARNING)

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> tuple[Any, Any, Any, Any]:
        deleted, counts, missing_rights, protected = super().get_deleted_objects(objs, request)
        # If people must be detached first, show only that: missing rights do not matter yet.
        return deleted, counts, set() if protected else missing_rights, protected

    def add_view(self, request: HttpRequest, *arguments: Any, **named: Any) -> HttpResponse:
        # Django hashes the password in a transaction, in which a thread must not wait for a place.
        with place_to_hash() if request.method == "POST" else nullcontext():
            return super().add_view(request, *arguments, **named)

    def user_change_password(self, request: HttpRequest, id: str, form_url: str = "") -> HttpResponse:  # noqa: A002
        if not may_change_access(request.user):
            raise PermissionDenied
        response = super().user_change_password(request, id, form_url)
        if request.method == "POST" and not isinstance(response, TemplateResponse):
            Session.objects.filter(user_id=int(unquote(id))).exclude(pk=request.session.session_key).delete()
        if isinstance(response, TemplateResponse) and response.context_data is not None:
            user = response.context_data["original"]
            response.context_data["title"] = gettext("Password of %(user)s") % {"user": user}
            user.get_username = user.__str__  # for password managers
        return response


class EmailAddressForm(forms.ModelForm):  # type: ignore[type-arg]
    """Validate a changed address as sign-up does; an existing one may stay."""

    def clean_email(self) -> str:
        email: str = self.cleaned_data["email"]
        if "email" in self.changed_data:
            validated_address(email)
        return email


@admin.register(Group)
class GroupAdmin(WrittenBySuperusers, DjangoGroupAdmin):
    """The rights of a group."""


@admin.register(EmailAddress)
class EmailAddressAdmin(WrittenBySuperusers, ShallowAdmin, AllauthEmailAddressAdmin):  # type: ignore[misc]  # allauth has no types
    """Search addresses by their start; allauth's own page counts and sorts all of them."""

    form = EmailAddressForm
    list_filter = ()
    list_select_related = ("user",)
    search_help_text = _("Search by the start of an address.")

    def get_search_fields(self, request: HttpRequest) -> tuple[str, ...]:
        return ("email",)  # enables the search, in place of allauth's fields

    def find(self, rows: QuerySet[EmailAddress], term: str) -> QuerySet[EmailAddress]:
        return rows.filter(email__startswith=term.lower())  # allauth stores lower case
