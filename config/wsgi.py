"""The WSGI application that the production server loads."""

import os

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

# With DEBUG on, settings have defaults for a demo, which everybody outside knows, too.
if settings.UNFIT_FOR_PRODUCTION:
    raise ImproperlyConfigured(" ".join(settings.UNFIT_FOR_PRODUCTION))

application = get_wsgi_application()
