"""The project's settings: read the environment, and define what Django and its apps need."""

import os
import re
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from django.core.exceptions import ImproperlyConfigured
from django.utils.translation import gettext_lazy as _
from environs import Env, EnvValidationError, validate

BASE_DIR = Path(__file__).resolve().parent.parent
PORT_RANGE = validate.Range(min=1, max=65535)
LOOPBACK = {"127.0.0.1", "::1", "localhost"}

env = Env(eager=False)  # collects invalid values; the end of this module reports them all
# The environment wins over the file. ENV_FILE= (empty) reads no file.
if env_file := env.str("ENV_FILE", str(BASE_DIR / ".env")):
    env.read_env(env_file, recurse=False)


def is_insecure(url: str) -> bool:
    """Return whether a URL would send secrets over a network unencrypted."""
    parts = urlsplit(url)
    return parts.scheme != "https" and parts.hostname not in LOOPBACK


def secret_list(name: str) -> list[str]:
    """Read a comma-separated list of secrets, the current one first."""
    return [secret for secret in env.list(name, [], subcast=str.strip) if secret]


# --- Who we are ------------------------------------------------------------------------
# Off by default; the Makefile turns it on for development and tests.
DEBUG = env.bool("DEBUG", False)
HOST = env.str("HOST", "127.0.0.1")
PORT = env.int("PORT", 8000, validate=PORT_RANGE)
# Requests that one server process handles concurrently.
WEB_THREADS = env.int("WEB_THREADS", 16, validate=validate.Range(min=1))
# All links start with PUBLIC_URL, never with the Host header of a request.
PUBLIC_URL = env.str("PUBLIC_URL", f"http://127.0.0.1:{PORT}").rstrip("/")
PUBLIC_HOST = urlsplit(PUBLIC_URL).hostname or ""
HTTPS = PUBLIC_URL.startswith("https://")
# A front end's page for invite links, containing {token}; empty for the built-in page.
INVITE_URL = env.str("INVITE_URL", "")

DEVELOPMENT_SECRET_KEY = "insecure-development-key-that-no-production-start-accepts"  # noqa: S105
SECRET_KEY = env.str("SECRET_KEY", DEVELOPMENT_SECRET_KEY if DEBUG else "")
# Former keys, still accepted during a rotation.
SECRET_KEY_FALLBACKS = secret_list("SECRET_KEY_FALLBACKS")
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", [PUBLIC_HOST])
if DEBUG:
    # A development server that listens beyond loopback is reached by host names we cannot know.
    ALLOWED_HOSTS += ["127.0.0.1", "localhost", "[::1]"] if HOST in LOOPBACK else ["*"]

# --- Zammad ----------------------------------------------------------------------------
# Without ZAMMAD_URL, development uses the sandbox that `make run` starts.
SANDBOX_PORT = env.int("SANDBOX_PORT", 8001, validate=PORT_RANGE)
USES_SANDBOX = DEBUG and not env.str("ZAMMAD_URL", "")
ZAMMAD_URL = f"http://127.0.0.1:{SANDBOX_PORT}" if USES_SANDBOX else env.str("ZAMMAD_URL", "").rstrip("/")
ZAMMAD_API_TOKEN = env.str("ZAMMAD_API_TOKEN", "") or ("sandbox-api-token" if USES_SANDBOX else "")
ZAMMAD_TOKEN_PREFIX = env.str("ZAMMAD_TOKEN_PREFIX", "family-plan-invite")
# The first secret is installed in Zammad; the others are accepted during a rotation.
ZAMMAD_WEBHOOK_SECRETS = secret_list("ZAMMAD_WEBHOOK_SECRETS")
DEMO_WEBHOOK_SECRET = "demo-webhook-secret"  # noqa: S105  # public, so only for loopback
if DEBUG and HOST in LOOPBACK and not ZAMMAD_WEBHOOK_SECRETS:
    ZAMMAD_WEBHOOK_SECRETS = [DEMO_WEBHOOK_SECRET]
ZAMMAD_WEBHOOK_MAX_BYTES = env.int("ZAMMAD_WEBHOOK_MAX_BYTES", 16 * 1024 * 1024)  # Zammad sends up to 9 MB
ZAMMAD_CONNECT_TIMEOUT = 2.0  # seconds
ZAMMAD_DEADLINE = 8.0  # seconds, for all Zammad requests of one operation
ZAMMAD_COMMAND_DEADLINE = 60.0  # the same for commands, which fetch long lists

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
        # The operator's templates override ours.
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
        # sqlite:///name is relative to manage.py, wherever a command is run.
        database["NAME"] = str(BASE_DIR / database["NAME"])
    # IMMEDIATE takes the write lock at BEGIN, which serialises atomic() where select_for_update is a no-op.
    database["OPTIONS"] = {
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,  # seconds to wait for the write lock
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
    }
if database["ENGINE"] == "django.db.backends.postgresql":
    database["ENGINE"] = "config.postgresql"
    # Repeated queries become prepared statements.
    prepared = {"server_side_binding": True, "prepare_threshold": 5}
    database["OPTIONS"] = {**prepared, **database.get("OPTIONS", {})}
DATABASES = {"default": database}
# The time limit of each statement in a request, on PostgreSQL; commands and migrations have none.
DATABASE_STATEMENT_SECONDS = env.float("DATABASE_STATEMENT_SECONDS", 10.0, validate=validate.Range(min=0.1))
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# Without Redis, the processes of a machine share files.
default_cache = "locmem://family-plans" if DEBUG else f"file://{BASE_DIR / '.cache'}"
cache = env.dj_cache_url("CACHE_URL", default_cache) or {"BACKEND": ""}
if cache["BACKEND"].endswith("RedisCache"):
    # In seconds: sign-ins and /readyz wait for it.
    cache.setdefault("OPTIONS", {}).update(socket_connect_timeout=2, socket_timeout=2)
CACHES = {"default": cache}

# --- Accounts --------------------------------------------------------------------------
AUTHENTICATION_BACKENDS = ["config.accounts.AccountBackend"]
PASSWORD_HASHERS = [f"config.passwords.{name}" for name in ("PBKDF2", "PBKDF2SHA1", "Scrypt")]
# Lock files that limit concurrent password hashing; only this user may write there.
LOCKS_DIR = env.str("LOCKS_DIR", f"{tempfile.gettempdir()}/family-plans-{os.getuid()}")
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}Validator"}
    for name in ("UserAttributeSimilarity", "MinimumLength", "CommonPassword", "NumericPassword")
]
SESSION_ENGINE = "config.sessions"
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "home"

ACCOUNT_ADAPTER = "config.adapter.AccountAdapter"
ACCOUNT_USER_DISPLAY = "plans.models.display_name"
ACCOUNT_USER_MODEL_USERNAME_FIELD = None  # no user names in forms or pages
ACCOUNT_LOGIN_METHODS = {"email"}
ACCOUNT_SIGNUP_FIELDS = ["email*", "password1*", "password2*"]
ACCOUNT_EMAIL_VERIFICATION = "mandatory"
# By code, never by link: one click by the owner of an address would verify a stranger's sign-up, and a
# link loses the way back to the invite.
ACCOUNT_EMAIL_VERIFICATION_BY_CODE_ENABLED = True
ACCOUNT_EMAIL_VERIFICATION_SUPPORTS_RESEND = True
ACCOUNT_PASSWORD_RESET_BY_CODE_ENABLED = True
# Changes to how you sign in need a sign-in within the last five minutes, and are announced by mail.
ACCOUNT_REAUTHENTICATION_REQUIRED = True
ACCOUNT_EMAIL_NOTIFICATIONS = True
MFA_ADAPTER = "config.second_factor.SecondFactorAdapter"
MFA_TOTP_ISSUER = "Family Plans"  # the default is the Host header, which a client can forge
MFA_TOTP_TOLERANCE = 1  # a phone's clock may be off by one step of 30 seconds
REQUIRE_MFA_FOR_STAFF = env.bool("REQUIRE_MFA_FOR_STAFF", False)
ACCOUNT_EMAIL_SUBJECT_PREFIX = ""
ACCOUNT_LOGOUT_REDIRECT_URL = "account_login"
ACCOUNT_DEFAULT_HTTP_PROTOCOL = "https" if HTTPS else "http"
LOGIN_RATE_PER_IP = env.str("LOGIN_RATE_PER_IP", "300/m" if DEBUG else "30/m")
ACCOUNT_RATE_LIMITS = {
    "login": f"{LOGIN_RATE_PER_IP}/ip",
    "login_failed": "5/5m/key,50/d/key",  # wrong codes of a second factor; for passwords see config.attempts
    "change_password": "5/m/user,50/d/user",  # a stolen session must not allow days of guessing
    "confirm_email": "",  # config.account_mail limits mailed codes
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
# Browsers accept a __Host- cookie only over https and only for the host that sets it.
COOKIE_PREFIX = "__Host-" if HTTPS else ""
SESSION_COOKIE_NAME = f"{COOKIE_PREFIX}sessionid"
CSRF_COOKIE_NAME = f"{COOKIE_PREFIX}csrftoken"
MESSAGES_COOKIE_NAME = f"{COOKIE_PREFIX}messages"
WAY_BACK_COOKIE_NAME = f"{COOKIE_PREFIX}way-back"
DEVICE_COOKIE_NAME = f"{COOKIE_PREFIX}device"
MESSAGE_STORAGE = "config.cookies.Messages"
CSRF_COOKIE_SECURE = SESSION_COOKIE_SECURE = HTTPS
# The path of an invite page contains its token, which other sites must not see in a Referer. With
# no-referrer, browsers would send `Origin: null` with forms, which Django's CSRF check rejects.
SECURE_REFERRER_POLICY = "strict-origin"
# Only a trusted proxy says whether a request came by https; without one, we would redirect forever.
SECURE_SSL_REDIRECT = HTTPS and TRUSTED_PROXY_COUNT > 0
# Zammad does not follow redirects; load balancers probe without TLS.
SECURE_REDIRECT_EXEMPT = [r"^webhooks/", r"^(healthz|readyz|metrics)$"]
SECURE_HSTS_SECONDS = env.int("HSTS_SECONDS", 31_536_000 if HTTPS else 0)
SECURE_HSTS_INCLUDE_SUBDOMAINS = env.bool("HSTS_INCLUDE_SUBDOMAINS", False)
SECURE_HSTS_PRELOAD = env.bool("HSTS_PRELOAD", False)
SILENCED_SYSTEM_CHECKS = [
    "security.W008",  # the redirect to https depends on TRUSTED_PROXY_COUNT
    "security.W005",  # HSTS for subdomains is the operator's decision: HSTS_INCLUDE_SUBDOMAINS
    "security.W021",  # so is the browsers' preload list: HSTS_PRELOAD
]
if TRUSTED_PROXY_COUNT:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
# config.bodies has the limit of each path. Django's own limit must not be lower than ours.
PAGE_MAX_BYTES = 1024 * 1024
DATA_UPLOAD_MAX_MEMORY_SIZE = max(PAGE_MAX_BYTES, GRAPHQL_MAX_BYTES)
# The total size of all request bodies that the server's processes hold at a time.
BODIES_MAX_BYTES = env.int("BODIES_MAX_BYTES", 256 * 1024 * 1024)
# A body is refused if it is slower than this in any window, or takes longer than BODY_SECONDS.
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
# Accept-Language chooses among these; LANGUAGE_CODE is the fallback.
LANGUAGES = [("en", "English"), ("de", "Deutsch")]
LANGUAGE_CODE = env.str("LANGUAGE_CODE", "en")
# Overrides the translations of other packages: allauth's German says "du", ours says "Sie".
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
        # Only the root has a handler, so that every line is masked.
        "django": {"level": "INFO"},
        # Only exceptions: the request's own log line has the status of every other response.
        "django.request": {"filters": ["raised"]},
        "django.server": {"level": "ERROR", "propagate": True},
        "uvicorn": {"level": "WARNING"},
        # Scanners cause these; they are answered 400, and are not errors of ours.
        **{
            f"django.security.{name}": {"level": "CRITICAL"}
            for name in ("DisallowedHost", "RequestDataTooBig", "TooManyFieldsSent")
        },
    },
}
# The bearer token for /metrics; empty disables the page.
METRICS_TOKEN = env.str("METRICS_TOKEN", "")
# Where the processes of one server share their metrics.
METRICS_DIR = env.str("METRICS_DIR", str(BASE_DIR / ".metrics" / str(PORT)))
SENTRY_DSN = env.str("SENTRY_DSN", "")

# --- Run-time settings, tuned by staff in admin ----------------------------------------
CONSTANCE_BACKEND = "constance.backends.database.DatabaseBackend"
CONSTANCE_DATABASE_CACHE_BACKEND = None  # after a rollback, a cache would be wrong for a day
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
            "Maximum number of people in a plan, including the main subscriber (1 to 100). Plans with their "
            "own limit keep it. Lowering the limit removes nobody."
        ),
        "user_limit",
    ),
    "INVITES_ENABLED": (
        True,
        _("Allow people to create and reissue invites. Open invites can be accepted in any case."),
        bool,
    ),
    "INVITE_TTL_HOURS": (
        48,
        _("Hours until a new invite expires (1 to 720). Existing invites keep their expiry."),
        "invite_ttl_hours",
    ),
    "INVITES_PER_DAY": (
        20,
        _(
            "Maximum number of invites created and reissued within 24 hours, per plan and per owner across "
            "all their plans (0 to 10000). Invites by staff count only toward the plan's limit."
        ),
        "invites_per_day",
    ),
    "INVITE_ACCEPTED_URL": (
        "/invites/accepted/",
        _("The page to open after an invite is accepted: a path on this site or an http(s) URL."),
        "page",
    ),
    "SELF_SERVICE_PLANS": (
        False,
        _("Allow everyone to create their own plan. If off, only staff with permission can create plans."),
        bool,
    ),
    "PLANS_PER_DAY": (
        3,
        _("Maximum number of plans that one person can create for themselves within 24 hours (1 to 100)."),
        "plans_per_day",
    ),
    "MEMBERSHIP_MAILS": (
        True,
        _(
            "Email the plan's owner and the person concerned when someone joins or leaves a plan. "
            "Ownership transfers are always emailed."
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

# --- Validation ------------------------------------------------------------------------
problems = []
try:
    env.seal()
except EnvValidationError as error:
    problems += [f"Set {name} to a valid value, see .env.example." for name in error.error_messages]
if not PUBLIC_URL.startswith(("http://", "https://")) or not PUBLIC_HOST:
    problems.append("Set PUBLIC_URL to a URL that begins with https:// or http://.")
if not EMAIL_BACKEND:
    problems.append("Set EMAIL_URL to a URL such as smtp+tls://user:password@host:587.")
if not re.fullmatch(r"\d{1,4}/\d*[smhd]", LOGIN_RATE_PER_IP):
    problems.append("Set LOGIN_RATE_PER_IP to a rate such as 30/m.")
if USES_SANDBOX and PORT == SANDBOX_PORT:
    problems.append("Set SANDBOX_PORT to a port other than PORT.")
if LANGUAGE_CODE not in dict(LANGUAGES):
    problems.append(f"Set LANGUAGE_CODE to one of {', '.join(dict(LANGUAGES))}.")
if METRICS_TOKEN and len(METRICS_TOKEN) < 16:
    problems.append("Set METRICS_TOKEN to at least 16 characters, or leave it empty to disable /metrics.")
if SENTRY_DSN and (not urlsplit(SENTRY_DSN).username or is_insecure(SENTRY_DSN)):
    problems.append("Set SENTRY_DSN to the https:// URL that Sentry shows, which includes the key.")
# What prevents a production server from starting, even with DEBUG on: config.wsgi checks it.
UNFIT_FOR_PRODUCTION = []
if len(SECRET_KEY) < 50 or len(set(SECRET_KEY)) < 5 or SECRET_KEY == DEVELOPMENT_SECRET_KEY:
    UNFIT_FOR_PRODUCTION.append("Set SECRET_KEY to at least 50 random characters.")
if any(len(key) < 50 or key == DEVELOPMENT_SECRET_KEY for key in SECRET_KEY_FALLBACKS):
    UNFIT_FOR_PRODUCTION.append("Set SECRET_KEY_FALLBACKS to former values of SECRET_KEY, or leave it empty.")
if is_insecure(PUBLIC_URL):
    UNFIT_FOR_PRODUCTION.append("Set PUBLIC_URL to the https:// URL that people open.")
if USES_SANDBOX or not ZAMMAD_URL:
    UNFIT_FOR_PRODUCTION.append("Set ZAMMAD_URL to the https:// URL of your Zammad.")
elif is_insecure(ZAMMAD_URL):
    UNFIT_FOR_PRODUCTION.append("Set ZAMMAD_URL to an https:// URL, or its token is sent unencrypted.")
if len(ZAMMAD_API_TOKEN) < 16:
    UNFIT_FOR_PRODUCTION.append("Set ZAMMAD_API_TOKEN to a personal access token created in Zammad.")
if not ZAMMAD_WEBHOOK_SECRETS or min(map(len, ZAMMAD_WEBHOOK_SECRETS)) < 16:
    UNFIT_FOR_PRODUCTION.append("Set ZAMMAD_WEBHOOK_SECRETS to secrets of at least 16 characters each.")
if DEMO_WEBHOOK_SECRET in ZAMMAD_WEBHOOK_SECRETS:
    UNFIT_FOR_PRODUCTION.append("Set ZAMMAD_WEBHOOK_SECRETS to secrets other than the demo's.")
if not DEBUG:
    problems += UNFIT_FOR_PRODUCTION
if TEMPLATES_DIR and not (Path(TEMPLATES_DIR).is_absolute() and Path(TEMPLATES_DIR).is_dir()):
    problems.append("Set TEMPLATES_DIR to the full path of a directory, or leave it empty.")
if INVITE_URL and "{token}" not in INVITE_URL:
    problems.append("Set INVITE_URL to a URL that contains {token}, or leave it empty.")
if problems:
    if not DEBUG:
        problems.append("DEBUG is off unless the environment says DEBUG=true, as `make run` does.")
    raise ImproperlyConfigured(" ".join(problems))
