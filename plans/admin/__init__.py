"""The admin of plans: its pages, and the services that staff start there."""

from plans.admin import invites, plans, settings_page, zammad_users  # noqa: F401  # they register themselves
