from django.db import migrations

INDEXES = {
    "people_by_address": "auth_user (upper(email::text) text_pattern_ops)",
    "people_by_first_name": "auth_user (upper(first_name::text) text_pattern_ops)",
    "people_by_last_name": "auth_user (upper(last_name::text) text_pattern_ops)",
    "people_of_staff": "auth_user (id) WHERE is_staff",
    "superusers": "auth_user (id) WHERE is_superuser",
    "inactive_people": "auth_user (id) WHERE NOT is_active",
}


def create(apps, schema_editor):
    """Index what admin searches for and filters by. SQLite is for few enough to read them all."""
    if schema_editor.connection.vendor == "postgresql":
        for name, place in INDEXES.items():
            schema_editor.execute(f"CREATE INDEX {name} ON {place}")


def drop(apps, schema_editor):
    if schema_editor.connection.vendor == "postgresql":
        for name in INDEXES:
            schema_editor.execute(f"DROP INDEX {name}")


class Migration(migrations.Migration):
    dependencies = [("auth", "0012_alter_user_first_name_max_length")]

    operations = [migrations.RunPython(create, drop)]
