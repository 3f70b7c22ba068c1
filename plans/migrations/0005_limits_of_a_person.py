import datetime

from django.conf import settings
from django.db import migrations, models
from django.db.models import F, OuterRef, Subquery
from django.utils import timezone

ISSUING = ["INVITE_CREATED", "INVITE_REISSUED"]
MAKING_OWNERS = ["PLAN_CREATED", "OWNERSHIP_TRANSFERRED"]


def count_the_last_day(apps, schema_editor):
    """Mark what people did for themselves within the last day: older events count for nothing."""
    events = apps.get_model("plans", "PlanEvent").objects.using(schema_editor.connection.alias)
    recent = events.filter(at__gt=timezone.now() - datetime.timedelta(days=1))
    recent.filter(kind="PLAN_CREATED", actor=F("subject")).update(counts_for_actor=True)
    # The subject of the last such event before an invite was the plan's owner then.
    owners = events.filter(kind__in=MAKING_OWNERS, family_plan=OuterRef("family_plan"), at__lte=OuterRef("at"))
    owner = Subquery(owners.order_by("-at", "-pk").values("subject")[:1])
    issued = recent.filter(kind__in=ISSUING).annotate(owner=owner).filter(owner=F("actor"))
    recent.filter(pk__in=issued.values("pk")).update(counts_for_actor=True)


class Migration(migrations.Migration):
    dependencies = [
        ("plans", "0004_search_indexes"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.AddField(
            model_name="planevent",
            name="counts_for_actor",
            field=models.BooleanField(db_default=False, default=False, editable=False),
        ),
        migrations.AddIndex(
            model_name="planevent",
            index=models.Index(
                condition=models.Q(("counts_for_actor", True)),
                fields=["actor", "at"],
                name="events_counted_for_actor",
            ),
        ),
        migrations.RunPython(count_the_last_day, migrations.RunPython.noop),
    ]
