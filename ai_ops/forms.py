"""Forms to edit MCP servers, one or many, and to filter their list."""

from django import forms
from django.contrib.auth import get_user_model
from nautobot.apps.forms import (
    BootstrapMixin,
    BulkEditNullBooleanSelect,
    DateTimePicker,
    DynamicModelChoiceField,
    DynamicModelMultipleChoiceField,
    NautobotBulkEditForm,
    NautobotFilterForm,
    NautobotModelForm,
    StaticSelect2,
    StaticSelect2Multiple,
    StatusModelBulkEditFormMixin,
    StatusModelFilterFormMixin,
    TagFilterField,
    TagsBulkEditFormMixin,
    add_blank_choice,
)
from nautobot.core.forms.constants import BOOLEAN_WITH_BLANK_CHOICES
from nautobot.extras.models import SecretsGroup, Status

from ai_ops.choices import (
    MaintenanceKindChoices,
    MCPProbeChoices,
    MCPProtocolChoices,
    MCPToolStateChoices,
    MCPTypeChoices,
    RunStateChoices,
    RunTriggerChoices,
)
from ai_ops.mcp.logic.verdicts import Reason
from ai_ops.models import (
    MAX_CHECK_INTERVAL,
    THREAD_ID_MAX_LENGTH,
    MaintenanceRun,
    MCPServer,
    MCPServerCheck,
    MCPServerIncident,
    MCPServerTool,
    PinnedThread,
    RetentionPolicy,
    ThreadErasure,
)


class FilterTimeField(forms.DateTimeField):
    """A time to filter by. Nautobot passes a list to the form if the filter takes several values."""

    def prepare_value(self, value):
        """Return the first value."""
        return super().prepare_value(_first(value))

    def to_python(self, value):
        """Convert the first value."""
        return super().to_python(_first(value))


def _first(value):
    return (value[0] if value else None) if isinstance(value, list | tuple) else value


class MCPServerForm(NautobotModelForm):
    """Add or edit an MCP server."""

    secrets_group = DynamicModelChoiceField(
        queryset=SecretsGroup.objects.all(),
        required=False,
        label="Secrets group",
        help_text=MCPServer._meta.get_field("secrets_group").help_text,
    )

    class Meta:
        """Model and fields, in the order of the page."""

        model = MCPServer
        fields = [
            "name",
            "status",
            "protocol",
            "url",
            "mcp_endpoint",
            "health_check",
            "probe",
            "verify_tls",
            "ca_file",
            "secrets_group",
            "check_interval",
            "mcp_type",
            "description",
            "tags",
        ]

    def __init__(self, *args, **kwargs):
        """Make the status of a new server optional."""
        super().__init__(*args, **kwargs)
        self.fields["status"].required = self.instance.present_in_database

    def clean_status(self):
        """Set the model's default status for a new server without one."""
        status = self.cleaned_data["status"] or Status.objects.filter(pk=self.instance.status_id).first()
        if status is None:
            raise forms.ValidationError(MCPServer._meta.get_field("status").error_messages["null"])
        return status


class MCPServerBulkEditForm(StatusModelBulkEditFormMixin, TagsBulkEditFormMixin, NautobotBulkEditForm):
    """Edit many MCP servers; name and URL are each server's own."""

    field_order = [
        "pk",
        "status",
        "protocol",
        "mcp_endpoint",
        "health_check",
        "probe",
        "verify_tls",
        "ca_file",
        "secrets_group",
        "check_interval",
        "mcp_type",
        "description",
    ]

    pk = forms.ModelMultipleChoiceField(queryset=MCPServer.objects.all(), widget=forms.MultipleHiddenInput)
    protocol = forms.ChoiceField(choices=add_blank_choice(MCPProtocolChoices), required=False, widget=StaticSelect2)
    mcp_endpoint = forms.CharField(required=False, label="MCP endpoint")
    health_check = forms.CharField(required=False, label="Health check")
    probe = forms.ChoiceField(
        choices=add_blank_choice(MCPProbeChoices), required=False, label="Probe", widget=StaticSelect2
    )
    verify_tls = forms.NullBooleanField(required=False, label="Verify TLS", widget=BulkEditNullBooleanSelect)
    ca_file = forms.CharField(required=False, label="CA file")
    secrets_group = DynamicModelChoiceField(queryset=SecretsGroup.objects.all(), required=False, label="Secrets group")
    check_interval = forms.IntegerField(
        required=False, min_value=1, max_value=MAX_CHECK_INTERVAL, label="Check interval (minutes)"
    )
    mcp_type = forms.ChoiceField(
        choices=add_blank_choice(MCPTypeChoices), required=False, label="MCP type", widget=StaticSelect2
    )
    description = forms.CharField(required=False, label="Description")

    class Meta:
        """Model, and fields that may be emptied."""

        model = MCPServer
        nullable_fields = ["mcp_endpoint", "health_check", "ca_file", "secrets_group", "check_interval", "description"]


class MCPServerFilterForm(StatusModelFilterFormMixin, NautobotFilterForm):
    """Filter the list of MCP servers."""

    model = MCPServer
    field_order = [
        "q",
        "status",
        "tool_state",
        "certificate_days",
        "protocol_version",
        "server_version",
        "protocol",
        "probe",
        "secrets_group",
        "mcp_type",
        "name",
        "server_url",
        "tags",
    ]

    q = forms.CharField(required=False, label="Search")
    tool_state = forms.MultipleChoiceField(
        choices=MCPToolStateChoices, required=False, label="Has tools that are", widget=StaticSelect2Multiple
    )
    certificate_days = forms.IntegerField(
        required=False, label="Certificate expires within (days)", help_text="Expired certificates are included."
    )
    protocol_version = forms.CharField(required=False, label="Revision of MCP")
    server_version = forms.CharField(required=False, label="Server version in its own answers")
    protocol = forms.MultipleChoiceField(choices=MCPProtocolChoices, required=False, widget=StaticSelect2Multiple)
    probe = forms.MultipleChoiceField(choices=MCPProbeChoices, required=False, widget=StaticSelect2Multiple)
    secrets_group = DynamicModelMultipleChoiceField(
        queryset=SecretsGroup.objects.all(), to_field_name="name", required=False, label="Secrets group"
    )
    mcp_type = forms.MultipleChoiceField(
        choices=MCPTypeChoices, required=False, label="MCP type", widget=StaticSelect2Multiple
    )
    name = forms.CharField(required=False, label="Name")
    server_url = forms.CharField(required=False, label="URL")
    tags = TagFilterField(model)


class PinnedThreadForm(NautobotModelForm):
    """Add or edit a pin."""

    # Spaces at its ends belong to a thread's id.
    thread_id = forms.CharField(
        strip=False,
        max_length=THREAD_ID_MAX_LENGTH,
        label="Thread ID",
        help_text=PinnedThread._meta.get_field("thread_id").help_text,
    )

    class Meta:
        """Model and fields, in the order of the page."""

        model = PinnedThread
        fields = ["thread_id", "is_glob", "note"]


class PinnedThreadFilterForm(NautobotFilterForm):
    """Filter the list of pinned threads."""

    model = PinnedThread
    field_order = ["q", "thread_id", "is_glob", "note", "pinned_by"]

    q = forms.CharField(required=False, label="Search")
    thread_id = forms.CharField(required=False, strip=False, label="Thread ID")
    is_glob = forms.NullBooleanField(
        required=False, label="Is a pattern", widget=StaticSelect2(choices=BOOLEAN_WITH_BLANK_CHOICES)
    )
    note = forms.CharField(required=False, label="Note")
    pinned_by = DynamicModelMultipleChoiceField(queryset=get_user_model().objects.all(), required=False)


class RetentionPolicyForm(NautobotModelForm):
    """Add or edit a retention policy."""

    class Meta:
        """Model and fields, in the order of the page."""

        model = RetentionPolicy
        fields = [
            "name",
            "weight",
            "enabled",
            "thread_patterns",
            "retention",
            "pending_retention",
            "trim_live_threads",
            "keep_last",
            "max_checkpoints",
            "max_thread_mb",
            "description",
        ]
        widgets = {
            "thread_patterns": forms.Textarea(attrs={"rows": 3}),
            "trim_live_threads": StaticSelect2(choices=BOOLEAN_WITH_BLANK_CHOICES),
        }


class RetentionPolicyBulkEditForm(NautobotBulkEditForm):
    """Edit many retention policies; name and patterns are each policy's own."""

    pk = forms.ModelMultipleChoiceField(queryset=RetentionPolicy.objects.all(), widget=forms.MultipleHiddenInput)
    weight = forms.IntegerField(required=False, min_value=0)
    enabled = forms.NullBooleanField(required=False, widget=BulkEditNullBooleanSelect)
    retention = forms.CharField(required=False, help_text=RetentionPolicy._meta.get_field("retention").help_text)
    pending_retention = forms.CharField(required=False)
    trim_live_threads = forms.NullBooleanField(required=False, widget=BulkEditNullBooleanSelect)
    keep_last = forms.IntegerField(required=False, min_value=1)
    max_checkpoints = forms.IntegerField(required=False, min_value=1)
    max_thread_mb = forms.IntegerField(required=False, min_value=1, label="Max thread size (MiB)")
    description = forms.CharField(required=False)

    class Meta:
        """Model, and fields that may be emptied."""

        model = RetentionPolicy
        nullable_fields = [
            "retention",
            "pending_retention",
            "trim_live_threads",
            "keep_last",
            "max_checkpoints",
            "max_thread_mb",
            "description",
        ]


class RetentionPolicyFilterForm(NautobotFilterForm):
    """Filter the list of retention policies."""

    model = RetentionPolicy
    field_order = ["q", "name", "enabled", "thread_patterns"]

    q = forms.CharField(required=False, label="Search")
    name = forms.CharField(required=False, label="Name")
    enabled = forms.NullBooleanField(required=False, widget=StaticSelect2(choices=BOOLEAN_WITH_BLANK_CHOICES))
    thread_patterns = forms.CharField(required=False, label="Thread patterns")


class ThreadErasureFilterForm(BootstrapMixin, forms.Form):
    """Filter the list of erasures."""

    model = ThreadErasure
    field_order = ["q", "verified", "requested_by", "created__gte", "created__lte"]

    q = forms.CharField(required=False, label="Search")
    verified = forms.NullBooleanField(required=False, widget=StaticSelect2(choices=BOOLEAN_WITH_BLANK_CHOICES))
    requested_by = DynamicModelMultipleChoiceField(
        queryset=get_user_model().objects.all(), to_field_name="username", required=False
    )
    created__gte = FilterTimeField(required=False, label="From", widget=DateTimePicker())
    created__lte = FilterTimeField(required=False, label="Until", widget=DateTimePicker())


class MCPServerCheckFilterForm(BootstrapMixin, forms.Form):
    """Filter the history of checks."""

    model = MCPServerCheck
    field_order = ["q", "server", "ok", "reason", "flipped", "time__gte", "time__lte"]

    q = forms.CharField(required=False, label="Search")
    server = DynamicModelMultipleChoiceField(
        queryset=MCPServer.objects.all(), to_field_name="name", required=False, label="MCP server"
    )
    ok = forms.NullBooleanField(required=False, label="OK", widget=StaticSelect2(choices=BOOLEAN_WITH_BLANK_CHOICES))
    reason = forms.MultipleChoiceField(
        choices=[(reason, reason) for reason in Reason], required=False, widget=StaticSelect2Multiple
    )
    flipped = forms.NullBooleanField(required=False, widget=StaticSelect2(choices=BOOLEAN_WITH_BLANK_CHOICES))
    time__gte = FilterTimeField(required=False, label="From", widget=DateTimePicker())
    time__lte = FilterTimeField(required=False, label="Until", widget=DateTimePicker())


class MCPServerIncidentFilterForm(NautobotFilterForm):
    """Filter the list of incidents."""

    model = MCPServerIncident
    field_order = ["q", "is_open", "is_acknowledged", "servers", "reason"]

    q = forms.CharField(required=False, label="Search")
    is_open = forms.NullBooleanField(required=False, widget=StaticSelect2(choices=BOOLEAN_WITH_BLANK_CHOICES))
    is_acknowledged = forms.NullBooleanField(required=False, widget=StaticSelect2(choices=BOOLEAN_WITH_BLANK_CHOICES))
    servers = DynamicModelMultipleChoiceField(
        queryset=MCPServer.objects.all(), to_field_name="name", required=False, label="MCP servers"
    )
    reason = forms.CharField(required=False)


class MaintenanceRunFilterForm(BootstrapMixin, forms.Form):
    """Filter the list of runs."""

    model = MaintenanceRun
    field_order = [
        "q",
        "kind",
        "state",
        "trigger",
        "owner",
        "subject",
        "has_error",
        "is_dead_letter",
        "is_quiet",
        "created__gte",
        "created__lte",
    ]

    q = forms.CharField(required=False, label="Search")
    kind = forms.MultipleChoiceField(choices=MaintenanceKindChoices, required=False, widget=StaticSelect2Multiple)
    state = forms.MultipleChoiceField(choices=RunStateChoices, required=False, widget=StaticSelect2Multiple)
    trigger = forms.MultipleChoiceField(choices=RunTriggerChoices, required=False, widget=StaticSelect2Multiple)
    owner = DynamicModelMultipleChoiceField(
        queryset=get_user_model().objects.all(), to_field_name="username", required=False
    )
    subject = forms.CharField(required=False)
    has_error = forms.NullBooleanField(
        required=False, label="Has an error", widget=StaticSelect2(choices=BOOLEAN_WITH_BLANK_CHOICES)
    )
    is_dead_letter = forms.NullBooleanField(
        required=False, label="Is a dead letter", widget=StaticSelect2(choices=BOOLEAN_WITH_BLANK_CHOICES)
    )
    is_quiet = forms.NullBooleanField(
        required=False,
        label="Found no work (supervisor and incident review)",
        widget=StaticSelect2(choices=BOOLEAN_WITH_BLANK_CHOICES),
    )
    created__gte = FilterTimeField(required=False, label="From", widget=DateTimePicker())
    created__lte = FilterTimeField(required=False, label="Until", widget=DateTimePicker())


class MCPServerToolFilterForm(BootstrapMixin, forms.Form):
    """Filter the list of tools."""

    model = MCPServerTool
    field_order = ["q", "server", "state", "name"]

    q = forms.CharField(required=False, label="Search")
    server = DynamicModelMultipleChoiceField(
        queryset=MCPServer.objects.all(), to_field_name="name", required=False, label="MCP server"
    )
    state = forms.MultipleChoiceField(choices=MCPToolStateChoices, required=False, widget=StaticSelect2Multiple)
    name = forms.CharField(required=False, label="Name")


class ScheduleTimesForm(forms.Form):
    """New times of a schedule. An empty field leaves its value unchanged; an empty grace follows the new times."""

    crontab = forms.CharField(required=False, max_length=255)
    interval = forms.IntegerField(required=False)
    time_zone = forms.CharField(required=False, max_length=255)
    misfire_grace_time = forms.IntegerField(required=False)
