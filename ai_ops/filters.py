"""Filters of the list pages, the REST API and GraphQL."""

import django_filters
from nautobot.apps.filters import (
    BaseFilterSet,
    MultiValueCharFilter,
    NaturalKeyOrPKMultipleChoiceFilter,
    NautobotFilterSet,
    SearchFilter,
    StatusModelFilterSetMixin,
)
from nautobot.extras.models import SecretsGroup

from ai_ops.models import MCPServer, MCPServerCheck, MCPServerHealth, MCPServerIncident, PinnedThread


def _server_filter() -> NaturalKeyOrPKMultipleChoiceFilter:
    """A filter by servers, each named or given by its id."""
    return NaturalKeyOrPKMultipleChoiceFilter(
        queryset=MCPServer.objects.all(), to_field_name="name", label="MCP server (name or ID)"
    )


class MCPServerFilterSet(StatusModelFilterSetMixin, NautobotFilterSet):
    """Filter for MCPServer; every field with Nautobot's usual lookups, such as `url__ic`."""

    flapping = django_filters.BooleanFilter(field_name="health__flapping", label="Is flapping")

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


class PinnedThreadFilterSet(NautobotFilterSet):
    """Filter for PinnedThread."""

    q = SearchFilter(filter_predicates={"thread_id": "icontains", "note": "icontains"})
    # Blanks at its ends belong to a thread's id.
    thread_id = MultiValueCharFilter(strip=False)

    class Meta:
        """Model and fields."""

        model = PinnedThread
        fields = "__all__"


class MCPServerHealthFilterSet(BaseFilterSet):
    """Filter for MCPServerHealth, such as `ok=false` or `last_ok__lt=2026-01-01`."""

    server = _server_filter()

    class Meta:
        """Model and fields."""

        model = MCPServerHealth
        fields = ("id", "server", "checked", "ok", "reason", "latency_ms", "http_status", "last_ok", "last_failure")


class MCPServerCheckFilterSet(BaseFilterSet):
    """Filter for MCPServerCheck, such as `server=Tickets` and `time__gte=2026-01-01`."""

    q = SearchFilter(filter_predicates={"server__name": "icontains", "reason": "icontains"})
    server = _server_filter()

    class Meta:
        """Model and fields."""

        model = MCPServerCheck
        fields = ("id", "server", "time", "ok", "reason", "latency_ms", "http_status", "flipped")


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
