from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('ai_ops', '0013_covering_indexes'),
    ]

    operations = [
        migrations.AlterModelOptions(
            name='mcpserverincident',
            options={'ordering': [models.OrderBy(models.F('closed'), descending=True, nulls_first=True), '-opened'], 'verbose_name': 'MCP server incident'},
        ),
    ]
