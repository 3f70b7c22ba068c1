"""Admin's one door, what stands above its index, and how it shows people: never by user name."""

from contextlib import nullcontext
from typing import Any

from allauth.account.admin import EmailAddressAdmin as AllauthEmailAddressAdmin
from allauth.account.decorators import secure_admin_login
from allauth.account.models import EmailAddress
from django import forms
from django.contrib import admin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.forms import AdminUserCreationForm
from django.contrib.auth.models import User
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from config.accounts import opaque_username
from config.passwords import place_to_hash
from plans.admin.dashboard import figures
from zammad.addresses import validated_address
from zammad.admin import ShallowPaginator

# Admin signs in where everybody does, so that one limit guards one door.
admin.site.login = secure_admin_login(admin.site.login)  # type: ignore[method-assign]


site_index = admin.site.index


def index(request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
    """Show the index with the figures that this person may see."""
    return site_index(request, {"figures": figures(request), **(extra_context or {})})


admin.site.index = index  # type: ignore[method-assign,assignment]
admin.site.index_template = "admin/plans/index.html"


def address_of(user: User) -> str:
    return user.email or f"User {user.pk}"


# Admin writes str(user) in every list, title and history; Django's is the user name.
User.__str__ = address_of  # type: ignore[method-assign,assignment]

admin.site.unregister([User, EmailAddress])


class UserCreationForm(AdminUserCreationForm):  # type: ignore[type-arg]
    """Make an account for an address that nobody has yet. Its person verifies it by signing in."""

    email = forms.EmailField(label=_("Email"))

    class Meta:
        model = User
        fields = ("email",)

    def clean_email(self) -> str:
        email: str = self.cleaned_data["email"].lower()
        validated_address(email)
        if (
            User.objects.filter(email__iexact=email).exists()
            or EmailAddress.objects.filter(email=email).exists()
        ):
            raise forms.ValidationError(_("There is an account with this address already."))
        return email

    def save(self, commit: bool = True) -> User:
        self.instance.username = opaque_username()
        user: User = super().save(commit)
        return user


@admin.register(User)
class UserAdmin(DjangoUserAdmin):  # type: ignore[type-arg]
    """Find people by address and name, and tell what they may do."""

    list_display = ("email", "first_name", "last_name", "is_active", "is_staff", "is_superuser")
    search_fields = ("email__istartswith", "first_name__istartswith", "last_name__istartswith")
    search_help_text = _("The start of an address, a first or a last name.")
    ordering = ("-pk",)
    # The table grows for ever: nothing counts, sorts or sums up all of it.
    paginator = ShallowPaginator
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    sortable_by = ()
    add_form = UserCreationForm
    add_fieldsets = ((None, {"fields": ("email", "usable_password", "password1", "password2")}),)
    fieldsets = (
        (None, {"fields": ("email", "password", "first_name", "last_name")}),
        (
            _("What this person may do"),
            {"fields": ("is_active", "is_staff", "is_superuser", "groups", "user_permissions")},
        ),
        (_("Dates"), {"fields": ("last_login", "date_joined")}),
    )
    readonly_fields = ("last_login", "date_joined")

    def get_readonly_fields(self, request: HttpRequest, obj: User | None = None) -> tuple[str, ...]:
        # An address counts once its person has verified it: nobody else changes it.
        return (*super().get_readonly_fields(request, obj), *(["email"] if obj else []))

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> tuple[Any, Any, Any, Any]:
        deleted, counts, missing_rights, protected = super().get_deleted_objects(objs, request)
        # Who holds a seat is detached first, whatever rights there are: say that, and nothing else.
        return deleted, counts, set() if protected else missing_rights, protected

    def add_view(self, request: HttpRequest, *arguments: Any, **named: Any) -> HttpResponse:
        # Django hashes the password in a transaction, and nobody waits for a place in one.
        with place_to_hash() if request.method == "POST" else nullcontext():
            return super().add_view(request, *arguments, **named)

    def user_change_password(self, request: HttpRequest, id: str, form_url: str = "") -> HttpResponse:  # noqa: A002
        response = super().user_change_password(request, id, form_url)
        if isinstance(response, TemplateResponse) and response.context_data is not None:
            user = response.context_data["original"]
            response.context_data["title"] = gettext("Password of %(user)s") % {"user": user}
            user.get_username = user.__str__  # the page tells it to password managers
        return response


class EmailAddressForm(forms.ModelForm):  # type: ignore[type-arg]
    """Hold a new address to what sign-up takes; one from before stays."""

    def clean_email(self) -> str:
        email: str = self.cleaned_data["email"]
        if "email" in self.changed_data:
            validated_address(email)
        return email


@admin.register(EmailAddress)
class EmailAddressAdmin(AllauthEmailAddressAdmin):  # type: ignore[misc]  # allauth has no types
    """Find addresses by their start; allauth's own page counts and sorts all of them."""

    form = EmailAddressForm
    list_filter = ()
    list_select_related = ("user",)
    search_help_text = _("The start of an address.")
    ordering = ("-pk",)
    paginator = ShallowPaginator
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    sortable_by = ()

    def get_search_fields(self, request: HttpRequest) -> tuple[str, ...]:
        return ("email__startswith",)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[EmailAddress], search_term: str
    ) -> tuple[QuerySet[EmailAddress], bool]:
        # As allauth keeps them.
        return super().get_search_results(request, queryset, search_term.lower())  # type: ignore[no-any-return]
