import django.core.serializers.json
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('ai_ops', '0011_probes_and_certificates'),
    ]

    operations = [
        migrations.AddField(
            model_name='maintenancerun',
            name='errors',
            field=models.JSONField(blank=True, default=list, encoder=django.core.serializers.json.DjangoJSONEncoder, help_text='All errors as a list; error has the first.'),
        ),
    ]
