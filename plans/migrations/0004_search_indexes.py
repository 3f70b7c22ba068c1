from django.db import migrations

INDEXES = {"plans_by_name": "plans_familyplan (upper(name::text) text_pattern_ops)"}


def create(apps, schema_editor):
    """Index what admin searches for by how it starts. SQLite is for few enough to read them all."""
    if schema_editor.connection.vendor == "postgresql":
        for name, place in INDEXES.items():
            schema_editor.execute(f"CREATE INDEX {name} ON {place}")


def drop(apps, schema_editor):
    if schema_editor.connection.vendor == "postgresql":
        for name in INDEXES:
            schema_editor.execute(f"DROP INDEX {name}")


class Migration(migrations.Migration):
    dependencies = [("plans", "0003_settings_history")]

    operations = [migrations.RunPython(create, drop)]
