import json

import django.db.models.deletion
import django.db.models.functions.datetime
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models


def fill(apps, schema_editor):
    """Tell links that staff made from automatic ones, without moving any, and when deliveries came last."""
    alias = schema_editor.connection.alias
    linked = apps.get_model("zammad", "ZammadUser").objects.using(alias).exclude(user=None)
    # Each row is written once: PostgreSQL checks the foreign key of a row written again only when the
    # transaction ends, and does not alter the table before.
    untold = linked.filter(link_kind="")
    untold.filter(auto_link=False).update(link_kind="HAND")
    entries = apps.get_model("admin", "LogEntry").objects.using(alias).filter(
        content_type__app_label="zammad",
        content_type__model="zammaduser",
        change_message__contains="Linked to user ",
    )
    for object_id, message in entries.values_list("object_id", "change_message").iterator():
        person = linked_person(message)
        if person is not None and str(object_id).isdecimal():
            untold.filter(pk=object_id, user=person).update(link_kind="HAND")
    untold.update(link_kind="AUTOMATIC")
    deliveries = apps.get_model("zammad", "WebhookDelivery").objects.using(alias)
    deliveries.update(last_received_at=models.F("received_at"))


def linked_person(message):
    """Read whom staff linked out of an entry of admin's history, as data or in the words it had at first."""
    if message.startswith("["):
        try:
            journey = json.loads(message)[0]["journey"]
        except (ValueError, LookupError, TypeError):
            return None
        return journey.get("id") if journey.get("done") == "Linked to user %(id)s." else None
    number = message.removeprefix("Linked to user ").removesuffix(".")
    return int(number) if number.isdecimal() else None


class Migration(migrations.Migration):

    dependencies = [
        ('zammad', '0002_search_indexes'),
        ('admin', '0003_logentry_add_action_flag_choices'),
        ('contenttypes', '0002_remove_content_type_name'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name='LinkChange',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('why', models.CharField(choices=[('MATCHES', 'This person has verified the address.'), ('NOBODY', 'No active person has verified the address.'), ('SEVERAL_PEOPLE', 'Several people have verified the address.'), ('SEVERAL_ZAMMAD_USERS', 'Several active Zammad users have an address of the person.'), ('INACTIVE', 'The user is not active in Zammad.'), ('PERSON_DELETED', 'The person was deleted.'), ('BY_HAND', 'Staff linked them.'), ('UNLINKED', 'Staff unlinked them.')], max_length=20)),
                ('at', models.DateTimeField(default=django.utils.timezone.now)),
            ],
            options={
                'verbose_name': 'link change',
                'verbose_name_plural': 'link changes',
            },
        ),
        migrations.RemoveConstraint(
            model_name='webhookdelivery',
            name='delivery_outcome_known',
        ),
        migrations.AddField(
            model_name='webhookdelivery',
            name='last_received_at',
            field=models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), default=django.utils.timezone.now, help_text='When the newest attempt arrived.', verbose_name='last received at'),
        ),
        migrations.AddField(
            model_name='zammaduser',
            name='link_kind',
            field=models.CharField(blank=True, choices=[('HAND', 'By hand'), ('AUTOMATIC', 'Automatic')], db_default='', default='', help_text='By hand: only staff create and change it. Automatic: it follows the address.', max_length=9, verbose_name='link kind'),
        ),
        migrations.AlterField(
            model_name='webhookdelivery',
            name='outcome',
            field=models.CharField(choices=[('APPLIED', 'Applied'), ('UNCHANGED', 'Unchanged'), ('STALE', 'Stale'), ('IGNORED', 'Ignored')], max_length=9, verbose_name='outcome'),
        ),
        migrations.RunPython(fill, migrations.RunPython.noop),
        migrations.AddIndex(
            model_name='webhookdelivery',
            index=models.Index(fields=['last_received_at'], name='delivery_last_received_at'),
        ),
        migrations.AddConstraint(
            model_name='webhookdelivery',
            constraint=models.CheckConstraint(condition=models.Q(('outcome__in', ['APPLIED', 'UNCHANGED', 'STALE', 'IGNORED'])), name='delivery_outcome_known'),
        ),
        migrations.AddConstraint(
            model_name='zammaduser',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('link_kind', ''), ('user', None)), models.Q(('link_kind__in', ['HAND', 'AUTOMATIC']), ('user__isnull', False)), _connector='OR'), name='zammad_user_link_has_a_kind'),
        ),
        migrations.AddField(
            model_name='linkchange',
            name='actor',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='linkchange',
            name='delivery',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='link_changes', to='zammad.webhookdelivery'),
        ),
        migrations.AddField(
            model_name='linkchange',
            name='from_user',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='linkchange',
            name='to_user',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='linkchange',
            name='zammad_user',
            field=models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='link_changes', to='zammad.zammaduser', verbose_name='Zammad user'),
        ),
        migrations.AddConstraint(
            model_name='linkchange',
            constraint=models.CheckConstraint(condition=models.Q(('why__in', ['MATCHES', 'NOBODY', 'SEVERAL_PEOPLE', 'SEVERAL_ZAMMAD_USERS', 'INACTIVE', 'PERSON_DELETED', 'BY_HAND', 'UNLINKED'])), name='link_change_reason_known'),
        ),
    ]
