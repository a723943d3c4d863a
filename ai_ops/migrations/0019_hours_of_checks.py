import uuid

from django.db import migrations, models


class Migration(migrations.Migration):
    """The table is filled by health runs; until then the overview counts the checks."""

    dependencies = [
        ('ai_ops', '0018_rejected_tools'),
    ]

    operations = [
        migrations.CreateModel(
            name='MCPServerCheckHour',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False, unique=True)),
                ('start', models.DateTimeField(unique=True)),
                ('passed', models.PositiveIntegerField()),
                ('failed', models.PositiveIntegerField()),
                ('unknown', models.PositiveIntegerField()),
                ('p50_ms', models.FloatField(null=True)),
            ],
            options={
                'ordering': ['start'],
            },
        ),
    ]
