"""Tables of the list pages."""

import django_tables2 as tables
from django.utils.functional import cached_property
from nautobot.apps.tables import BaseTable, BooleanColumn, ButtonsColumn, StatusTableMixin, TagColumn, ToggleColumn

from ai_ops.models import MCPServer, PinnedThread
from ai_ops.snapshots import in_redis, latest_snapshots


class MCPServerTable(StatusTableMixin, BaseTable):
    """The list of MCP servers."""

    pk = ToggleColumn()
    name = tables.Column(linkify=True)
    verify_tls = BooleanColumn()
    secrets_group = tables.Column(linkify=True)
    tags = TagColumn(url_name="plugins:ai_ops:mcpserver_list")
    actions = ButtonsColumn(MCPServer)

    class Meta(BaseTable.Meta):
        """Columns a person may choose, and those shown at first."""

        model = MCPServer
        fields = (
            "pk",
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
            "mcp_type",
            "description",
            "tags",
            "actions",
        )
        default_columns = ("pk", "name", "status", "protocol", "url", "mcp_type", "description", "tags", "actions")


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
