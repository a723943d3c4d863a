"""What Nautobot would not generate rightly by itself."""

from nautobot.apps.graphql import OptimizedNautobotObjectType

from ai_ops.filters import MCPServerFilterSet
from ai_ops.models import MCPServer


class MCPServerType(OptimizedNautobotObjectType):
    """An MCP server, whose `url` is its own address and not that of its record in the REST API."""

    class Meta:
        """Model and filters."""

        model = MCPServer
        filterset_class = MCPServerFilterSet

    def resolve_url(self, info):
        """Answer with the field of that name."""
        return self.url


graphql_types = [MCPServerType]
