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
        _ = settings.INSTALLED_APPS  # report invalid settings before anything else can fail
        execute_from_command_line(sys.argv)
    except ImproperlyConfigured as error:
        sys.exit(f"Family Plans cannot start. {error}")  # without a traceback
