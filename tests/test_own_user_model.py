"""A company installs plans and zammad in its own project, whose user model has no user name."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

from tests.deliveries import SECRET, signed

BASE_DIR = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((BASE_DIR / "pyproject.toml").read_text())
WARNINGS = PYPROJECT["tool"]["pytest"]["ini_options"]["filterwarnings"]

PEOPLE = """
from django.contrib.auth.models import AbstractUser, UserManager
from django.db import models


class Manager(UserManager):
    def create_user(self, email, password=None, **fields):
        person = self.model(email=email, **fields)
        person.set_password(password)
        person.save()
        return person


class Person(AbstractUser):
    username = None
    email = models.EmailField(unique=True)
    USERNAME_FIELD = "email"
    REQUIRED_FIELDS = []
    objects = Manager()
"""

START = """
import os

import django

os.environ["DJANGO_SETTINGS_MODULE"] = "company_settings"
django.setup()
"""

JOURNEY = """
from allauth.account.models import EmailAddress
from django.contrib import admin
from django.core.management import call_command

from people.models import Person
from plans import services
from plans.models import FamilyPlan, Membership
from plans.views import InviteView
from zammad.models import ZammadUser
from zammad.sandbox import Sandbox

call_command("makemigrations", "people", verbosity=0)
call_command("check", fail_level="WARNING")
call_command("migrate", verbosity=0)
call_command("makemigrations", "plans", "zammad", check=True, dry_run=True)


def person(email, **fields):
    made = Person.objects.create_user(email, "correct-horse-battery", **fields)
    EmailAddress.objects.create(user=made, email=email, verified=True, primary=True)
    return made


staff = person("staff@company.example", is_superuser=True)
alice = person("alice@company.example", first_name="Alice")
bob = person("bob@company.example")
plan = services.create_plan(actor=staff, name="Ours", owner_email=alice.email)

with Sandbox(port=0) as sandbox:
    from django.conf import settings

    settings.ZAMMAD_URL = sandbox.url
    issued = services.create_invite(actor=alice, plan_id=plan.pk, email=bob.email)
services.accept_invite(actor=bob, token=issued.token)

seats = Membership.objects.filter(family_plan=plan).owner_first()
pages = [model.__name__ for model in admin.site._registry if model._meta.app_label in {"plans", "zammad"}]
print(type(admin.site._wrapped).__name__, sorted(pages))
print([(str(seat), seat.user.email) for seat in seats])
print(FamilyPlan.objects.of_zammad_user(57).count())
"""

DELIVERY = """
import sys

from django.core.management import call_command
from django.test import Client

from people.models import Person
from zammad.models import ZammadUser

call_command("makemigrations", "people", verbosity=0)
call_command("migrate", verbosity=0)

body = sys.stdin.buffer.read()
headers = {"X-Hub-Signature": sys.argv[1]}
response = Client(headers=headers).post("/webhooks/zammad/", body, content_type="application/json")
print(response.status_code, response.content, ZammadUser.objects.count())
"""

SETTINGS = """
from django.utils.translation import gettext_lazy as _

SECRET_KEY = "for one test"
PUBLIC_URL = "http://127.0.0.1:8000"
INVITE_URL = ""
ROOT_URLCONF = "company_urls"
AUTH_USER_MODEL = "people.Person"
INSTALLED_APPS = [
    "people", "plans", "zammad", "constance", "allauth", "allauth.account",
    "django.contrib.admin", "django.contrib.auth", "django.contrib.contenttypes",
    "django.contrib.sessions", "django.contrib.messages",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "allauth.account.middleware.AccountMiddleware",
]
TEMPLATES = [{
    "BACKEND": "django.template.backends.django.DjangoTemplates",
    "APP_DIRS": True,
    "OPTIONS": {"context_processors": [
        "django.template.context_processors.request",
        "django.contrib.auth.context_processors.auth",
        "django.contrib.messages.context_processors.messages",
    ]},
}]
DATABASES = {"default": {
    "ENGINE": "django.db.backends.sqlite3", "NAME": "company.sqlite3",
    "OPTIONS": {"transaction_mode": "IMMEDIATE"},
}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
STATIC_URL = "static/"
EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
ACCOUNT_USER_MODEL_USERNAME_FIELD = None
ACCOUNT_LOGIN_METHODS = {"email"}
ACCOUNT_SIGNUP_FIELDS = ["email*", "password1*", "password2*"]
ZAMMAD_URL = ""
WEB_THREADS = 16
ZAMMAD_API_TOKEN = "sandbox-api-token"
ZAMMAD_TOKEN_PREFIX = "family-plan-invite"
ZAMMAD_WEBHOOK_SECRETS = []
ZAMMAD_WEBHOOK_MAX_BYTES = 1048576
ZAMMAD_CONNECT_TIMEOUT = 2.0
ZAMMAD_DEADLINE = 8.0
ZAMMAD_COMMAND_DEADLINE = 60.0
"""

URLS = """
from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("invites/", include("plans.urls")),
    path("webhooks/", include("zammad.urls")),
    path("accounts/", include("allauth.account.urls")),
    path("admin/", admin.site.urls),
]
"""


def constance_settings() -> str:
    """Return our run-time settings, as the company would copy them from config/settings.py."""
    text = (BASE_DIR / "config" / "settings.py").read_text()
    return text[text.index("CONSTANCE_BACKEND") : text.index("STRAWBERRY_DJANGO")]


def run_in_own_project(
    folder: Path, script: str, *arguments: str, settings: str = "", stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    """Write a project with its own people, and run a script in it; `settings` come last."""
    (folder / "people" / "migrations").mkdir(parents=True)
    for name, text in {
        "people/__init__.py": "",
        "people/models.py": PEOPLE,
        "people/migrations/__init__.py": "",
        "company_settings.py": SETTINGS + constance_settings() + settings,
        "company_urls.py": URLS,
        "script.py": START + script,
    }.items():
        (folder / name).write_text(text)
    return subprocess.run(
        [sys.executable, *(f"-W{rule}" for rule in WARNINGS), "script.py", *arguments],
        cwd=folder,
        env={"PATH": os.defpath, "PYTHONPATH": f"{folder}{os.pathsep}{BASE_DIR}"},
        input=stdin,
        capture_output=True,
        timeout=120,
        check=False,
    )


def test_plans_and_zammad_work_with_a_user_model_that_has_no_user_name(tmp_path: Path) -> None:
    result = run_in_own_project(tmp_path, JOURNEY)

    # then both people have their seats, the migrations fit, and Django's own admin has our pages
    assert result.returncode == 0, result.stderr.decode()
    assert result.stdout.decode().splitlines()[-3:] == [
        (
            "AdminSite ['FamilyPlan', 'FamilyPlanInvite', 'FamilyPlanSettings', 'Membership', "
            "'RefusedDelivery', 'WebhookDelivery', 'ZammadUser']"
        ),
        "[('Alice (Owner)', 'alice@company.example'), ('bob (Member)', 'bob@company.example')]",
        "0",
    ]


def test_the_webhook_works_where_views_need_a_sign_in_and_run_in_transactions(tmp_path: Path) -> None:
    settings = f"""
MIDDLEWARE.append("django.contrib.auth.middleware.LoginRequiredMiddleware")
DATABASES["default"]["ATOMIC_REQUESTS"] = True
ALLOWED_HOSTS = ["testserver"]
ZAMMAD_WEBHOOK_SECRETS = ["{SECRET}"]
"""
    body = (BASE_DIR / "tests" / "samples" / "ticket_create.json").read_bytes()

    result = run_in_own_project(tmp_path, DELIVERY, signed(body), settings=settings, stdin=body)

    assert result.returncode == 0, result.stderr.decode()
    assert result.stdout.decode() == "200 b'APPLIED\\n' 1\n"


def test_settings_that_are_not_kept_in_the_database_are_refused(tmp_path: Path) -> None:
    result = run_in_own_project(
        tmp_path,
        'from django.core.management import call_command; call_command("check")',
        settings='CONSTANCE_BACKEND = "constance.backends.memory.MemoryBackend"',
    )

    assert result.returncode == 1
    assert b"(plans.E001) plans reads its settings from the database, not from constance" in result.stderr
    assert b'HINT: Set CONSTANCE_BACKEND = "constance.backends.database.DatabaseBackend".' in result.stderr
