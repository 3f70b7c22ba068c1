from django.db import migrations

RIGHTS = [
    ("plans", "familyplan", "view", "Can view family plan"),
    ("plans", "familyplan", "change", "Can change family plan"),
    ("plans", "familyplan", "add", "Can add family plan"),
    ("zammad", "zammaduser", "view", "Can view Zammad user"),
]


def create_support(apps, schema_editor):
    """Create the group with its rights. Django makes permissions only after all migrations, so these here."""
    alias = schema_editor.connection.alias
    content_types = apps.get_model("contenttypes", "ContentType").objects.using(alias)
    permissions = apps.get_model("auth", "Permission").objects.using(alias)
    support, _ = apps.get_model("auth", "Group").objects.using(alias).get_or_create(name="Support")
    for app_label, model, action, name in RIGHTS:
        content_type, _ = content_types.get_or_create(app_label=app_label, model=model)
        permission, _ = permissions.get_or_create(
            content_type=content_type, codename=f"{action}_{model}", defaults={"name": name}
        )
        support.permissions.add(permission)


class Migration(migrations.Migration):
    dependencies = [
        ("plans", "0001_initial"),
        ("zammad", "0001_initial"),
        ("auth", "0012_alter_user_first_name_max_length"),
        ("contenttypes", "0002_remove_content_type_name"),
    ]

    # Backwards the group stays: people may be in it.
    operations = [migrations.RunPython(create_support, migrations.RunPython.noop)]
