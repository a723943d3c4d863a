"""The REST API of MCP servers."""

from nautobot.apps.testing import APIViewTestCases

from ai_ops.models import MCPServer


class MCPServerAPITest(APIViewTestCases.APIViewTestCase):
    model = MCPServer
    choices_fields = ["protocol", "mcp_type"]
    bulk_update_data = {"description": "edited with others"}
    validation_excluded_fields = ["server_url"]

    @classmethod
    def setUpTestData(cls):
        for number in range(1, 4):
            MCPServer.objects.create(name=f"server {number}", url=f"http://mcp{number}.example.com:8000")
        cls.create_data = [
            {"name": "one", "url": "http://one.example.com"},
            {"name": "two", "url": "https://two.example.com:8443", "mcp_type": "external"},
            {"name": "three", "protocol": "stdio"},
        ]
