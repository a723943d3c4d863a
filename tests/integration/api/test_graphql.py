"""MCP servers in GraphQL."""

from django.contrib.auth import get_user_model
from django.db import connection
from django.test.utils import CaptureQueriesContext
from nautobot.apps.testing import TestCase
from nautobot.core.graphql import execute_query

from ai_ops.models import MCPServer


class GraphQLTest(TestCase):
    def test_servers_are_found_by_filter_with_their_status(self):
        one = MCPServer.objects.create(name="one", url="http://one.example.com", mcp_type="external")
        MCPServer.objects.create(name="two", protocol="stdio")
        user = get_user_model().objects.create(username="reader", is_superuser=True)
        result = execute_query(
            '{ mcp_servers(protocol: "http") { id name url server_url mcp_type health_check status { name } } }',
            user=user,
        )
        assert result.errors is None
        assert result.data == {
            "mcp_servers": [
                {
                    "id": str(one.pk),
                    "name": "one",
                    "url": f"/api/plugins/ai-ops/mcp-servers/{one.pk}/",
                    "server_url": "http://one.example.com",
                    "mcp_type": "EXTERNAL",
                    "health_check": "/health",
                    "status": {"name": "Unhealthy"},
                }
            ]
        }

    def test_servers_are_found_by_their_address_with_one_query(self):
        for number in range(3):
            MCPServer.objects.create(name=f"server {number}", url=f"http://mcp{number}.example.com")
        user = get_user_model().objects.create(username="reader", is_superuser=True)
        with CaptureQueriesContext(connection) as queries:
            result = execute_query('{ mcp_servers(server_url__nic: "mcp1") { name server_url } }', user=user)
        assert result.errors is None
        assert sum('FROM "ai_ops_mcpserver"' in query["sql"] for query in queries) == 1
        assert [row["server_url"] for row in result.data["mcp_servers"]] == [
            "http://mcp0.example.com",
            "http://mcp2.example.com",
        ]
