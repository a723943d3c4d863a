import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('ai_ops', '0017_totals_and_traces'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.AddField(
            model_name='mcpservertool',
            name='rejected',
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name='mcpservertool',
            name='rejected_by',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.RemoveIndex(
            model_name='mcpservercheck',
            name='ai_ops_check_server_time',
        ),
        migrations.AddIndex(
            model_name='mcpservercheck',
            index=models.Index(fields=['server', '-time'], include=('probes', 'failures'), name='ai_ops_check_uptime'),
        ),
    ]
