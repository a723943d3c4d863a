"""The REST API of MCP servers."""

from django.urls import reverse
from django.utils import timezone
from nautobot.apps.testing import APITestCase, APIViewTestCases
from nautobot.extras.models import ObjectChange

from ai_ops.models import MCPServer, MCPServerCheck


class MCPServerAPITest(APIViewTestCases.APIViewTestCase):
    model = MCPServer
    choices_fields = ["probe", "protocol", "mcp_type"]
    bulk_update_data = {"description": "edited with others"}

    @classmethod
    def setUpTestData(cls):
        for number in range(1, 4):
            MCPServer.objects.create(name=f"server {number}", url=f"http://mcp{number}.example.com:8000")
        cls.create_data = [
            {"name": "one", "server_url": "http://one.example.com"},
            {"name": "two", "server_url": "https://two.example.com:8443", "mcp_type": "external"},
            {"name": "three", "protocol": "stdio"},
        ]


class CreateTest(APITestCase):
    def setUp(self):
        super().setUp()
        self.add_permissions("ai_ops.add_mcpserver", "ai_ops.view_mcpserver", "ai_ops.change_mcpserver")
        self.add_permissions("extras.view_status")
        self.url = reverse("plugins-api:ai_ops-api:mcpserver-list")

    def create(self, **fields):
        data = {"name": "one", "server_url": "http://one.example.com", **fields}
        return self.client.post(self.url, data, format="json", **self.header)

    def errors(self, **fields):
        response = self.create(**fields)
        self.assertHttpStatus(response, 400)
        return response.json()

    def test_a_new_server_is_unhealthy_and_its_paths_have_slashes(self):
        self.assertHttpStatus(self.create(mcp_endpoint="mcp", health_check="live"), 201)
        server = MCPServer.objects.get()
        assert (server.status.name, server.mcp_endpoint, server.health_check) == ("Unhealthy", "/mcp", "/live")

    def test_a_status_may_be_given_by_name(self):
        self.assertHttpStatus(self.create(status="Maintenance"), 201)
        assert MCPServer.objects.get().status.name == "Maintenance"

    def test_url_is_the_address_of_the_record_and_server_url_that_of_the_server(self):
        data = self.create().json()
        assert data["server_url"] == "http://one.example.com"
        assert self.client.get(data["url"], **self.header).json()["id"] == data["id"]

    def test_servers_are_ordered_by_their_address(self):
        for number in (2, 1, 3):
            self.create(name=f"name {9 - number}", server_url=f"http://mcp{number}.example.com")
        for sort, expected in (("server_url", [1, 2, 3]), ("-server_url", [3, 2, 1]), ("url", [3, 2, 1])):
            found = self.client.get(self.url, {"sort": sort}, **self.header).json()["results"]
            assert [row["server_url"] for row in found] == [f"http://mcp{number}.example.com" for number in expected]

    def test_a_server_within_another_record_has_both_addresses(self):
        data = self.create().json()
        MCPServerCheck.objects.create(server_id=data["id"], ok=True, latency_ms=1, time=timezone.now())
        self.add_permissions("ai_ops.view_mcpservercheck")
        checks = reverse("plugins-api:ai_ops-api:mcpservercheck-list")
        (check,) = self.client.get(checks, {"depth": 1}, **self.header).json()["results"]
        assert (check["server"]["url"], check["server"]["server_url"]) == (data["url"], data["server_url"])

    def test_the_change_log_has_both_addresses(self):
        data = self.create().json()
        logged = ObjectChange.objects.get(changed_object_id=data["id"]).object_data_v2
        assert (logged["url"], logged["server_url"]) == (
            f"/api/plugins/ai-ops/mcp-servers/{data['id']}/",
            "http://one.example.com",
        )

    def test_an_error_names_its_field_and_says_what_to_do(self):
        for field, value, sentence in (
            ("server_url", "", "Enter the URL of the HTTP server"),
            ("server_url", None, "This field may not be null."),
            ("server_url", "http://[::1", "Enter a valid URL"),
            ("server_url", "http://one.example.com:99999", "Enter a valid URL"),
            ("server_url", "javascript:alert(1)", "Enter a URL that starts with http://"),
            ("server_url", "http://user:secret@one.example.com", "Remove the user name and the password"),
            ("server_url", "http://one\x00.example.com", "Null characters are not allowed."),
            ("server_url", ["http://one.example.com"], "Not a valid string."),
            ("health_check", "/he alth", "Remove the spaces"),
            ("health_check", "x" * 255, "Ensure this value has at most 255 characters"),
            ("mcp_endpoint", "http://one.example.com/mcp", "Enter only the path"),
            ("protocol", "carrier pigeon", '"carrier pigeon" is not a valid choice: give one of "http", "stdio".'),
            ("status", "Nonsense", "Related object not found"),
        ):
            with self.subTest(field=field, value=value):
                errors = self.errors(**{field: value})
                assert list(errors) == [field]
                assert sentence in str(errors[field])

    def test_an_error_comes_with_a_change_too(self):
        self.create()
        url = reverse("plugins-api:ai_ops-api:mcpserver-detail", kwargs={"pk": MCPServer.objects.get().pk})
        response = self.client.patch(url, {"server_url": "http://one.example.com?"}, format="json", **self.header)
        self.assertHttpStatus(response, 400)
        assert list(response.json()) == ["server_url"]

    def test_a_csv_keeps_the_address_and_comes_back_whole(self):
        self.create(description="kept")
        csv = self.client.get(self.url + "?format=csv", **self.header).content.decode()
        header = csv.splitlines()[0].split(",")
        assert "server_url" in header
        assert "url" not in header
        MCPServer.objects.all().delete()
        self.assertHttpStatus(self.client.post(self.url, csv, content_type="text/csv", **self.header), 201)
        assert list(MCPServer.objects.values_list("url", "description")) == [("http://one.example.com", "kept")]

    def test_something_that_is_no_object_is_refused(self):
        for data in ("text", 1, None):
            with self.subTest(data):
                self.assertHttpStatus(self.client.post(self.url, data, format="json", **self.header), 400)
