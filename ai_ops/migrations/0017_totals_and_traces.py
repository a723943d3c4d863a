import uuid

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('ai_ops', '0016_retention_policies'),
    ]

    operations = [
        migrations.AddField(
            model_name='maintenancerun',
            name='trace_parent',
            field=models.CharField(blank=True, default='', max_length=55),
            preserve_default=False,
        ),
        migrations.CreateModel(
            name='Total',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False, unique=True)),
                ('key', models.CharField(max_length=255, unique=True)),
                ('count', models.BigIntegerField(default=0)),
                ('size', models.FloatField(default=0)),
                *((f'bucket_{number}', models.BigIntegerField(default=0)) for number in range(1, 9)),
            ],
            options={
                'ordering': ['key'],
            },
        ),
    ]
