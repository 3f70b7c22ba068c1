from django.db import migrations


def create_content_type(apps, schema_editor):
    """Give the settings page, which has no model, what its history hangs on in the admin."""
    content_types = apps.get_model("contenttypes", "ContentType").objects.using(schema_editor.connection.alias)
    content_types.get_or_create(app_label="plans", model="config")


class Migration(migrations.Migration):
    dependencies = [
        ("plans", "0002_support_group"),
    ]

    # Backwards the content type stays: deleting it would tear the history from it.
    operations = [migrations.RunPython(create_content_type, migrations.RunPython.noop)]
