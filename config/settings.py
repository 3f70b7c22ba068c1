"""All settings of the project: the environment in, Django's names out."""

import os
import re
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from django.core.exceptions import ImproperlyConfigured
from django.utils.translation import gettext_lazy as _
from environs import Env, EnvValidationError, validate

BASE_DIR = Path(__file__).resolve().parent.parent
A_PORT = validate.Range(min=1, max=65535)
LOOPBACK = {"127.0.0.1", "::1", "localhost"}

env = Env(eager=False)  # what cannot be read is collected, and refused at the end of this module
# What the environment already says wins over the file. ENV_FILE= (empty) reads none.
if env_file := env.str("ENV_FILE", str(BASE_DIR / ".env")):
    env.read_env(env_file, recurse=False)


def off_loopback_in_clear(url: str) -> bool:
    """Tell whether a URL would carry secrets over a network without encryption."""
    parts = urlsplit(url)
    return parts.scheme != "https" and parts.hostname not in LOOPBACK


def secrets_in(name: str) -> list[str]:
    """Read the secrets that a rotation lists: the present one first."""
    return [secret for secret in env.list(name, [], subcast=str.strip) if secret]


# --- Who we are ------------------------------------------------------------------------
# Off unless somebody says so: the Makefile does, for development and tests.
DEBUG = env.bool("DEBUG", False)
HOST = env.str("HOST", "127.0.0.1")
PORT = env.int("PORT", 8000, validate=A_PORT)
# Requests that one process of the production server answers at a time.
WEB_THREADS = env.int("WEB_THREADS", 16, validate=validate.Range(min=1))
# Every link we hand out starts with PUBLIC_URL, never with the host of a request.
PUBLIC_URL = env.str("PUBLIC_URL", f"http://127.0.0.1:{PORT}").rstrip("/")
PUBLIC_HOST = urlsplit(PUBLIC_URL).hostname or ""
HTTPS = PUBLIC_URL.startswith("https://")
# A front end's page for invite links, with {token} in it; empty: our own page.
INVITE_URL = env.str("INVITE_URL", "")

DEVELOPMENT_SECRET_KEY = "insecure-development-key-that-no-production-start-accepts"  # noqa: S105
SECRET_KEY = env.str("SECRET_KEY", DEVELOPMENT_SECRET_KEY if DEBUG else "")
# Keys of before, which are still read during a rotation.
SECRET_KEY_FALLBACKS = secrets_in("SECRET_KEY_FALLBACKS")
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", [PUBLIC_HOST])
if DEBUG:
    # Whoever lets a development server listen widely opens it by names that we cannot know.
    ALLOWED_HOSTS += ["127.0.0.1", "localhost", "[::1]"] if HOST in LOOPBACK else ["*"]

# --- Zammad ----------------------------------------------------------------------------
# Without ZAMMAD_URL, development talks to the stand-in that `make run` starts.
SANDBOX_PORT = env.int("SANDBOX_PORT", 8001, validate=A_PORT)
USES_SANDBOX = DEBUG and not env.str("ZAMMAD_URL", "")
ZAMMAD_URL = f"http://127.0.0.1:{SANDBOX_PORT}" if USES_SANDBOX else env.str("ZAMMAD_URL", "").rstrip("/")
ZAMMAD_API_TOKEN = env.str("ZAMMAD_API_TOKEN", "") or ("sandbox-api-token" if USES_SANDBOX else "")
ZAMMAD_TOKEN_PREFIX = env.str("ZAMMAD_TOKEN_PREFIX", "family-plan-invite")
# The first secret is the one to install in Zammad; the others are accepted during a rotation.
ZAMMAD_WEBHOOK_SECRETS = secrets_in("ZAMMAD_WEBHOOK_SECRETS")
DEMO_WEBHOOK_SECRET = "demo-webhook-secret"  # noqa: S105  # public, so for a loopback address only
if DEBUG and HOST in LOOPBACK and not ZAMMAD_WEBHOOK_SECRETS:
    ZAMMAD_WEBHOOK_SECRETS = [DEMO_WEBHOOK_SECRET]
ZAMMAD_WEBHOOK_MAX_BYTES = env.int("ZAMMAD_WEBHOOK_MAX_BYTES", 16 * 1024 * 1024)  # it sends up to 9 MB
ZAMMAD_CONNECT_TIMEOUT = 2.0  # seconds
ZAMMAD_DEADLINE = 8.0  # seconds, for everything that one operation asks of Zammad
ZAMMAD_COMMAND_DEADLINE = 60.0  # the same for commands, which ask for long lists

# --- GraphQL ---------------------------------------------------------------------------
GRAPHQL_MAX_DEPTH = env.int("GRAPHQL_MAX_DEPTH", 10)
GRAPHQL_MAX_ALIASES = env.int("GRAPHQL_MAX_ALIASES", 15)
GRAPHQL_MAX_TOKENS = env.int("GRAPHQL_MAX_TOKENS", 1000)
GRAPHQL_MAX_DIRECTIVES = env.int("GRAPHQL_MAX_DIRECTIVES", 50)
GRAPHQL_MAX_COST = env.int("GRAPHQL_MAX_COST", 25_000)
GRAPHQL_MAX_BYTES = env.int("GRAPHQL_MAX_BYTES", 100 * 1024)

# --- Applications ----------------------------------------------------------------------
INSTALLED_APPS = [
    "config.apps.FamilyPlansConfig",
    "plans",
    "zammad",
    "graphql_api",
    "constance",
    "strawberry_django",
    "allauth",
    "allauth.account",
    "allauth.headless",
    "allauth.mfa",
    "config.apps.FamilyPlansAdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
]

MIDDLEWARE = [
    "config.middleware.RequestMiddleware",
    "config.policies.PolicyMiddleware",
    "config.answers.AnswersMiddleware",
    "config.middleware.StatementMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "config.answers.BodyMiddleware",
    "config.middleware.ProbeMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "config.cookies.FormerSessionCookieMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "config.way_back.WayBackMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "allauth.account.middleware.AccountMiddleware",
]

ROOT_URLCONF = "config.urls"

TEMPLATES_DIR = env.str("TEMPLATES_DIR", "")
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        # What stands in the operator's own directory wins over every template of ours.
        "DIRS": [*([TEMPLATES_DIR] if TEMPLATES_DIR else []), BASE_DIR / "config" / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

# --- Data ------------------------------------------------------------------------------
default_database = f"sqlite:///{BASE_DIR / 'db.sqlite3'}"
database = env.dj_db_url("DATABASE_URL", default_database, conn_max_age=None, conn_health_checks=True)
database = database or {"ENGINE": ""}
if database["ENGINE"] == "django.db.backends.sqlite3":
    if database["NAME"] != ":memory:":
        # sqlite:///name means beside manage.py, from wherever a command is run.
        database["NAME"] = str(BASE_DIR / database["NAME"])
    # IMMEDIATE takes the write lock at BEGIN: what serialises atomic() where
    # select_for_update is a no-op.
    database["OPTIONS"] = {
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,  # seconds to wait for the write lock
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
    }
if database["ENGINE"] == "django.db.backends.postgresql":
    database["ENGINE"] = "config.postgresql"
    # What a connection asks again and again is parsed and planned once.
    prepared = {"server_side_binding": True, "prepare_threshold": 5}
    database["OPTIONS"] = {**prepared, **database.get("OPTIONS", {})}
DATABASES = {"default": database}
# What a statement of a request may take on PostgreSQL; commands and migrations take what they need.
DATABASE_STATEMENT_SECONDS = env.float("DATABASE_STATEMENT_SECONDS", 10.0, validate=validate.Range(min=0.1))
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# Without Redis files, which the processes of a machine share.
default_cache = "locmem://family-plans" if DEBUG else f"file://{BASE_DIR / '.cache'}"
cache = env.dj_cache_url("CACHE_URL", default_cache) or {"BACKEND": ""}
if cache["BACKEND"].endswith("RedisCache"):
    # In seconds: whoever signs in waits for it, and so does /readyz.
    cache.setdefault("OPTIONS", {}).update(socket_connect_timeout=2, socket_timeout=2)
CACHES = {"default": cache}

# --- Accounts --------------------------------------------------------------------------
AUTHENTICATION_BACKENDS = ["config.accounts.AccountBackend"]
PASSWORD_HASHERS = [f"config.passwords.{name}" for name in ("PBKDF2", "PBKDF2SHA1", "Scrypt")]
# Where processes agree on who hashes a password; only this user may write there.
LOCKS_DIR = env.str("LOCKS_DIR", f"{tempfile.gettempdir()}/family-plans-{os.getuid()}")
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]
SESSION_ENGINE = "config.sessions"
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "home"

ACCOUNT_ADAPTER = "config.adapter.AccountAdapter"
ACCOUNT_USER_DISPLAY = "plans.models.display_name"
ACCOUNT_USER_MODEL_USERNAME_FIELD = None  # allauth neither asks for user names nor shows them
ACCOUNT_LOGIN_METHODS = {"email"}
ACCOUNT_SIGNUP_FIELDS = ["email*", "password1*", "password2*"]
ACCOUNT_EMAIL_VERIFICATION = "mandatory"
# By code, never by a link: a link would verify a stranger's sign-up with one click of the
# address's owner, and loses the way back to the invite.
ACCOUNT_EMAIL_VERIFICATION_BY_CODE_ENABLED = True
ACCOUNT_EMAIL_VERIFICATION_SUPPORTS_RESEND = True
ACCOUNT_PASSWORD_RESET_BY_CODE_ENABLED = True
# What changes how one signs in asks again where the sign-in is older than five minutes, and is mailed.
ACCOUNT_REAUTHENTICATION_REQUIRED = True
ACCOUNT_EMAIL_NOTIFICATIONS = True
MFA_ADAPTER = "config.second_factor.SecondFactorAdapter"
MFA_TOTP_ISSUER = "Family Plans"  # else the host of the request, which anybody chooses
MFA_TOTP_TOLERANCE = 1  # steps of 30 seconds that a phone's clock may be off
REQUIRE_MFA_FOR_STAFF = env.bool("REQUIRE_MFA_FOR_STAFF", False)
ACCOUNT_EMAIL_SUBJECT_PREFIX = ""
ACCOUNT_LOGOUT_REDIRECT_URL = "account_login"
ACCOUNT_DEFAULT_HTTP_PROTOCOL = "https" if HTTPS else "http"
LOGIN_RATE_PER_IP = env.str("LOGIN_RATE_PER_IP", "300/m" if DEBUG else "30/m")
ACCOUNT_RATE_LIMITS = {
    "login": f"{LOGIN_RATE_PER_IP}/ip",
    # Codes of a second factor for one account. Passwords have counters of their own: config.attempts.
    "login_failed": "5/5m/key,50/d/key",
    # A stolen session must not serve to try passwords for days.
    "change_password": "5/m/user,50/d/user",
    # config.account_mail counts the codes that are mailed.
    "confirm_email": "",
}
HEADLESS_CLIENTS = ("app",)
HEADLESS_TOKEN_STRATEGY = "config.accounts.SessionTokens"  # noqa: S105  # a name

TRUSTED_PROXY_COUNT = env.int("TRUSTED_PROXY_COUNT", 0)
ALLAUTH_TRUSTED_PROXY_COUNT = TRUSTED_PROXY_COUNT

# --- Mail ------------------------------------------------------------------------------
EMAIL = env.dj_email_url("EMAIL_URL", "console:" if DEBUG else "smtp://localhost:25")
EMAIL_BACKEND = EMAIL.get("EMAIL_BACKEND", "")
EMAIL_HOST = EMAIL["EMAIL_HOST"]
EMAIL_PORT = EMAIL["EMAIL_PORT"]
EMAIL_HOST_USER = EMAIL["EMAIL_HOST_USER"]
EMAIL_HOST_PASSWORD = EMAIL["EMAIL_HOST_PASSWORD"]
EMAIL_USE_TLS = EMAIL["EMAIL_USE_TLS"]
EMAIL_USE_SSL = EMAIL["EMAIL_USE_SSL"]
EMAIL_FILE_PATH = EMAIL["EMAIL_FILE_PATH"]
EMAIL_TIMEOUT = 5  # seconds
DEFAULT_FROM_EMAIL = env.str("DEFAULT_FROM_EMAIL", f"Family Plans <no-reply@{PUBLIC_HOST}>")
SERVER_EMAIL = DEFAULT_FROM_EMAIL

# --- The HTTP edge ---------------------------------------------------------------------
CSRF_TRUSTED_ORIGINS = [PUBLIC_URL]
# __Host-: browsers take such a cookie from this very host alone, over https, and for no other.
COOKIE_PREFIX = "__Host-" if HTTPS else ""
SESSION_COOKIE_NAME = f"{COOKIE_PREFIX}sessionid"
CSRF_COOKIE_NAME = f"{COOKIE_PREFIX}csrftoken"
MESSAGES_COOKIE_NAME = f"{COOKIE_PREFIX}messages"
WAY_BACK_COOKIE_NAME = f"{COOKIE_PREFIX}way-back"
DEVICE_COOKIE_NAME = f"{COOKIE_PREFIX}device"
MESSAGE_STORAGE = "config.cookies.Messages"
CSRF_COOKIE_SECURE = SESSION_COOKIE_SECURE = HTTPS
# An invite's token stands in its path: no other site may see it in a Referer. Not
# no-referrer: browsers then send `Origin: null` with a form, and CSRF refuses the button.
SECURE_REFERRER_POLICY = "strict-origin"
# Only a proxy that we trust tells whether a request came by https; without, we would redirect for ever.
SECURE_SSL_REDIRECT = HTTPS and TRUSTED_PROXY_COUNT > 0
# Zammad follows no redirect; a load balancer asks without TLS.
SECURE_REDIRECT_EXEMPT = [r"^webhooks/", r"^(healthz|readyz|metrics)$"]
SECURE_HSTS_SECONDS = env.int("HSTS_SECONDS", 31_536_000 if HTTPS else 0)
SECURE_HSTS_INCLUDE_SUBDOMAINS = env.bool("HSTS_INCLUDE_SUBDOMAINS", False)
SECURE_HSTS_PRELOAD = env.bool("HSTS_PRELOAD", False)
SILENCED_SYSTEM_CHECKS = [
    "security.W008",  # the redirect to https follows TRUSTED_PROXY_COUNT
    "security.W005",  # HSTS for all subdomains is the company's decision: HSTS_INCLUDE_SUBDOMAINS
    "security.W021",  # so is the preload list of browsers: HSTS_PRELOAD
]
if TRUSTED_PROXY_COUNT:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
# Bodies: config.bodies says which path has which cap. Django's own limit never bites before ours.
PAGE_MAX_BYTES = 1024 * 1024
DATA_UPLOAD_MAX_MEMORY_SIZE = max(PAGE_MAX_BYTES, GRAPHQL_MAX_BYTES)
# All that are read or worked on at a time, over all processes of the server.
BODIES_MAX_BYTES = env.int("BODIES_MAX_BYTES", 256 * 1024 * 1024)
# A body is given up that is slower than this over any such time, and whatever its pace after BODY_SECONDS.
BODY_BYTES_PER_SECOND = env.int("BODY_BYTES_PER_SECOND", 10_000)
BODY_WINDOW_SECONDS = env.float("BODY_WINDOW_SECONDS", 10.0)
BODY_SECONDS = env.float("BODY_SECONDS", 60.0)

STATIC_URL = "static/"
STATIC_ROOT = BASE_DIR / "staticfiles"
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"
        if DEBUG
        else "whitenoise.storage.CompressedManifestStaticFilesStorage"
    },
}
WHITENOISE_USE_FINDERS = DEBUG

TIME_ZONE = "UTC"
# A request chooses among them by Accept-Language; LANGUAGE_CODE is for those that want none of them.
LANGUAGES = [("en", "English"), ("de", "Deutsch")]
LANGUAGE_CODE = env.str("LANGUAGE_CODE", "en")
# What wins over the words of others: allauth's German says du, and ours Sie.
LOCALE_PATHS = [BASE_DIR / "config" / "allauth_locale"]

# --- What operators see ----------------------------------------------------------------
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"()": "config.logs.LineFormatter", "as_json": not DEBUG}},
    "filters": {
        "raised": {"()": "django.utils.log.CallbackFilter", "callback": lambda record: bool(record.exc_info)}
    },
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": "INFO"},
    "loggers": {
        # One handler for all: a mask that one logger escapes is none.
        "django": {"level": "INFO"},
        # Only what was raised: any other answer stands in the request's own line, with its status.
        "django.request": {"filters": ["raised"]},
        "django.server": {"level": "ERROR", "propagate": True},
        "uvicorn": {"level": "WARNING"},
        # Whoever scans the internet sends such things; they are answered 400, and no errors of ours.
        **{
            f"django.security.{odd}": {"level": "CRITICAL"}
            for odd in ("DisallowedHost", "RequestDataTooBig", "TooManyFieldsSent")
        },
    },
}
# Whoever brings it reads /metrics; empty: there is no such page.
METRICS_TOKEN = env.str("METRICS_TOKEN", "")
# Where the processes of one server share their counts.
METRICS_DIR = env.str("METRICS_DIR", str(BASE_DIR / ".metrics" / str(PORT)))
SENTRY_DSN = env.str("SENTRY_DSN", "")

# --- Run-time settings, tuned by staff in admin ----------------------------------------
CONSTANCE_BACKEND = "constance.backends.database.DatabaseBackend"
CONSTANCE_DATABASE_CACHE_BACKEND = None  # a rollback would leave a cache wrong for a day
CONSTANCE_SUPERUSER_ONLY = False
CONSTANCE_ADDITIONAL_FIELDS = {
    "user_limit": ["django.forms.IntegerField", {"min_value": 1, "max_value": 100}],
    "invite_ttl_hours": ["django.forms.IntegerField", {"min_value": 1, "max_value": 720}],
    "invites_per_day": ["django.forms.IntegerField", {"min_value": 0, "max_value": 10_000}],
    "plans_per_day": ["django.forms.IntegerField", {"min_value": 1, "max_value": 100}],
    "page": ["plans.settings.PageField", {"max_length": 2000}],
}
CONSTANCE_CONFIG = {
    "USER_LIMIT": (
        5,
        _(
            "People in one plan, including the main subscriber (1 to 100). Plans with a limit of "
            "their own keep it. Lowering it removes nobody."
        ),
        "user_limit",
    ),
    "INVITES_ENABLED": (
        True,
        _("Whether invites can be created and reissued. Open invites can be accepted either way."),
        bool,
    ),
    "INVITE_TTL_HOURS": (
        48,
        _("Hours until an invite expires (1 to 720). An invite keeps the expiry it was created with."),
        "invite_ttl_hours",
    ),
    "INVITES_PER_DAY": (
        20,
        _(
            "Invites that may be created and reissued within 24 hours: by one plan, and by one owner "
            "over all their plans (0 to 10000). Staff who act for an owner use up the plan's alone."
        ),
        "invites_per_day",
    ),
    "INVITE_ACCEPTED_URL": (
        "/invites/accepted/",
        _("Where a person is sent after accepting: a path of ours or an http(s) URL."),
        "page",
    ),
    "SELF_SERVICE_PLANS": (
        False,
        _("Whether everybody may create a plan of their own. Off: staff with the right create plans."),
        bool,
    ),
    "PLANS_PER_DAY": (
        3,
        _("Plans that one person may create for themselves within 24 hours (1 to 100)."),
        "plans_per_day",
    ),
    "MEMBERSHIP_MAILS": (
        True,
        _(
            "Whether the owner of a plan and the person concerned are mailed when somebody joins or "
            "leaves it. A transfer of the ownership is always mailed."
        ),
        bool,
    ),
}
CONSTANCE_CONFIG_FIELDSETS = (
    (_("Seats"), ("USER_LIMIT",)),
    (_("Invites"), ("INVITES_ENABLED", "INVITE_TTL_HOURS", "INVITES_PER_DAY", "INVITE_ACCEPTED_URL")),
    (_("Plans"), ("SELF_SERVICE_PLANS", "PLANS_PER_DAY", "MEMBERSHIP_MAILS")),
)

STRAWBERRY_DJANGO = {
    "MUTATIONS_DEFAULT_HANDLE_ERRORS": True,
    "FIELD_DESCRIPTION_FROM_HELP_TEXT": False,
}

# --- What no start accepts -------------------------------------------------------------
problems = []
try:
    env.seal()
except EnvValidationError as error:
    problems += [f"Set {name} to a value of its kind, see .env.example." for name in error.error_messages]
if not PUBLIC_URL.startswith(("http://", "https://")) or not PUBLIC_HOST:
    problems.append("Set PUBLIC_URL to an address that begins with https:// or http://.")
if not EMAIL_BACKEND:
    problems.append("Set EMAIL_URL to an address such as smtp+tls://user:password@host:587.")
if not re.fullmatch(r"\d{1,4}/\d*[smhd]", LOGIN_RATE_PER_IP):
    problems.append("Set LOGIN_RATE_PER_IP to a number and a time, such as 30/m.")
if USES_SANDBOX and PORT == SANDBOX_PORT:
    problems.append("Set SANDBOX_PORT to another port than PORT.")
if LANGUAGE_CODE not in dict(LANGUAGES):
    problems.append(f"Set LANGUAGE_CODE to one of {', '.join(dict(LANGUAGES))}.")
if METRICS_TOKEN and len(METRICS_TOKEN) < 16:
    problems.append("Set METRICS_TOKEN to at least 16 characters, or leave it empty: then nobody reads them.")
if SENTRY_DSN and (not urlsplit(SENTRY_DSN).username or off_loopback_in_clear(SENTRY_DSN)):
    problems.append("Set SENTRY_DSN to the https:// address that Sentry shows, with the key in it.")
# What no production server starts with, also when DEBUG is on: config.wsgi holds that.
UNFIT_FOR_PRODUCTION = []
if len(SECRET_KEY) < 50 or len(set(SECRET_KEY)) < 5 or SECRET_KEY == DEVELOPMENT_SECRET_KEY:
    UNFIT_FOR_PRODUCTION.append("Set SECRET_KEY to at least 50 random characters.")
if any(len(key) < 50 or key == DEVELOPMENT_SECRET_KEY for key in SECRET_KEY_FALLBACKS):
    UNFIT_FOR_PRODUCTION.append(
        "Set SECRET_KEY_FALLBACKS to earlier values of SECRET_KEY, or leave it empty."
    )
if off_loopback_in_clear(PUBLIC_URL):
    UNFIT_FOR_PRODUCTION.append("Set PUBLIC_URL to the https:// address that people open.")
if USES_SANDBOX or not ZAMMAD_URL:
    UNFIT_FOR_PRODUCTION.append("Set ZAMMAD_URL to the https:// address of your Zammad.")
elif off_loopback_in_clear(ZAMMAD_URL):
    UNFIT_FOR_PRODUCTION.append("Set ZAMMAD_URL to an https:// address: its token would travel in clear.")
if len(ZAMMAD_API_TOKEN) < 16:
    UNFIT_FOR_PRODUCTION.append("Set ZAMMAD_API_TOKEN to a personal access token made in Zammad.")
if not ZAMMAD_WEBHOOK_SECRETS or min(map(len, ZAMMAD_WEBHOOK_SECRETS)) < 16:
    UNFIT_FOR_PRODUCTION.append("Set ZAMMAD_WEBHOOK_SECRETS to secrets of at least 16 characters each.")
if DEMO_WEBHOOK_SECRET in ZAMMAD_WEBHOOK_SECRETS:
    UNFIT_FOR_PRODUCTION.append("Set ZAMMAD_WEBHOOK_SECRETS to something other than the demo's secret.")
if not DEBUG:
    problems += UNFIT_FOR_PRODUCTION
if TEMPLATES_DIR and not (Path(TEMPLATES_DIR).is_absolute() and Path(TEMPLATES_DIR).is_dir()):
    problems.append("Set TEMPLATES_DIR to the full path of a directory, or leave it empty.")
if INVITE_URL and "{token}" not in INVITE_URL:
    problems.append("Set INVITE_URL to an address with {token} in it, or leave it empty.")
if problems:
    if not DEBUG:
        problems.append(
            "DEBUG is off unless the environment says DEBUG=true, as `make run` does for development."
        )
    raise ImproperlyConfigured(" ".join(problems))
