import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('ai_ops', '0009_tool_drift'),
    ]

    operations = [
        migrations.AlterField(
            model_name='maintenancerun',
            name='job_result',
            field=models.ForeignKey(blank=True, db_constraint=False, help_text='The Job of the latest attempt, with its log; none where Nautobot has deleted it since.', null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to='extras.jobresult'),
        ),
    ]
