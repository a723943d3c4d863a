"""MCP servers in GraphQL."""

from django.contrib.auth import get_user_model
from nautobot.apps.testing import TestCase
from nautobot.core.graphql import execute_query

from ai_ops.models import MCPServer


class GraphQLTest(TestCase):
    def test_servers_are_found_by_filter_with_their_status(self):
        MCPServer.objects.create(name="one", url="http://one.example.com", mcp_type="external")
        MCPServer.objects.create(name="two", protocol="stdio")
        user = get_user_model().objects.create(username="reader", is_superuser=True)
        result = execute_query(
            '{ mcp_servers(protocol: "http") { name url mcp_type health_check status { name } } }', user=user
        )
        assert result.errors is None
        assert result.data == {
            "mcp_servers": [
                {
                    "name": "one",
                    "url": "http://one.example.com",
                    "mcp_type": "EXTERNAL",
                    "health_check": "/health",
                    "status": {"name": "Unhealthy"},
                }
            ]
        }
