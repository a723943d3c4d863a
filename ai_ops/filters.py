"""Filters of the list pages, the REST API and GraphQL."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import django_filters
from django.contrib.auth import get_user_model
from django.db.models import F, Q, QuerySet
from django.utils import timezone
from nautobot.apps.filters import (
    BaseFilterSet,
    MultiValueCharFilter,
    NaturalKeyOrPKMultipleChoiceFilter,
    NautobotFilterSet,
    SearchFilter,
    StatusModelFilterSetMixin,
)
from nautobot.extras.models import JobResult, ScheduledJob, SecretsGroup

from ai_ops.choices import MCPToolStateChoices
from ai_ops.kinds import KINDS
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
from ai_ops.runs.dead_letters import dead_letters
from ai_ops.runs.quiet_passes import quiet_passes, without_quiet_passes
from ai_ops.schedules.lateness import STANDINGS
from ai_ops.schedules.status import statuses_of

# A century. Python has no dates after the year 9999.
MAX_CERTIFICATE_DAYS = 36_500.0


def _server_filter() -> NaturalKeyOrPKMultipleChoiceFilter:
    """Return a filter by servers, each given by its name or its id."""
    return NaturalKeyOrPKMultipleChoiceFilter(
        queryset=MCPServer.objects.all(), to_field_name="name", label="MCP server (name or ID)"
    )


class MCPServerFilterSet(StatusModelFilterSetMixin, NautobotFilterSet):
    """Filter for MCPServer. Every field has Nautobot's usual lookups, such as `server_url__ic`."""

    # As in the REST API, where `url` is the address of the record.
    server_url = MultiValueCharFilter(field_name="url", label="URL of the server")
    flapping = django_filters.BooleanFilter(field_name="health__flapping", label="Is flapping")
    is_checked = django_filters.BooleanFilter(
        field_name="health", lookup_expr="isnull", exclude=True, label="Has been checked"
    )
    tool_state = django_filters.MultipleChoiceFilter(
        field_name="tools__state", choices=MCPToolStateChoices, label="Has tools that are"
    )
    tools_reason = MultiValueCharFilter(field_name="tool_set__reason", label="Reason why its tools could not be listed")

    protocol_version = MultiValueCharFilter(field_name="health__protocol_version", label="Revision of MCP")
    server_name = MultiValueCharFilter(field_name="health__server_name", label="Server name in its own answers")
    server_version = MultiValueCharFilter(
        field_name="health__server_version", label="Server version in its own answers"
    )
    certificate_days = django_filters.NumberFilter(
        method="_with_certificate", label="TLS certificate expires within this many days"
    )

    q = SearchFilter(
        filter_predicates={
            "name": "icontains",
            "url": "icontains",
            "description": "icontains",
        }
    )

    secrets_group = NaturalKeyOrPKMultipleChoiceFilter(
        queryset=SecretsGroup.objects.all(), to_field_name="name", label="Secrets group (name or ID)"
    )

    class Meta:
        """Model and fields."""

        model = MCPServer
        fields = "__all__"
        exclude = ("url",)

    def _with_certificate(self, queryset: QuerySet, name: str, value: Decimal) -> QuerySet:
        # A date outside the calendar matches all of them.
        days = min(float(value), MAX_CERTIFICATE_DAYS)
        return queryset.filter(health__certificate_ends__lt=timezone.now() + timedelta(days=days))


class PinnedThreadFilterSet(NautobotFilterSet):
    """Filter for PinnedThread."""

    q = SearchFilter(filter_predicates={"thread_id": "icontains", "note": "icontains"})
    # Spaces at its ends belong to a thread's id.
    thread_id = MultiValueCharFilter(strip=False)

    class Meta:
        """Model and fields."""

        model = PinnedThread
        fields = "__all__"


class RetentionPolicyFilterSet(NautobotFilterSet):
    """Filter for RetentionPolicy, such as `enabled=true` and `thread_patterns__ic=user-`."""

    q = SearchFilter(
        filter_predicates={"name": "icontains", "thread_patterns": "icontains", "description": "icontains"}
    )

    class Meta:
        """Model and fields."""

        model = RetentionPolicy
        fields = "__all__"


class ThreadErasureFilterSet(BaseFilterSet):
    """Filter for ThreadErasure, such as `verified=false` and `created__gte=2026-01-01`."""

    q = SearchFilter(
        filter_predicates={
            "reason": "icontains",
            "thread_pattern": "icontains",
            "requested_by_name": "icontains",
            "thread_ids": "icontains",
        }
    )
    requested_by = NaturalKeyOrPKMultipleChoiceFilter(
        queryset=get_user_model().objects.all(), to_field_name="username", label="Requested by (username or ID)"
    )

    class Meta:
        """Model and fields."""

        model = ThreadErasure
        fields = (
            "id",
            "created",
            "finished",
            "requested_by",
            "requested_by_name",
            "reason",
            "thread_pattern",
            "verified",
            "deleted_count",
            "late_count",
            "guarded_until",
        )


class MCPServerHealthFilterSet(BaseFilterSet):
    """Filter for MCPServerHealth, such as `ok=false` or `last_ok__lt=2026-01-01`."""

    server = _server_filter()

    class Meta:
        """Model and fields."""

        model = MCPServerHealth
        fields = (
            "id",
            "server",
            "checked",
            "ok",
            "reason",
            "latency_ms",
            "http_status",
            "last_ok",
            "last_failure",
            "protocol_version",
            "server_name",
            "server_version",
            "certificate_ends",
        )


class MCPServerCheckFilterSet(BaseFilterSet):
    """Filter for MCPServerCheck, such as `server=Tickets` and `time__gte=2026-01-01`."""

    q = SearchFilter(filter_predicates={"server__name": "icontains", "reason": "icontains"})
    server = _server_filter()

    class Meta:
        """Model and fields."""

        model = MCPServerCheck
        fields = (
            "id",
            "server",
            "time",
            "ok",
            "reason",
            "latency_ms",
            "http_status",
            "flipped",
            "probes",
            "failures",
            "protocol_version",
            "server_name",
            "server_version",
            "certificate_days",
        )


class MCPServerIncidentFilterSet(NautobotFilterSet):
    """Filter for MCPServerIncident, such as `is_open=true` and `servers=Tickets`."""

    q = SearchFilter(filter_predicates={"name": "icontains", "reason": "icontains", "message": "icontains"})
    is_open = django_filters.BooleanFilter(field_name="closed", lookup_expr="isnull", label="Is open")
    is_acknowledged = django_filters.BooleanFilter(
        field_name="acknowledged", lookup_expr="isnull", exclude=True, label="Is acknowledged"
    )
    servers = NaturalKeyOrPKMultipleChoiceFilter(
        queryset=MCPServer.objects.all(), to_field_name="name", label="MCP servers (name or ID)"
    )

    class Meta:
        """Model and fields."""

        model = MCPServerIncident
        fields = "__all__"


class MaintenanceRunFilterSet(BaseFilterSet):
    """Filter for MaintenanceRun, such as `state=dead` and `created__gte=2026-01-01`."""

    q = SearchFilter(filter_predicates={"name": "icontains", "subject": "icontains", "error": "icontains"})
    owner = NaturalKeyOrPKMultipleChoiceFilter(
        queryset=get_user_model().objects.all(), to_field_name="username", label="Owner (username or ID)"
    )
    parent = NaturalKeyOrPKMultipleChoiceFilter(
        queryset=MaintenanceRun.objects.all(), to_field_name="name", label="Parent (name or ID)"
    )
    job_result = django_filters.ModelMultipleChoiceFilter(queryset=JobResult.objects.all(), label="Job result (ID)")
    has_error = django_filters.BooleanFilter(method="_with_error", label="Has an error")
    is_dead_letter = django_filters.BooleanFilter(method="_dead_letters", label="Is a dead letter")
    is_quiet = django_filters.BooleanFilter(method="_quiet", label="Found no work (supervisor and incident review)")

    class Meta:
        """Model and fields."""

        model = MaintenanceRun
        fields = (
            "id",
            "name",
            "kind",
            "subject",
            "trigger",
            "state",
            "owner",
            "parent",
            "job_result",
            "idempotency_key",
            "attempt",
            "next_attempt",
            "heartbeat",
            "fence",
            "cancel_requested",
            "discarded",
            "created",
            "started",
            "finished",
            "execution_time_ms",
        )

    def _with_error(self, queryset: QuerySet, name: str, value: bool) -> QuerySet:
        return queryset.exclude(error="") if value else queryset.filter(error="")

    def _dead_letters(self, queryset: QuerySet, name: str, value: bool) -> QuerySet:
        waiting = dead_letters(MaintenanceRun.objects.all())
        return dead_letters(queryset) if value else queryset.exclude(pk__in=waiting.values("pk"))

    def _quiet(self, queryset: QuerySet, name: str, value: bool) -> QuerySet:
        return queryset.filter(quiet_passes()) if value else without_quiet_passes(queryset)


class MCPServerToolFilterSet(BaseFilterSet):
    """Filter for MCPServerTool, such as `server=Tickets` and `state=changed`."""

    q = SearchFilter(filter_predicates={"name": "icontains", "server__name": "icontains", "description": "icontains"})
    server = _server_filter()

    class Meta:
        """Model and fields."""

        model = MCPServerTool
        fields = ("id", "server", "name", "state", "since", "first_seen", "hash", "approved_hash", "description")


class MCPServerToolSetFilterSet(BaseFilterSet):
    """Filter for MCPServerToolSet, such as `drifted=true` and `reason=TIMEOUT`."""

    server = _server_filter()
    drifted = django_filters.BooleanFilter(method="filter_drifted", label="Differs from the approved list")

    class Meta:
        """Model and fields."""

        model = MCPServerToolSet
        fields = ("id", "server", "asked", "listed", "reason", "listed_hash", "approved_hash", "approved")

    def filter_drifted(self, queryset, name, value):
        """Filter by whether the two hashes differ."""
        same = Q(listed_hash=F("approved_hash"))
        return queryset.exclude(same) if value else queryset.filter(same)


class ScheduleFilterSet(BaseFilterSet):
    """Filter for the app's schedules in the REST API, such as `kind=cleanup` and `late=true`."""

    q = SearchFilter(filter_predicates={"name": "icontains"})
    kind = django_filters.MultipleChoiceFilter(
        choices=[(kind, kind) for kind in KINDS], method="_of_rows", label="Kind"
    )
    standing = django_filters.MultipleChoiceFilter(
        choices=[(standing, standing) for standing in STANDINGS], method="_of_rows", label="Standing"
    )
    late = django_filters.BooleanFilter(method="_of_rows", label="Is late")
    owner = MultiValueCharFilter(field_name="user__username", label="Owner (username)")
    queue = MultiValueCharFilter(field_name="job_queue__name", label="Job queue (name)")

    class Meta:
        """Model and fields."""

        model = ScheduledJob
        fields = ("id", "name", "enabled")

    def _of_rows(self, queryset: QuerySet, name: str, value: Any) -> QuerySet:
        """Filter by values that are computed from a schedule."""
        wanted = value if isinstance(value, list) else [value]
        found = [each.id for each in statuses_of(queryset) if getattr(each, name) in wanted]
        return queryset.filter(pk__in=found) if wanted else queryset
