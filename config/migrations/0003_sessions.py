import datetime

import django.db.models.deletion
import django.utils.timezone
from django.conf import settings
from django.contrib.sessions.serializers import JSONSerializer
from django.core import signing
from django.db import migrations, models

BATCH = 1000
SALT = "django.contrib.sessions.SessionStore"  # what Django signs sessions with


def carry_over(apps, schema_editor):
    """Copy the living sessions, so that nobody is signed out; the version before still reads its own."""
    Former, Session = apps.get_model("sessions", "Session"), apps.get_model("config", "Session")
    User = apps.get_model(settings.AUTH_USER_MODEL)
    now = django.utils.timezone.now()

    def write(batch):
        people = User._base_manager.filter(pk__in={each.user_id for each in batch if each.user_id is not None})
        known = set(people.values_list("pk", flat=True))
        Session.objects.bulk_create(
            [each for each in batch if each.user_id is None or each.user_id in known], ignore_conflicts=True
        )

    batch = []
    for former in Former.objects.filter(expire_date__gt=now).iterator(chunk_size=BATCH):
        try:
            data = signing.loads(former.session_data, salt=SALT, serializer=JSONSerializer)
            user_id = data.get("_auth_user_id")
            signed_in = user_id is not None and "_auth_user_backend" in data
            records = data.get("account_authentication_methods") or [{}]
            at = records[0].get("at")
            created_at = datetime.datetime.fromtimestamp(at, datetime.timezone.utc) if at else now
            batch.append(
                Session(
                    session_key=former.session_key,
                    session_data=former.session_data,
                    expire_date=former.expire_date,
                    user_id=User._meta.pk.to_python(user_id) if signed_in else None,
                    auth_hash=data.get("_auth_user_hash", "") if signed_in else "",
                    created_at=created_at,
                    last_used_at=created_at,
                    was_carried_over=True,
                )
            )
        except Exception:
            continue  # signed with another key, or never readable: nobody is signed in by it
        if len(batch) == BATCH:
            write(batch)
            batch = []
    write(batch)


class Migration(migrations.Migration):
    dependencies = [
        ("config", "0002_attempts"),
        ("sessions", "0001_initial"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="Session",
            fields=[
                (
                    "session_key",
                    models.CharField(
                        max_length=40, primary_key=True, serialize=False, verbose_name="session key"
                    ),
                ),
                ("session_data", models.TextField(verbose_name="session data")),
                ("expire_date", models.DateTimeField(db_index=True, verbose_name="expire date")),
                ("auth_hash", models.CharField(default="", max_length=128)),
                ("client", models.CharField(default="", max_length=200)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now)),
                ("last_used_at", models.DateTimeField(default=django.utils.timezone.now)),
                ("was_carried_over", models.BooleanField(db_default=False, default=False)),
                (
                    "user",
                    models.ForeignKey(
                        null=True, on_delete=django.db.models.deletion.CASCADE, to=settings.AUTH_USER_MODEL
                    ),
                ),
            ],
            options={"verbose_name": "session", "verbose_name_plural": "sessions", "abstract": False},
        ),
        migrations.RunPython(carry_over, migrations.RunPython.noop),
    ]
