"""The WSGI application, for production servers other than config.server."""

import os

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

# With DEBUG on, some settings have the demo's defaults, which are public.
if settings.UNFIT_FOR_PRODUCTION:
    raise ImproperlyConfigured(" ".join(settings.UNFIT_FOR_PRODUCTION))

application = get_wsgi_application()
