"""Tables of the list pages."""

import math

import django_tables2 as tables
from django.template.defaultfilters import truncatechars
from django.utils.functional import cached_property
from django.utils.html import format_html
from nautobot.apps.tables import BaseTable, BooleanColumn, ButtonsColumn, StatusTableMixin, TagColumn, ToggleColumn
from nautobot.apps.templatetags import hyperlinked_object
from nautobot.apps.utils import is_uuid

from ai_ops.checkpoints.snapshots import in_redis, latest_snapshots
from ai_ops.choices import (
    MaintenanceKindChoices,
    MCPProtocolChoices,
    MCPServerStatus,
    MCPToolStateChoices,
    RunStateChoices,
)
from ai_ops.mcp.logic.certificates import INCIDENT_DAYS, WARNING_DAYS
from ai_ops.models import (
    MaintenanceRun,
    MCPServer,
    MCPServerCheck,
    MCPServerHealth,
    MCPServerIncident,
    MCPServerTool,
    PinnedThread,
    RetentionPolicy,
    ThreadErasure,
)
from ai_ops.ui.probes_bar import probes_bar
from ai_ops.ui.time_markup import AgeColumn, DurationColumn


def milliseconds(value: float | None) -> str | None:
    """Return a latency as text; None for None."""
    return None if value is None else f"{value:,.0f} ms"


def percent(value: float | None) -> str | None:
    """Return an uptime as text, rounded down (99.996 percent is not 100); None for None."""
    return None if value is None else f"{math.floor(value * 100) / 100:g} %"


STATE_COLORS = {
    RunStateChoices.PENDING: "secondary",
    RunStateChoices.RUNNING: "primary",
    RunStateChoices.SUCCEEDED: "success",
    RunStateChoices.FAILED: "danger",
    RunStateChoices.SKIPPED: "secondary",
    RunStateChoices.INTERRUPTED: "warning",
    RunStateChoices.LOST: "warning",
    RunStateChoices.DEAD: "danger",
}


def state_badge(state: str) -> str:
    """Return the state of a run as a badge."""
    name = dict(RunStateChoices.CHOICES).get(state, state)
    return format_html('<span class="badge bg-{}">{}</span>', STATE_COLORS.get(state, "secondary"), name)


# Without this a name, a time or a duration would wrap and make a list three times as long.
ONE_LINE = {"td": {"class": "text-nowrap"}}
# Long names and addresses wrap into a few lines.
WITH_ROOM = {"td": {"style": "min-width: 14rem; overflow-wrap: anywhere"}}
# An error contains addresses, which would not wrap and would push later columns out of sight. Without a minimum width a
# narrow screen shows a few letters on each line.
BROKEN_ANYWHERE = {"th": {"class": "text-wrap"}, "td": {"style": "min-width: 14rem; overflow-wrap: anywhere"}}


# Maximum number of characters of an error in a list. The page of the run or server shows the whole error.
SHORT_ERROR = 120
LONG_ERROR = 400


# The statuses that health checks set. Other statuses are set by users.
FLIPPED_STATUSES = (MCPServerStatus.HEALTHY, MCPServerStatus.UNHEALTHY)


def certificate_badge(days: int | None) -> str | None:
    """Return the days until a TLS certificate expires as a badge, coloured by urgency; None for None."""
    if days is None:
        return None
    text = f"{days} day{'' if days == 1 else 's'}" if days >= 0 else "expired"
    if days >= WARNING_DAYS:
        return text
    return format_html('<span class="badge bg-{}">{}</span>', "danger" if days < INCIDENT_DAYS else "warning", text)


class MCPServerTable(StatusTableMixin, BaseTable):
    """The list of MCP servers."""

    pk = ToggleColumn()
    name = tables.Column(linkify=True, attrs=WITH_ROOM)
    url = tables.Column(attrs=WITH_ROOM)
    since = AgeColumn(attrs=ONE_LINE, orderable=False)
    message = tables.Column(
        accessor="health__message", orderable=False, attrs=WITH_ROOM, verbose_name="Reason in Words"
    )
    recent = tables.Column(accessor="health__recent", orderable=False, verbose_name="Last Probes")
    verify_tls = BooleanColumn()
    secrets_group = tables.Column(linkify=True)
    reason = tables.Column(accessor="health__reason")
    latency = tables.Column(accessor="health__latency_ms", attrs=ONE_LINE, verbose_name="Latency")
    checked = AgeColumn(accessor="health__checked", attrs=ONE_LINE, verbose_name="Last Check")
    # Ordering by it would compute it for every server.
    uptime_24h = tables.Column(verbose_name="Uptime 24 h", orderable=False)
    flapping = tables.Column(accessor="health__flapping", empty_values=(None, False))
    tools = tables.Column(
        accessor="tool_set__drifted", verbose_name="Tools", orderable=False, empty_values=(None, False)
    )
    protocol_version = tables.Column(accessor="health__protocol_version", attrs=ONE_LINE, verbose_name="MCP")
    server_name = tables.Column(accessor="health__server_name", verbose_name="Calls Itself")
    server_version = tables.Column(accessor="health__server_version", verbose_name="Version")
    certificate = tables.Column(
        accessor="health__certificate_days", order_by="health__certificate_ends", attrs=ONE_LINE
    )
    tags = TagColumn(url_name="plugins:ai_ops:mcpserver_list")
    actions = ButtonsColumn(MCPServer)

    class Meta(BaseTable.Meta):
        """Available columns, and default columns."""

        model = MCPServer
        fields = (
            "pk",
            "name",
            "status",
            "since",
            "reason",
            "message",
            "recent",
            "latency",
            "checked",
            "uptime_24h",
            "flapping",
            "tools",
            "protocol_version",
            "server_name",
            "server_version",
            "certificate",
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
            "since",
            "reason",
            "message",
            "recent",
            "latency",
            "checked",
            "uptime_24h",
            "flapping",
            "tools",
            "url",
            "tags",
            "actions",
        )

    @cached_property
    def viewable(self):
        """Return the ids of the servers on this page whose health the user may view, read once for all rows."""
        request = getattr(self, "request", None)
        if request is None:
            return set()
        rows = self.page.object_list.data if self.paginated_rows is not self.rows else self.data
        visible = MCPServerHealth.objects.restrict(request.user, "view").filter(server__in=[row.pk for row in rows])
        return set(visible.values_list("server", flat=True))

    def render_status(self, record, value, column, bound_column, bound_row):
        """Show the status. A server without a check is neither up nor down."""
        if record.protocol != MCPProtocolChoices.HTTP:
            return format_html('<span class="badge bg-secondary">{}</span>', "Never checked (STDIO)")
        if record.status.name in FLIPPED_STATUSES and getattr(record, "health", None) is None:
            return format_html('<span class="badge bg-secondary">{}</span>', "Not checked yet")
        return column.render(record, self, value, bound_column, bound_row=bound_row)

    def render_message(self, record, value):
        """Show the message of a server that is not well. Its page has further details."""
        return (
            truncatechars(value, SHORT_ERROR) if record.health.reason and record.pk in self.viewable else self.default
        )

    def render_recent(self, value):
        """Show a bar."""
        return probes_bar(value)

    def render_latency(self, value):
        """Show milliseconds."""
        return milliseconds(value)

    def render_certificate(self, value):
        """Show the days until it expires."""
        return certificate_badge(value)

    def render_flapping(self, value):
        """Mark flapping servers; show nothing for others."""
        return format_html('<span class="badge bg-warning">{}</span>', "flapping")

    def render_tools(self, value):
        """Mark servers whose tools differ from the approved ones."""
        return format_html('<span class="badge bg-danger">{}</span>', "drift")

    def render_uptime_24h(self, value):
        """Show a percentage."""
        return percent(value)


class MCPServerCheckTable(BaseTable):
    """The history of checks."""

    server = tables.Column(linkify=True, attrs=WITH_ROOM)
    time = AgeColumn(attrs=ONE_LINE)
    ok = BooleanColumn()
    latency_ms = tables.Column(verbose_name="Latency")
    flipped = tables.Column(verbose_name="Status", empty_values=(None, False))
    protocol_version = tables.Column(verbose_name="MCP")
    certificate_days = tables.Column(verbose_name="Certificate", attrs=ONE_LINE)

    class Meta(BaseTable.Meta):
        """Available columns, and default columns."""

        model = MCPServerCheck
        fields = (
            "time",
            "server",
            "ok",
            "reason",
            "latency_ms",
            "http_status",
            "probes",
            "failures",
            "flipped",
            "protocol_version",
            "server_name",
            "server_version",
            "certificate_days",
        )
        default_columns = fields[:9]

    def render_certificate_days(self, value):
        """Show the days, coloured by urgency."""
        return certificate_badge(value)

    def render_flipped(self, value):
        """Mark checks that changed the status; show nothing for others."""
        return "changed"

    def render_latency_ms(self, value):
        """Show milliseconds."""
        return milliseconds(value)


class PinnedThreadTable(BaseTable):
    """The list of pinned threads."""

    pk = ToggleColumn()
    # Leading and trailing spaces belong to a thread id, and must be visible.
    thread_id = tables.Column(linkify=True, attrs={"a": {"style": "white-space: pre-wrap; word-break: break-all"}})
    is_glob = BooleanColumn(verbose_name="Pattern")
    in_redis = tables.Column(verbose_name="In Redis", empty_values=(), orderable=False)
    created = AgeColumn(attrs=ONE_LINE)
    actions = ButtonsColumn(PinnedThread)

    class Meta(BaseTable.Meta):
        """Available columns, and default columns."""

        model = PinnedThread
        fields = ("pk", "thread_id", "is_glob", "in_redis", "note", "pinned_by", "created", "actions")
        default_columns = fields

    @cached_property
    def snapshot(self):
        """Return the last sampling, read once for all rows."""
        return latest_snapshots()[0]

    def render_in_redis(self, record):
        """Show whether the last sampling found the thread."""
        return in_redis(record, self.snapshot)


class RetentionPolicyTable(BaseTable):
    """The list of retention policies, in the order in which they are matched."""

    pk = ToggleColumn()
    name = tables.Column(linkify=True, attrs=WITH_ROOM)
    enabled = BooleanColumn()
    thread_patterns = tables.Column(attrs={"td": {"style": "white-space: pre-wrap; word-break: break-all"}})
    trim_live_threads = BooleanColumn(verbose_name="Trim")
    max_checkpoints = tables.Column(verbose_name="At Most")
    max_thread_mb = tables.Column(verbose_name="Size (MiB)")
    actions = ButtonsColumn(RetentionPolicy)

    class Meta(BaseTable.Meta):
        """Available columns, and default columns."""

        model = RetentionPolicy
        fields = (
            "pk",
            "weight",
            "name",
            "enabled",
            "thread_patterns",
            "retention",
            "pending_retention",
            "trim_live_threads",
            "keep_last",
            "max_checkpoints",
            "max_thread_mb",
            "description",
            "actions",
        )
        default_columns = fields


class ThreadErasureTable(BaseTable):
    """The list of erasures."""

    name = tables.Column(accessor="pk", linkify=True, verbose_name="Erasure", order_by="created", attrs=ONE_LINE)
    created = AgeColumn(attrs=ONE_LINE)
    requested_by_name = tables.Column(verbose_name="Requested by")
    thread_count = tables.Column(verbose_name="Threads")
    deleted_count = tables.Column(verbose_name="Keys")
    late_count = tables.Column(verbose_name="Late Keys")
    verified = BooleanColumn()
    guarded_until = AgeColumn(attrs=ONE_LINE)

    class Meta(BaseTable.Meta):
        """Available columns, and default columns."""

        model = ThreadErasure
        # A narrow screen shows only the first columns.
        fields = (
            "name",
            "verified",
            "reason",
            "thread_count",
            "deleted_count",
            "requested_by_name",
            "thread_pattern",
            "late_count",
            "guarded_until",
            "created",
        )
        # The name contains the time.
        default_columns = fields[:-1]

    def render_name(self, record):
        """Name the erasure by its time."""
        return str(record)


class MCPServerIncidentTable(BaseTable):
    """The list of incidents."""

    pk = ToggleColumn()
    name = tables.Column(linkify=True, attrs=WITH_ROOM)
    state = tables.Column(empty_values=(), order_by="closed")
    opened = AgeColumn()
    closed = AgeColumn()
    duration = DurationColumn(orderable=False, attrs=ONE_LINE)
    acknowledged_by = tables.Column(verbose_name="Acknowledged by")
    escalated = AgeColumn()
    actions = ButtonsColumn(MCPServerIncident, buttons=("changelog", "delete"))

    class Meta(BaseTable.Meta):
        """Available columns, and default columns."""

        model = MCPServerIncident
        fields = (
            "pk",
            "name",
            "state",
            "kind",
            "reason",
            "opened",
            "closed",
            "duration",
            "acknowledged_by",
            "escalated",
            "actions",
        )
        default_columns = fields

    def render_state(self, record):
        """Show whether the incident is open."""
        return incident_badge(record)

    def render_kind(self, record):
        """Show the kind in words."""
        return format_html('<span class="badge bg-secondary">{}</span>', record.get_kind_display())

    def value_state(self, record):
        """Export the state as a word."""
        return "Closed" if record.closed else "Open"

    def before_render(self, request):
        """Show checkboxes to users who may acknowledge; Nautobot shows them only to users who may delete."""
        if request.user.has_perm("ai_ops.acknowledge_mcpserverincident"):
            self.columns.show("pk")


def incident_badge(incident: MCPServerIncident) -> str:
    """Return the state of an incident (open, acknowledged or closed) as a badge, coloured by urgency."""
    if incident.closed:
        color, word = "success", "Closed"
    elif incident.acknowledged:
        color, word = "warning", "Acknowledged"
    else:
        color, word = "danger", "Open"
    return format_html('<span class="badge bg-{}">{}</span>', color, word)


def tool_badge(tool: MCPServerTool) -> str:
    """Return the state of a tool as a badge."""
    color = MCPToolStateChoices.CSS_CLASSES[tool.state]
    return format_html('<span class="badge bg-{}">{}</span>', color, tool.get_state_display())


class MCPServerToolTable(BaseTable):
    """The list of tools."""

    name = tables.Column(linkify=True, attrs=WITH_ROOM)
    server = tables.Column(linkify=True, attrs=WITH_ROOM)
    description = tables.Column(attrs=WITH_ROOM)
    since = AgeColumn(attrs=ONE_LINE)
    first_seen = AgeColumn()
    short_hash = tables.Column(verbose_name="Hash", order_by="hash")

    class Meta(BaseTable.Meta):
        """Available columns, and default columns."""

        model = MCPServerTool
        fields = ("name", "server", "state", "since", "first_seen", "short_hash", "description")
        default_columns = ("name", "server", "state", "since", "short_hash", "description")

    def render_state(self, record):
        """Show the state as a badge."""
        return tool_badge(record)

    def render_short_hash(self, value):
        """Show the hash in a fixed-width font."""
        return format_html("<code>{}</code>", value)


class MaintenanceRunTable(BaseTable):
    """The list of runs."""

    name = tables.Column(linkify=True, attrs=ONE_LINE)
    attempt = tables.Column(empty_values=(None, 0))
    created = AgeColumn()
    started = AgeColumn(attrs=ONE_LINE)
    finished = AgeColumn(attrs=ONE_LINE)
    next_attempt = AgeColumn(attrs=ONE_LINE, verbose_name="Due")
    execution_time_ms = DurationColumn(attrs=ONE_LINE, verbose_name="Duration")
    # One column, because a running run has no error, and a finished run has no progress.
    note = tables.Column(empty_values=(), orderable=False, attrs=BROKEN_ANYWHERE, verbose_name="Progress or error")

    class Meta(BaseTable.Meta):
        """Available columns, and default columns."""

        model = MaintenanceRun
        fields = (
            "name",
            "kind",
            "subject",
            "state",
            "trigger",
            "owner",
            "attempt",
            "created",
            "started",
            "finished",
            "next_attempt",
            "execution_time_ms",
            "note",
        )
        default_columns = (
            "name",
            "kind",
            "subject",
            "state",
            "started",
            "execution_time_ms",
            "trigger",
            "owner",
            "attempt",
            "note",
        )

    @cached_property
    def servers(self):
        """Return the servers of the runs on this page that the user may view, by their ids as text."""
        runs = self.page.object_list.data if self.paginated_rows is not self.rows else self.data
        ids = [run.subject for run in runs if run.kind == MaintenanceKindChoices.SERVER and is_uuid(run.subject)]
        visible = MCPServer.objects.restrict(self.request.user, "view")
        return {str(key): server for key, server in visible.in_bulk(ids).items()}

    def render_subject(self, record):
        """Show the name of the server, if the subject is a server."""
        return (
            hyperlinked_object(self.servers.get(record.subject)) if record.subject in self.servers else record.subject
        )

    def render_state(self, record):
        """Show the state as a badge."""
        return state_badge(record.state)

    def render_attempt(self, record):
        """Show the attempt and the maximum number of attempts."""
        return f"{record.attempt} of {record.max_attempts}"

    def render_note(self, record):
        """Show the beginning of the error or the progress."""
        return truncatechars(record.progress or record.error, SHORT_ERROR) or self.default


# A narrow screen hides the columns that repeat the name of a run, to make room for its error.
ON_WIDE_SCREENS = {"th": {"class": "d-none d-xl-table-cell"}, "td": {"class": "d-none d-xl-table-cell"}}


class DeadLetterTable(MaintenanceRunTable):
    """Dead runs that wait for a decision, with buttons that submit the form around the table."""

    pk = ToggleColumn()
    name = tables.Column(linkify=True, attrs={"td": {"style": "overflow-wrap: anywhere; min-width: 8rem"}})
    kind = tables.Column(attrs=ON_WIDE_SCREENS)
    subject = tables.Column(attrs=ON_WIDE_SCREENS)
    owner = tables.Column(attrs=ON_WIDE_SCREENS)
    note = tables.Column(
        accessor="error",
        orderable=False,
        attrs={"td": {"style": "overflow-wrap: anywhere; min-width: 10rem"}},
        verbose_name="Error",
    )
    finished = AgeColumn(attrs=ON_WIDE_SCREENS, verbose_name="Dead since")
    actions = tables.TemplateColumn(
        template_name="ai_ops/inc/dead_letter_buttons.html", orderable=False, verbose_name=""
    )

    class Meta(MaintenanceRunTable.Meta):
        """The columns, which users cannot choose."""

        empty_text = "There are no dead letters"
        fields = ("pk", "name", "kind", "subject", "owner", "finished", "note", "actions")
        sequence = fields
        default_columns = fields
        exclude = ("state", "trigger", "attempt", "created", "started", "next_attempt", "execution_time_ms")

    def render_note(self, record):
        """Show more of the error than the list of all runs."""
        return truncatechars(record.error, LONG_ERROR)

    def has_row_for(self, action):
        """Return whether the user may perform the action on any run on this page."""
        return any(getattr(row.record, f"may_{action}") for row in self.page.object_list)

    def before_render(self, request):
        """Show checkboxes if the user may perform an action; Nautobot shows them only for edits and deletions."""
        if self.has_row_for("redrive") or self.has_row_for("discard"):
            self.columns.show("pk")
