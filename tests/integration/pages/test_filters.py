"""The filters of MCP servers."""

from nautobot.apps.testing import FilterTestCases
from nautobot.extras.models import SecretsGroup, Status

from ai_ops.filters import MCPServerFilterSet
from ai_ops.models import MCPServer


class MCPServerFilterTest(FilterTestCases.FilterTestCase):
    queryset = MCPServer.objects.all()
    filterset = MCPServerFilterSet
    tenancy_related_filters = []
    generic_filter_tests = [
        ["name"],
        ["server_url", "url"],
        ["mcp_endpoint"],
        ["health_check"],
        ["description"],
        ["ca_file"],
        ["status", "status__id"],
        ["status", "status__name"],
    ]

    @classmethod
    def setUpTestData(cls):
        statuses = list(Status.objects.get_for_model(MCPServer)[:3])
        for number, status in enumerate(statuses):
            MCPServer.objects.create(
                name=f"server {number}",
                status=status,
                url=f"http://mcp{number}.example.com:8000",
                mcp_endpoint=f"/mcp{number}",
                health_check=f"/health{number}",
                description=f"number {number}",
                ca_file=f"/etc/ssl/ca{number}.pem",
                probe=("auto", "http", "mcp")[number],
                secrets_group=SecretsGroup.objects.create(name=f"group {number}"),
            )
        MCPServer.objects.create(name="local", protocol="stdio", mcp_type="external")

    def test_servers_are_found_by_protocol(self):
        assert self.names(protocol=["stdio"]) == ["local"]

    def test_servers_are_found_by_type(self):
        assert self.names(mcp_type=["internal"]) == ["server 0", "server 1", "server 2"]

    def test_servers_are_found_by_how_they_are_asked(self):
        assert self.names(probe=["http", "mcp"]) == ["server 1", "server 2"]
        assert self.names(verify_tls="false") == []

    def test_servers_are_found_by_their_secrets_group(self):
        assert self.names(secrets_group=["group 1"]) == ["server 1"]

    def test_a_search_looks_into_name_url_and_description(self):
        for text in ("SERVER 1", "mcp1.example", "number 1"):
            with self.subTest(text):
                assert self.names(q=text) == ["server 1"]

    def test_servers_are_found_by_their_address_under_its_name_in_the_api(self):
        assert self.names(server_url="http://mcp1.example.com:8000") == ["server 1"]
        assert self.names(server_url__ic="MCP1.") == ["server 1"]
        assert self.names(server_url__n="http://mcp1.example.com:8000") == ["local", "server 0", "server 2"]
        assert not self.filterset({"url": "http://mcp1.example.com:8000"}, self.queryset).is_valid()

    def names(self, **params):
        return [server.name for server in self.filterset(params, self.queryset).qs]
