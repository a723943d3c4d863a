"""Serializers of the REST API."""

from collections.abc import Mapping
from typing import Any

from django.core.exceptions import ValidationError as DjangoValidationError
from nautobot.apps.api import BaseModelSerializer, NautobotModelSerializer, TaggedModelSerializerMixin
from rest_framework import serializers
from rest_framework.reverse import reverse

from ai_ops.api.fields import SentencesMixin
from ai_ops.kinds import KINDS
from ai_ops.logic.foreign_text import for_csv
from ai_ops.mcp.change_log import fields_of_the_first
from ai_ops.models import (
    MaintenanceRun,
    MCPServer,
    MCPServerCheck,
    MCPServerHealth,
    MCPServerIncident,
    MCPServerTool,
    MCPServerToolSet,
    PinnedThread,
    RetentionPolicy,
    ThreadErasure,
)
from ai_ops.schedules.lateness import STANDINGS


class MCPServerSerializer(SentencesMixin, TaggedModelSerializerMixin, NautobotModelSerializer):
    """An MCP server: `url` is the address of its record in this API, `server_url` the server's own."""

    # Clients expect the address of the record in `url`. Without this line it would be the model's field of that name.
    url = serializers.HyperlinkedIdentityField(view_name="plugins-api:ai_ops-api:mcpserver-detail")

    class Meta:
        """Model and fields."""

        model = MCPServer
        fields = "__all__"
        extra_kwargs = {"server_url": {"source": "url"}}

    @property
    def fields(self):
        """Return its fields; for many objects that are logged together, those of the first."""
        first = fields_of_the_first.get()
        # The fields depend on the request, and on the depth of a nested serializer.
        if first is None or self.parent is not None or self.context.get("request") is not None:
            return super().fields
        if not first:
            first.update(super().fields)
        return first

    def get_field_names(self, declared_fields, info):
        """Add the server's address, after the record's."""
        names = super().get_field_names(declared_fields, info)
        names.insert(names.index("url") + 1, "server_url")
        return names

    def validate(self, attrs):
        """Report the model's errors about `url` under the field `server_url`."""
        try:
            return super().validate(attrs)
        except DjangoValidationError as refusal:
            errors = dict(refusal.error_dict)
            if "url" in errors:
                errors["server_url"] = errors.pop("url")
            raise DjangoValidationError(errors) from refusal


class PinnedThreadSerializer(SentencesMixin, NautobotModelSerializer):
    """A pinned thread; it is pinned by the user of the request."""

    class Meta:
        """Model and fields."""

        model = PinnedThread
        fields = "__all__"
        # Spaces at its ends belong to a thread's id.
        extra_kwargs = {"thread_id": {"trim_whitespace": False}}


class RetentionPolicySerializer(SentencesMixin, NautobotModelSerializer):
    """A retention policy, with one pattern per line."""

    class Meta:
        """Model and fields."""

        model = RetentionPolicy
        fields = "__all__"


class HarmlessInCSVMixin:
    """Escapes foreign text in CSV exports, so that a spreadsheet does not read it as a formula.

    Use it only for data that is never imported: data that can be imported again must not change.
    """

    def to_representation(self, instance):
        """Escape text for a CSV response, so that a spreadsheet does not read it as a formula."""
        shown = super().to_representation(instance)
        return {name: _cell(value) for name, value in shown.items()} if self._is_csv_request() else shown


def _cell(value: Any) -> Any:
    # Nautobot joins the texts of a list.
    return [for_csv(each) for each in value] if isinstance(value, list) else for_csv(value)


class MCPServerHealthSerializer(HarmlessInCSVMixin, BaseModelSerializer):
    """The latest health of an MCP server."""

    class Meta:
        """Model and fields."""

        model = MCPServerHealth
        fields = "__all__"


class MCPServerCheckSerializer(HarmlessInCSVMixin, BaseModelSerializer):
    """One check of an MCP server."""

    class Meta:
        """Model and fields."""

        model = MCPServerCheck
        fields = "__all__"


class ServerOfIncidentSerializer(serializers.ModelSerializer):
    """An MCP server in the change log of an incident."""

    class Meta:
        """Model and fields."""

        model = MCPServer
        fields = ("id", "name")


class MCPServerIncidentSerializer(HarmlessInCSVMixin, NautobotModelSerializer):
    """An outage of one or many MCP servers."""

    class Meta:
        """Model and fields."""

        model = MCPServerIncident
        fields = "__all__"

    def build_nested_field(self, field_name, relation_info, nested_depth):
        """Name the servers in the change log, webhooks and events, as this app's own events do.

        A mass outage has a thousand servers. With all fields of each, an entry would take a megabyte.
        """
        if field_name == "servers" and self.context.get("request") is None:
            return ServerOfIncidentSerializer, {"many": True, "read_only": True}
        return super().build_nested_field(field_name, relation_info, nested_depth)


class MaintenanceRunSerializer(HarmlessInCSVMixin, BaseModelSerializer):
    """A run; poll its `url` for its state."""

    class Meta:
        """Model and fields."""

        model = MaintenanceRun
        fields = "__all__"

    def to_representation(self, instance):
        """Leave out a Job result that Nautobot has deleted: its address answers 404."""
        representation = super().to_representation(instance)
        if representation.get("job_result") and instance.job_result is None:
            representation["job_result"] = None
        return representation


class RunRequestSerializer(serializers.Serializer):
    """The body of a request for a run; `ai_ops.runs.options` validates it."""

    kind = serializers.ChoiceField(choices=list(KINDS), help_text="Kind of the run.")
    options = serializers.DictField(
        required=False,
        help_text="Options by name; omit an option to use the configured value. All kinds accept time_limit, in "
        "seconds; cleanup accepts the options of its Job; server accepts server, the id of an MCP server.",
    )


class ErasureRequestSerializer(serializers.Serializer):
    """The body of a POST that erases conversations."""

    thread_ids = serializers.ListField(child=serializers.CharField(), required=False)
    thread_pattern = serializers.CharField(required=False, help_text="A glob over thread ids.")
    store_namespaces = serializers.ListField(
        child=serializers.CharField(),
        required=False,
        help_text="Namespaces of LangGraph's RedisStore, such as users.42.",
    )
    reason = serializers.CharField(help_text="Reason for the erasure, kept in its record.")
    include_pinned = serializers.BooleanField(required=False, help_text="Whether pinned threads are deleted too.")
    dryrun = serializers.BooleanField(required=False, help_text="Delete nothing, and report what would be deleted.")


class ScheduleRequestSerializer(serializers.Serializer):
    """The body of a POST: a crontab or an interval for a recurrent schedule, or a time for a single run."""

    kind = serializers.ChoiceField(choices=list(KINDS), help_text="Kind of the run.")
    options = serializers.DictField(required=False, help_text="Options of the run, as in a request for a run.")
    name = serializers.CharField(
        required=False, help_text="Name of the schedule; each kind except server has a default name."
    )
    crontab = serializers.CharField(required=False, help_text="Five fields, minute to day of week.")
    interval = serializers.IntegerField(
        required=False,
        help_text="Seconds between two runs, instead of a crontab; only intervals that a crontab can express.",
    )
    time_zone = serializers.CharField(required=False, help_text='Time zone of the crontab, such as "Europe/Berlin".')
    at = serializers.DateTimeField(required=False, help_text="Time of a single run, instead of a crontab.")
    misfire_grace_time = serializers.IntegerField(
        required=False, help_text="Seconds after which a run is dropped if no worker has begun it."
    )
    queue = serializers.CharField(required=False, help_text="Name of the job queue.")


class ScheduleSerializer(serializers.Serializer):
    """The status of a schedule, as `ai_ops.schedules.status.get_schedule_status` returns it."""

    id = serializers.UUIDField()
    url = serializers.SerializerMethodField()
    name = serializers.CharField()
    kind = serializers.CharField(allow_null=True)
    options = serializers.DictField(help_text="Variables of the Job.")
    crontab = serializers.CharField(allow_null=True)
    time_zone = serializers.CharField()
    enabled = serializers.BooleanField()
    standing = serializers.ChoiceField(choices=STANDINGS)
    next_run = serializers.DateTimeField(allow_null=True)
    last_run = serializers.DateTimeField(allow_null=True)
    last_outcome = serializers.CharField(allow_null=True)
    last_error = serializers.CharField(allow_null=True)
    last_run_id = serializers.UUIDField(allow_null=True)
    last_job_result = serializers.UUIDField(allow_null=True)
    late = serializers.BooleanField()
    why = serializers.CharField(allow_null=True)
    queue = serializers.CharField(allow_null=True)
    time_limit = serializers.IntegerField(allow_null=True)
    misfire_grace_time = serializers.IntegerField(allow_null=True)
    owner = serializers.CharField(allow_null=True)

    def get_url(self, row: Mapping[str, Any]) -> str:
        """Return the address of the schedule in this API."""
        return reverse(
            "plugins-api:ai_ops-api:schedule-detail", kwargs={"pk": row["id"]}, request=self.context.get("request")
        )


class ThreadErasureSerializer(HarmlessInCSVMixin, BaseModelSerializer):
    """The record of an erasure."""

    class Meta:
        """Model and fields, without the names that the guard compares."""

        model = ThreadErasure
        exclude = ("guard",)


class MCPServerToolSerializer(HarmlessInCSVMixin, BaseModelSerializer):
    """A tool of an MCP server."""

    class Meta:
        """Model and fields."""

        model = MCPServerTool
        fields = "__all__"


class MCPServerToolSetSerializer(HarmlessInCSVMixin, BaseModelSerializer):
    """The tool set of an MCP server."""

    drifted = serializers.BooleanField(
        read_only=True, help_text="Whether the listed tools differ from the approved ones."
    )

    class Meta:
        """Model and fields."""

        model = MCPServerToolSet
        fields = "__all__"


class ToolApprovalSerializer(serializers.Serializer):
    """The list of tools that an approval is for."""

    listed_hash = serializers.CharField(help_text="The listed_hash of the tools that you reviewed.")


class ToolDecisionSerializer(serializers.Serializer):
    """The definition of a tool that a decision is for."""

    hash = serializers.CharField(
        allow_blank=True, help_text="The hash of the tool that you reviewed; empty for a tool that is no longer listed."
    )


class ToolDecidedSerializer(serializers.Serializer):
    """The changes made by a decision about a tool. A tool is deleted when its removal is approved."""

    changes = serializers.CharField(help_text="The approved or rejected changes, as a sentence.")
