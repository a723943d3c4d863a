"""Make the tables of the first nineteen migrations in one step, for new installations.

The changes of 0011 to rows are left out: a new installation has none.
"""

import ai_ops.models.health
import ai_ops.models.retention
import ai_ops.models.servers
import ai_ops.validators
import django.core.serializers.json
import django.core.validators
import django.db.models.deletion
import nautobot.core.models.fields
import nautobot.extras.models.mixins
import nautobot.extras.models.statuses
import uuid
from contextlib import suppress
from django.conf import settings
from django.db import migrations, models
from django.db.migrations.operations.base import Operation, OperationCategory


class CreateTogether(Operation):
    """Create models in one operation.

    After each operation, Django makes the classes of all related models again, which are a hundred of Nautobot's. That
    took most of the time of this migration, and more of its reversal.
    """

    category = OperationCategory.ADDITION
    serialization_expand_args = ['operations']

    def __init__(self, operations):
        self.operations = operations

    def state_forwards(self, app_label, state):
        # Without the classes, they are made once, when they are next needed.
        with suppress(AttributeError):
            del state.apps
        for operation in self.operations:
            operation.state_forwards(app_label, state)

    def database_forwards(self, app_label, schema_editor, from_state, to_state):
        for operation in self.operations:
            operation.database_forwards(app_label, schema_editor, from_state, to_state)

    def database_backwards(self, app_label, schema_editor, from_state, to_state):
        for operation in reversed(self.operations):
            operation.database_backwards(app_label, schema_editor, from_state, to_state)

    def describe(self):
        return f'Create {len(self.operations)} models'


class Migration(migrations.Migration):

    replaces = [
        ('ai_ops', '0001_initial'),
        ('ai_ops', '0002_pinned_thread'),
        ('ai_ops', '0003_mcp_server_probe'),
        ('ai_ops', '0004_health_history'),
        ('ai_ops', '0005_incidents'),
        ('ai_ops', '0006_flapping'),
        ('ai_ops', '0007_check_interval'),
        ('ai_ops', '0008_maintenance_runs'),
        ('ai_ops', '0009_tool_drift'),
        ('ai_ops', '0010_loose_job_results'),
        ('ai_ops', '0011_probes_and_certificates'),
        ('ai_ops', '0012_run_errors'),
        ('ai_ops', '0013_covering_indexes'),
        ('ai_ops', '0014_open_incidents_first'),
        ('ai_ops', '0015_what_each_check_saw'),
        ('ai_ops', '0016_retention_policies'),
        ('ai_ops', '0017_totals_and_traces'),
        ('ai_ops', '0018_rejected_tools'),
        ('ai_ops', '0019_hours_of_checks'),
    ]

    initial = True

    dependencies = [
        ('extras', '0133_alter_approvalworkflowstageresponse_options_and_more'),
        ('extras', '0145_objectmetadata_assigned_object_type_cascade'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [CreateTogether([
        migrations.CreateModel(
            name='ProvisioningRecord',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False, unique=True)),
                ('key', models.CharField(max_length=255, unique=True)),
                ('created', models.DateTimeField(auto_now_add=True)),
            ],
            options={
                'ordering': ['key'],
            },
        ),
        migrations.CreateModel(
            name='CheckpointStorageSnapshot',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False, unique=True)),
                ('taken', models.DateTimeField(auto_now_add=True)),
                ('data', models.JSONField(encoder=django.core.serializers.json.DjangoJSONEncoder)),
            ],
            options={
                'ordering': ['-taken'],
                'get_latest_by': 'taken',
            },
        ),
        migrations.CreateModel(
            name='AgentGeneration',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False, unique=True)),
                ('number', models.BigIntegerField()),
            ],
        ),
        migrations.CreateModel(
            name='MCPServer',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False, unique=True)),
                ('created', models.DateTimeField(auto_now_add=True, null=True)),
                ('last_updated', models.DateTimeField(auto_now=True, null=True)),
                ('_custom_field_data', models.JSONField(blank=True, default=dict, encoder=django.core.serializers.json.DjangoJSONEncoder)),
                ('name', models.CharField(max_length=255, unique=True)),
                ('protocol', models.CharField(default='http', max_length=20)),
                ('url', models.CharField(blank=True, max_length=255, validators=[ai_ops.validators.validate_server_url])),
                ('mcp_endpoint', models.CharField(blank=True, default='/mcp', max_length=255, validators=[ai_ops.validators.validate_path])),
                ('health_check', models.CharField(blank=True, default='/health', max_length=255, validators=[ai_ops.validators.validate_path])),
                ('mcp_type', models.CharField(default='internal', max_length=20)),
                ('description', models.CharField(blank=True, max_length=255)),
                ('status', nautobot.extras.models.statuses.StatusField(default=ai_ops.models.servers.unhealthy_status_pk, error_messages={'null': 'Choose a status: Unhealthy, in which a new server starts, is not available.'}, on_delete=django.db.models.deletion.PROTECT, to='extras.status')),
                ('tags', nautobot.core.models.fields.TagsField(help_text='A comma-separated list of tags.', through='extras.TaggedItem', to='extras.Tag', verbose_name='Tags')),
                ('ca_file', models.CharField(blank=True, max_length=255, validators=[ai_ops.validators.validate_ca_file])),
                ('probe', models.CharField(default='auto', max_length=20)),
                ('secrets_group', models.ForeignKey(blank=True, default=None, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='mcp_servers', to='extras.secretsgroup')),
                ('verify_tls', models.BooleanField(default=True)),
                ('check_interval', models.PositiveIntegerField(blank=True, null=True, validators=[django.core.validators.MinValueValidator(1), django.core.validators.MaxValueValidator(10080)])),
            ],
            options={
                'verbose_name': 'MCP server',
                'verbose_name_plural': 'MCP servers',
                'ordering': ['name'],
            },
            bases=(nautobot.extras.models.mixins.DataComplianceModelMixin, nautobot.extras.models.mixins.DynamicGroupMixin, nautobot.extras.models.mixins.NotesMixin, models.Model),
        ),
        migrations.CreateModel(
            name='MaintenanceLease',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False, unique=True)),
                ('name', models.CharField(max_length=255, unique=True)),
                ('token', models.UUIDField(blank=True, null=True)),
                ('holder', models.CharField(blank=True, max_length=255)),
                ('run', models.UUIDField(blank=True, null=True)),
                ('fence', models.BigIntegerField(default=0)),
                ('acquired', models.DateTimeField(blank=True, null=True)),
                ('expires', models.DateTimeField(blank=True, null=True)),
            ],
            options={
                'ordering': ['name'],
            },
        ),
        migrations.CreateModel(
            name='MCPServerToolSet',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False, unique=True)),
                ('created', models.DateTimeField(auto_now_add=True, null=True)),
                ('last_updated', models.DateTimeField(auto_now=True, null=True)),
                ('asked', models.DateTimeField()),
                ('listed', models.DateTimeField(blank=True, null=True)),
                ('retry_at', models.DateTimeField(blank=True, null=True)),
                ('reason', models.CharField(blank=True, max_length=30)),
                ('message', models.TextField(blank=True)),
                ('listed_hash', models.CharField(blank=True, max_length=64)),
                ('approved_hash', models.CharField(blank=True, max_length=64)),
                ('approved', models.DateTimeField(blank=True, null=True)),
                ('approved_changes', models.TextField(blank=True)),
                ('approved_by', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('server', models.OneToOneField(on_delete=ai_ops.models.health.delete_unread, related_name='tool_set', to='ai_ops.mcpserver')),
            ],
            options={
                'verbose_name': 'MCP server tool set',
                'ordering': ['server'],
            },
        ),
        migrations.CreateModel(
            name='MCPServerHealth',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False, unique=True)),
                ('checked', models.DateTimeField()),
                ('ok', models.BooleanField(null=True)),
                ('reason', models.CharField(blank=True, max_length=30)),
                ('message', models.TextField(blank=True)),
                ('latency_ms', models.FloatField(null=True)),
                ('http_status', models.PositiveSmallIntegerField(null=True)),
                ('last_ok', models.DateTimeField(null=True)),
                ('last_failure', models.DateTimeField(null=True)),
                ('last_failure_reason', models.CharField(blank=True, max_length=30)),
                ('server', models.OneToOneField(on_delete=ai_ops.models.health.delete_unread, related_name='health', to='ai_ops.mcpserver')),
                ('alert_held', models.BooleanField(default=False)),
                ('change_percent', models.FloatField(default=0)),
                ('flapping', models.BooleanField(default=False)),
                ('recent', models.CharField(blank=True, max_length=21)),
                ('retry_at', models.DateTimeField(null=True)),
                ('certificate_ends', models.DateTimeField(null=True)),
                ('protocol_version', models.CharField(blank=True, max_length=100)),
                ('server_name', models.CharField(blank=True, max_length=100)),
                ('server_version', models.CharField(blank=True, max_length=100)),
            ],
            options={
                'verbose_name': 'MCP server health',
                'verbose_name_plural': 'MCP server health',
                'ordering': ['server'],
            },
        ),
        migrations.CreateModel(
            name='MCPServerIncident',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False, unique=True)),
                ('created', models.DateTimeField(auto_now_add=True, null=True)),
                ('last_updated', models.DateTimeField(auto_now=True, null=True)),
                ('_custom_field_data', models.JSONField(blank=True, default=dict, encoder=django.core.serializers.json.DjangoJSONEncoder)),
                ('name', models.CharField(max_length=255)),
                ('kind', models.CharField(default='outage', max_length=20)),
                ('reason', models.CharField(max_length=30)),
                ('message', models.TextField(blank=True)),
                ('opened', models.DateTimeField()),
                ('closed', models.DateTimeField(blank=True, null=True)),
                ('acknowledged', models.DateTimeField(blank=True, null=True)),
                ('escalated', models.DateTimeField(blank=True, null=True)),
                ('acknowledged_by', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('servers', models.ManyToManyField(blank=True, related_name='incidents', to='ai_ops.mcpserver')),
            ],
            options={
                'verbose_name': 'MCP server incident',
                'ordering': [models.OrderBy(models.F('closed'), descending=True, nulls_first=True), '-opened'],
                'indexes': [models.Index(fields=['closed', '-opened'], name='ai_ops_incident_closed_opened')],
            },
            bases=(nautobot.extras.models.mixins.DataComplianceModelMixin, nautobot.extras.models.mixins.DynamicGroupMixin, nautobot.extras.models.mixins.NotesMixin, models.Model),
        ),
        migrations.CreateModel(
            name='RetentionPolicy',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False, unique=True)),
                ('created', models.DateTimeField(auto_now_add=True, null=True)),
                ('last_updated', models.DateTimeField(auto_now=True, null=True)),
                ('_custom_field_data', models.JSONField(blank=True, default=dict, encoder=django.core.serializers.json.DjangoJSONEncoder)),
                ('name', models.CharField(max_length=255, unique=True)),
                ('weight', models.PositiveIntegerField(default=1000, validators=[django.core.validators.MaxValueValidator(1000000)])),
                ('enabled', models.BooleanField(default=True)),
                ('thread_patterns', models.TextField(validators=[ai_ops.models.retention.validate_patterns])),
                ('retention', models.CharField(blank=True, max_length=20, validators=[ai_ops.models.retention.validate_duration])),
                ('pending_retention', models.CharField(blank=True, max_length=20, validators=[ai_ops.models.retention.validate_duration])),
                ('trim_live_threads', models.BooleanField(blank=True, null=True)),
                ('keep_last', models.PositiveIntegerField(blank=True, null=True, validators=[django.core.validators.MinValueValidator(1), django.core.validators.MaxValueValidator(10000)])),
                ('max_checkpoints', models.PositiveIntegerField(blank=True, null=True, validators=[django.core.validators.MinValueValidator(1), django.core.validators.MaxValueValidator(1000000)])),
                ('max_thread_mb', models.PositiveIntegerField(blank=True, null=True, validators=[django.core.validators.MinValueValidator(1), django.core.validators.MaxValueValidator(1048576)])),
                ('description', models.CharField(blank=True, max_length=255)),
            ],
            options={
                'verbose_name_plural': 'retention policies',
                'ordering': ['weight', 'name'],
            },
            bases=(nautobot.extras.models.mixins.DataComplianceModelMixin, nautobot.extras.models.mixins.DynamicGroupMixin, nautobot.extras.models.mixins.NotesMixin, models.Model),
        ),
        migrations.CreateModel(
            name='PinnedThread',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False, unique=True)),
                ('created', models.DateTimeField(auto_now_add=True, null=True)),
                ('last_updated', models.DateTimeField(auto_now=True, null=True)),
                ('_custom_field_data', models.JSONField(blank=True, default=dict, encoder=django.core.serializers.json.DjangoJSONEncoder)),
                ('thread_id', models.CharField(error_messages={'unique': 'This thread is pinned already.'}, max_length=640, unique=True)),
                ('note', models.CharField(blank=True, max_length=255)),
                ('pinned_by', models.ForeignKey(blank=True, editable=False, null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('is_glob', models.BooleanField(default=False)),
            ],
            options={
                'ordering': ['thread_id'],
            },
            bases=(nautobot.extras.models.mixins.DataComplianceModelMixin, nautobot.extras.models.mixins.DynamicGroupMixin, nautobot.extras.models.mixins.NotesMixin, models.Model),
        ),
        migrations.CreateModel(
            name='ThreadErasure',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False, unique=True)),
                ('created', models.DateTimeField(auto_now_add=True)),
                ('finished', models.DateTimeField(blank=True, null=True)),
                ('requested_by_name', models.CharField(blank=True, max_length=255)),
                ('reason', models.CharField(max_length=255)),
                ('thread_pattern', models.CharField(blank=True, max_length=255)),
                ('thread_ids', models.JSONField(blank=True, default=list, encoder=django.core.serializers.json.DjangoJSONEncoder)),
                ('thread_count', models.PositiveIntegerField(default=0)),
                ('is_hashed', models.BooleanField(default=False)),
                ('store_namespaces', models.JSONField(blank=True, default=list, encoder=django.core.serializers.json.DjangoJSONEncoder)),
                ('include_pinned', models.BooleanField(default=False)),
                ('deleted_count', models.PositiveBigIntegerField(default=0)),
                ('deleted_by_family', models.JSONField(blank=True, default=dict, encoder=django.core.serializers.json.DjangoJSONEncoder)),
                ('late_count', models.PositiveIntegerField(default=0)),
                ('verified', models.BooleanField(default=False)),
                ('rounds', models.PositiveSmallIntegerField(default=0)),
                ('seconds', models.FloatField(default=0.0)),
                ('error', models.TextField(blank=True)),
                ('guarded_until', models.DateTimeField()),
                ('guard', models.JSONField(blank=True, default=dict, editable=False, encoder=django.core.serializers.json.DjangoJSONEncoder)),
                ('requested_by', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to=settings.AUTH_USER_MODEL)),
            ],
            options={
                'ordering': ['-created'],
                'get_latest_by': 'created',
                'indexes': [models.Index(fields=['guarded_until'], name='ai_ops_erasure_guarded')],
            },
        ),
        migrations.CreateModel(
            name='MaintenanceRun',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False, unique=True)),
                ('name', models.CharField(max_length=80, unique=True)),
                ('kind', models.CharField(max_length=20)),
                ('subject', models.CharField(blank=True, max_length=255)),
                ('trigger', models.CharField(max_length=20)),
                ('state', models.CharField(default='pending', max_length=20)),
                ('idempotency_key', models.CharField(blank=True, max_length=255, null=True)),
                ('options', models.JSONField(blank=True, default=dict, encoder=django.core.serializers.json.DjangoJSONEncoder)),
                ('attempt', models.PositiveSmallIntegerField(default=0)),
                ('max_attempts', models.PositiveSmallIntegerField(default=1)),
                ('attempts', models.JSONField(blank=True, default=list, encoder=django.core.serializers.json.DjangoJSONEncoder)),
                ('next_attempt', models.DateTimeField(blank=True, null=True)),
                ('heartbeat', models.DateTimeField(blank=True, null=True)),
                ('fence', models.BigIntegerField(blank=True, null=True)),
                ('holder', models.CharField(blank=True, max_length=255)),
                ('progress', models.CharField(blank=True, max_length=255)),
                ('cancel_requested', models.BooleanField(default=False)),
                ('discarded', models.DateTimeField(blank=True, null=True)),
                ('created', models.DateTimeField(auto_now_add=True)),
                ('started', models.DateTimeField(blank=True, null=True)),
                ('finished', models.DateTimeField(blank=True, null=True)),
                ('execution_time_ms', models.PositiveIntegerField(blank=True, null=True)),
                ('counters', models.JSONField(blank=True, default=dict, encoder=django.core.serializers.json.DjangoJSONEncoder)),
                ('error', models.TextField(blank=True)),
                ('job_result', models.ForeignKey(blank=True, db_constraint=False, null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to='extras.jobresult')),
                ('owner', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('parent', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='children', to='ai_ops.maintenancerun')),
                ('errors', models.JSONField(blank=True, default=list, encoder=django.core.serializers.json.DjangoJSONEncoder)),
                ('trace_parent', models.CharField(blank=True, max_length=55)),
            ],
            options={
                'ordering': ['-created'],
                'get_latest_by': 'created',
                'indexes': [models.Index(fields=['kind', '-created'], name='ai_ops_run_kind_created'), models.Index(condition=models.Q(('state__in', ['pending', 'running'])), fields=['state', 'next_attempt'], name='ai_ops_run_unfinished'), models.Index(condition=models.Q(('state', 'dead')), fields=['-created'], name='ai_ops_run_dead'), models.Index(fields=['-created'], include=('state',), name='ai_ops_run_created_state')],
                'constraints': [models.UniqueConstraint(fields=('owner', 'idempotency_key'), name='ai_ops_run_idempotency')],
            },
        ),
        migrations.CreateModel(
            name='Total',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False, unique=True)),
                ('key', models.CharField(max_length=255, unique=True)),
                ('count', models.BigIntegerField(default=0)),
                ('size', models.FloatField(default=0)),
                ('bucket_1', models.BigIntegerField(default=0)),
                ('bucket_2', models.BigIntegerField(default=0)),
                ('bucket_3', models.BigIntegerField(default=0)),
                ('bucket_4', models.BigIntegerField(default=0)),
                ('bucket_5', models.BigIntegerField(default=0)),
                ('bucket_6', models.BigIntegerField(default=0)),
                ('bucket_7', models.BigIntegerField(default=0)),
                ('bucket_8', models.BigIntegerField(default=0)),
            ],
            options={
                'ordering': ['key'],
            },
        ),
        migrations.CreateModel(
            name='MCPServerTool',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False, unique=True)),
                ('name', models.CharField(max_length=255)),
                ('state', models.CharField(db_index=True, max_length=20)),
                ('since', models.DateTimeField()),
                ('first_seen', models.DateTimeField()),
                ('hash', models.CharField(blank=True, max_length=64)),
                ('approved_hash', models.CharField(blank=True, max_length=64)),
                ('description', models.CharField(blank=True, max_length=255)),
                ('definition', models.TextField(blank=True)),
                ('approved_definition', models.TextField(blank=True)),
                ('server', models.ForeignKey(on_delete=ai_ops.models.health.delete_unread, related_name='tools', to='ai_ops.mcpserver')),
                ('rejected', models.DateTimeField(blank=True, null=True)),
                ('rejected_by', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to=settings.AUTH_USER_MODEL)),
            ],
            options={
                'verbose_name': 'MCP server tool',
                'ordering': ['server', 'name'],
                'constraints': [models.UniqueConstraint(fields=('server', 'name'), name='ai_ops_tool_server_name')],
            },
        ),
        migrations.CreateModel(
            name='MCPServerCheck',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False, unique=True)),
                ('time', models.DateTimeField()),
                ('ok', models.BooleanField(null=True)),
                ('reason', models.CharField(blank=True, max_length=30)),
                ('latency_ms', models.FloatField()),
                ('http_status', models.PositiveSmallIntegerField(null=True)),
                ('flipped', models.BooleanField(default=False)),
                ('server', models.ForeignKey(on_delete=ai_ops.models.health.delete_unread, related_name='checks', to='ai_ops.mcpserver')),
                ('failures', models.PositiveSmallIntegerField(default=0)),
                ('probes', models.PositiveSmallIntegerField(default=1)),
                ('certificate_days', models.IntegerField(null=True)),
                ('protocol_version', models.CharField(blank=True, max_length=100)),
                ('server_name', models.CharField(blank=True, max_length=100)),
                ('server_version', models.CharField(blank=True, max_length=100)),
            ],
            options={
                'verbose_name': 'MCP server check',
                'ordering': ['-time'],
                'get_latest_by': 'time',
                'indexes': [models.Index(fields=['time'], include=('ok', 'latency_ms'), name='ai_ops_check_time'), models.Index(fields=['server', '-time'], include=('probes', 'failures'), name='ai_ops_check_uptime')],
            },
        ),
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
    ])]
