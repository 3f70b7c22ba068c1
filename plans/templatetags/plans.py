"""How the pages name people."""

from django import template

from plans.models import display_name

register = template.Library()
register.filter("display_name", display_name)
