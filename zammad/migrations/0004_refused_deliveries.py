
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('zammad', '0003_links_by_one_rule'),
    ]

    operations = [
        migrations.CreateModel(
            name='RefusedDelivery',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('hour', models.DateTimeField(help_text='When the hour began.', verbose_name='hour')),
                ('reason', models.CharField(choices=[('METHOD_WRONG', 'Not sent by POST'), ('LENGTH_INVALID', 'Length missing or unreadable'), ('BODY_TOO_LARGE', 'Body too large'), ('BODY_TOO_SLOW', 'Body too slow'), ('BODY_INCOMPLETE', 'Body incomplete'), ('TOO_BUSY', 'Too many bodies at once'), ('NO_SECRET', 'No secret is configured here'), ('SIGNATURE_MISSING', 'Signature missing'), ('SIGNATURE_MALFORMED', 'Signature malformed'), ('SIGNATURE_WRONG', 'Signature wrong'), ('FAILED', 'Could not be stored here')], max_length=20, verbose_name='reason')),
                ('count', models.PositiveBigIntegerField(verbose_name='count')),
                ('last_at', models.DateTimeField(verbose_name='last at')),
                ('last_delivery_id', models.UUIDField(blank=True, help_text='The latest ID in the form that Zammad uses. Anybody may have made it up.', null=True, verbose_name='last delivery ID')),
            ],
            options={
                'verbose_name': 'refused delivery',
                'verbose_name_plural': 'refused deliveries',
                'indexes': [models.Index(fields=['last_delivery_id'], name='refused_last_delivery_id')],
                'constraints': [models.UniqueConstraint(fields=('hour', 'reason'), name='refused_once_per_hour_and_reason'), models.CheckConstraint(condition=models.Q(('count__gte', 1)), name='refused_count_positive'), models.CheckConstraint(condition=models.Q(('reason__in', ['METHOD_WRONG', 'LENGTH_INVALID', 'BODY_TOO_LARGE', 'BODY_TOO_SLOW', 'BODY_INCOMPLETE', 'TOO_BUSY', 'NO_SECRET', 'SIGNATURE_MISSING', 'SIGNATURE_MALFORMED', 'SIGNATURE_WRONG', 'FAILED'])), name='refused_reason_known')],
            },
        ),
    ]
