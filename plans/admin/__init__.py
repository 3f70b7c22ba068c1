"""What staff see of plans in the admin, and the journeys they may start there."""

from plans.admin import invites, plans, settings_page, zammad_users  # noqa: F401  # they register themselves
