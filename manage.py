#!/usr/bin/env python
"""Run Django's command line for Family Plans."""

import os
import sys

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management import execute_from_command_line

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    try:
        _ = settings.INSTALLED_APPS  # refused settings are told before anything fails for want of them
        execute_from_command_line(sys.argv)
    except ImproperlyConfigured as error:
        sys.exit(f"This cannot start. {error}")  # sentences for whoever operates it, without a traceback
