from django.db import migrations, models


def count_the_probe_that_decided(apps, schema_editor):
    """Give earlier checks the one probe of theirs that was kept."""
    checks = apps.get_model("ai_ops", "MCPServerCheck").objects
    checks.filter(ok=False).update(failures=1)
    checks.filter(ok=None).update(probes=0)


class Migration(migrations.Migration):

    dependencies = [
        ('ai_ops', '0010_loose_job_results'),
    ]

    operations = [
        migrations.AddField(
            model_name='mcpservercheck',
            name='failures',
            field=models.PositiveSmallIntegerField(default=0),
        ),
        migrations.AddField(
            model_name='mcpservercheck',
            name='probes',
            field=models.PositiveSmallIntegerField(default=1),
        ),
        migrations.AddField(
            model_name='mcpserverhealth',
            name='certificate_ends',
            field=models.DateTimeField(null=True),
        ),
        migrations.AddField(
            model_name='mcpserverhealth',
            name='protocol_version',
            field=models.CharField(blank=True, max_length=100),
        ),
        migrations.AddField(
            model_name='mcpserverhealth',
            name='server_name',
            field=models.CharField(blank=True, max_length=100),
        ),
        migrations.AddField(
            model_name='mcpserverhealth',
            name='server_version',
            field=models.CharField(blank=True, max_length=100),
        ),
        migrations.RunPython(count_the_probe_that_decided, migrations.RunPython.noop),
    ]
