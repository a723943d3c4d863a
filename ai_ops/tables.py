"""Tables of the list pages."""

import django_tables2 as tables
from nautobot.apps.tables import BaseTable, ButtonsColumn, StatusTableMixin, TagColumn, ToggleColumn

from ai_ops.models import MCPServer


class MCPServerTable(StatusTableMixin, BaseTable):
    """The list of MCP servers."""

    pk = ToggleColumn()
    name = tables.Column(linkify=True)
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
            "mcp_type",
            "description",
            "tags",
            "actions",
        )
        default_columns = ("pk", "name", "status", "protocol", "url", "mcp_type", "description", "tags", "actions")
