"""Tables of the list pages."""

import math

import django_tables2 as tables
from django.utils.functional import cached_property
from django.utils.html import format_html
from nautobot.apps.tables import BaseTable, BooleanColumn, ButtonsColumn, StatusTableMixin, TagColumn, ToggleColumn

from ai_ops.choices import MCPToolStateChoices
from ai_ops.models import MCPServer, MCPServerCheck, MCPServerIncident, MCPServerTool, PinnedThread
from ai_ops.snapshots import in_redis, latest_snapshots


def milliseconds(value: float | None) -> str | None:
    """A latency for people; None where there is none."""
    return None if value is None else f"{value:,.0f} ms"


def percent(value: float | None) -> str | None:
    """An uptime for people; None where there is none. Rounded down: 99.996 percent is not all of the time."""
    return None if value is None else f"{math.floor(value * 100) / 100:g} %"


class MCPServerTable(StatusTableMixin, BaseTable):
    """The list of MCP servers."""

    pk = ToggleColumn()
    name = tables.Column(linkify=True)
    verify_tls = BooleanColumn()
    secrets_group = tables.Column(linkify=True)
    reason = tables.Column(accessor="health__reason")
    latency = tables.Column(accessor="health__latency_ms", verbose_name="Latency")
    checked = tables.DateTimeColumn(accessor="health__checked", short=True, verbose_name="Last Check")
    # Ordered by it, the list would have to compute it for every server there is.
    uptime_24h = tables.Column(verbose_name="Uptime 24 h", orderable=False)
    flapping = tables.Column(accessor="health__flapping", empty_values=(None, False))
    tools = tables.Column(
        accessor="tool_set__drifted", verbose_name="Tools", orderable=False, empty_values=(None, False)
    )
    tags = TagColumn(url_name="plugins:ai_ops:mcpserver_list")
    actions = ButtonsColumn(MCPServer)

    class Meta(BaseTable.Meta):
        """Columns a person may choose, and those shown at first."""

        model = MCPServer
        fields = (
            "pk",
            "name",
            "status",
            "reason",
            "latency",
            "checked",
            "uptime_24h",
            "flapping",
            "tools",
            "protocol",
            "url",
            "mcp_endpoint",
            "health_check",
            "probe",
            "check_interval",
            "verify_tls",
            "ca_file",
            "secrets_group",
            "mcp_type",
            "description",
            "tags",
            "actions",
        )
        default_columns = (
            "pk",
            "name",
            "status",
            "reason",
            "latency",
            "checked",
            "uptime_24h",
            "flapping",
            "tools",
            "url",
            "description",
            "tags",
            "actions",
        )

    def render_latency(self, value):
        """Show milliseconds."""
        return milliseconds(value)

    def render_flapping(self, value):
        """Mark what flaps; nothing else is worth a mark."""
        return format_html('<span class="badge bg-warning">{}</span>', "flapping")

    def render_tools(self, value):
        """Mark what differs from the approved tools."""
        return format_html('<span class="badge bg-danger">{}</span>', "drift")

    def render_uptime_24h(self, value):
        """Show a percentage."""
        return percent(value)


class MCPServerCheckTable(BaseTable):
    """The history of checks."""

    server = tables.Column(linkify=True)
    time = tables.DateTimeColumn(short=True)
    ok = BooleanColumn()
    latency_ms = tables.Column(verbose_name="Latency")
    flipped = tables.Column(verbose_name="Status", empty_values=(None, False))

    class Meta(BaseTable.Meta):
        """Columns a person may choose, and those shown at first."""

        model = MCPServerCheck
        fields = ("time", "server", "ok", "reason", "latency_ms", "http_status", "flipped")
        default_columns = fields

    def render_flipped(self, value):
        """Say where a check changed the status; nothing else is worth a mark in every row."""
        return "changed"

    def render_latency_ms(self, value):
        """Show milliseconds."""
        return milliseconds(value)


class PinnedThreadTable(BaseTable):
    """The list of pinned threads."""

    pk = ToggleColumn()
    # Blanks at its ends belong to a thread's id, and are to be seen.
    thread_id = tables.Column(linkify=True, attrs={"a": {"style": "white-space: pre-wrap; word-break: break-all"}})
    in_redis = tables.Column(verbose_name="In Redis", empty_values=(), orderable=False)
    actions = ButtonsColumn(PinnedThread)

    class Meta(BaseTable.Meta):
        """Columns a person may choose, and those shown at first."""

        model = PinnedThread
        fields = ("pk", "thread_id", "in_redis", "note", "pinned_by", "created", "actions")
        default_columns = fields

    @cached_property
    def snapshot(self):
        """The last sampling, read once for all rows."""
        return latest_snapshots()[0]

    def render_in_redis(self, record):
        """Say whether the last sampling has seen the thread."""
        return in_redis(record, self.snapshot)


class MCPServerIncidentTable(BaseTable):
    """The list of incidents."""

    pk = ToggleColumn()
    name = tables.Column(linkify=True)
    opened = tables.DateTimeColumn(short=True)
    closed = tables.DateTimeColumn(short=True)
    duration = tables.Column(orderable=False)
    acknowledged_by = tables.Column(verbose_name="Acknowledged by")
    escalated = tables.DateTimeColumn(short=True)
    actions = ButtonsColumn(MCPServerIncident, buttons=("changelog", "delete"))

    class Meta(BaseTable.Meta):
        """Columns a person may choose, and those shown at first."""

        model = MCPServerIncident
        fields = (
            "pk",
            "name",
            "reason",
            "opened",
            "closed",
            "duration",
            "acknowledged_by",
            "escalated",
            "actions",
        )
        default_columns = fields


def state_badge(tool: MCPServerTool) -> str:
    """A tool's state, in its colour."""
    color = MCPToolStateChoices.CSS_CLASSES[tool.state]
    return format_html('<span class="badge bg-{}">{}</span>', color, tool.get_state_display())


class MCPServerToolTable(BaseTable):
    """The list of tools."""

    name = tables.Column(linkify=True)
    server = tables.Column(linkify=True)
    since = tables.DateTimeColumn(short=True)
    first_seen = tables.DateTimeColumn(short=True)
    short_hash = tables.Column(verbose_name="Hash", order_by="hash")

    class Meta(BaseTable.Meta):
        """Columns a person may choose, and those shown at first."""

        model = MCPServerTool
        fields = ("name", "server", "state", "since", "first_seen", "short_hash", "description")
        default_columns = ("name", "server", "state", "since", "short_hash", "description")

    def render_state(self, record):
        """Show it in its colour."""
        return state_badge(record)

    def render_short_hash(self, value):
        """Show it as what it is."""
        return format_html("<code>{}</code>", value)
