"""How objects of AI Ops look in the REST API."""

from nautobot.apps.api import NautobotModelSerializer, TaggedModelSerializerMixin

from ai_ops.models import MCPServer


class MCPServerSerializer(TaggedModelSerializerMixin, NautobotModelSerializer):
    """An MCP server."""

    class Meta:
        """Model and fields."""

        model = MCPServer
        fields = "__all__"
