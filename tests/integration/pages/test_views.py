"""The pages of MCP servers, looked at as a user."""

from django.contrib.contenttypes.models import ContentType
from django.urls import reverse
from nautobot.apps.testing import TestCase, ViewTestCases, create_job_result_and_run_job, extract_page_body
from nautobot.extras.models import FileProxy, ObjectChange, Status
from nautobot.extras.registry import registry

from ai_ops.models import MCPServer
from ai_ops.schedules import DEFAULT_SCHEDULES


class MCPServerViewTest(ViewTestCases.PrimaryObjectViewTestCase):
    model = MCPServer

    @classmethod
    def setUpTestData(cls):
        for number in range(1, 4):
            MCPServer.objects.create(name=f"server {number}", url=f"http://mcp{number}.example.com:8000")
        cls.form_data = {
            "name": "a new server",
            "status": Status.objects.get(name="Healthy").pk,
            "protocol": "http",
            "url": "https://new.example.com",
            "mcp_endpoint": "/mcp",
            "health_check": "/health",
            "probe": "mcp",
            "verify_tls": True,
            "ca_file": "/etc/ssl/internal.pem",
            "mcp_type": "internal",
            "description": "added by hand",
        }
        cls.bulk_edit_data = {
            "mcp_type": "external",
            "description": "edited with others",
            "probe": "mcp",
            "verify_tls": False,
            "ca_file": "/etc/ssl/internal.pem",
        }


class PagesTestCase(TestCase):
    def setUp(self):
        super().setUp()
        self.user.is_superuser = True
        self.user.save()

    def page(self, name, **kwargs):
        response = self.client.get(reverse(name, **kwargs))
        self.assertHttpStatus(response, 200)
        return response.content.decode()


class FormTest(PagesTestCase):
    def setUp(self):
        super().setUp()
        self.fields = {
            "name": "one",
            "protocol": "http",
            "url": "http://one.example.com",
            "mcp_endpoint": "mcp",
            "health_check": "health",
            "probe": "auto",
            "verify_tls": True,
            "mcp_type": "internal",
        }

    def add(self, **fields):
        return self.client.post(reverse("plugins:ai_ops:mcpserver_add"), {**self.fields, **fields})

    def errors(self, **fields):
        response = self.add(**fields)
        self.assertHttpStatus(response, 200)
        assert not MCPServer.objects.exists()
        return response.context["form"].errors

    def test_the_form_comes_with_unhealthy_chosen(self):
        form = self.client.get(reverse("plugins:ai_ops:mcpserver_add")).context["form"]
        assert form["status"].value() == Status.objects.get(name="Unhealthy").pk

    def test_a_new_server_is_unhealthy_unless_a_status_is_chosen(self):
        self.assertHttpStatus(self.add(), 302)
        server = MCPServer.objects.get()
        assert server.status.name == "Unhealthy"
        assert (server.mcp_endpoint, server.health_check) == ("/mcp", "/health")

    def test_the_status_of_a_server_may_not_be_emptied(self):
        server = MCPServer.objects.create(**self.fields)
        url = reverse("plugins:ai_ops:mcpserver_edit", kwargs={"pk": server.pk})
        response = self.client.post(url, {**self.fields, "status": ""})
        assert list(response.context["form"].errors) == ["status"]

    def test_without_the_unhealthy_status_one_must_be_chosen(self):
        Status.objects.get(name="Unhealthy").delete()
        assert self.errors() == {
            "status": ["Choose a status: Unhealthy, in which a new server starts, is not available."]
        }

    def test_an_error_stands_with_its_field(self):
        for field, value, sentence in (
            ("url", "", "Enter the URL of the HTTP server"),
            ("url", "http://[::1", "Enter a valid URL"),
            ("url", "http://one.example.com:99999", "Enter a valid URL"),
            ("url", "http://user:secret@one.example.com", "Remove the user name and the password"),
            ("health_check", "/he alth", "Remove the spaces"),
            ("mcp_endpoint", "http://one.example.com/mcp", "Enter only the path"),
        ):
            with self.subTest(field=field, value=value):
                errors = self.errors(**{field: value})
                assert list(errors) == [field]
                assert errors[field][0].startswith(sentence)

    def test_a_clone_brings_everything_but_name_and_description(self):
        server = MCPServer.objects.create(**self.fields, description="the first")
        response = self.client.get(server.get_absolute_url())
        self.assertContains(response, "protocol=http&amp;url=http%3A%2F%2Fone.example.com")


class DetailTest(PagesTestCase):
    def test_it_shows_the_addresses_that_agents_and_checks_use(self):
        server = MCPServer.objects.create(name="one", url="http://one.example.com:8000")
        page = self.page("plugins:ai_ops:mcpserver", kwargs={"pk": server.pk})
        assert "http://one.example.com:8000/mcp" in page
        assert "http://one.example.com:8000/health" in page

    def test_a_stdio_server_has_no_addresses(self):
        server = MCPServer.objects.create(name="one", protocol="stdio")
        assert "Health Check Address" not in self.page("plugins:ai_ops:mcpserver", kwargs={"pk": server.pk})

    def test_a_description_is_text_and_not_markup(self):
        server = MCPServer.objects.create(name="<b>one</b>", url="http://one.example.com", description="<script>x")
        page = extract_page_body(self.page("plugins:ai_ops:mcpserver", kwargs={"pk": server.pk}))
        assert "<b>one" not in page
        assert "<script>x" not in page

    def test_an_edit_is_in_the_change_log_and_notes_can_be_added(self):
        server = MCPServer.objects.create(name="one", url="http://one.example.com")
        self.client.post(
            reverse("plugins:ai_ops:mcpserver_edit", kwargs={"pk": server.pk}),
            {
                "name": "renamed",
                "status": server.status.pk,
                "protocol": "http",
                "url": server.url,
                "probe": "auto",
                "mcp_type": "internal",
            },
        )
        assert ObjectChange.objects.get(changed_object_id=server.pk).user == self.user
        assert "renamed" in self.page("plugins:ai_ops:mcpserver_changelog", kwargs={"pk": server.pk})
        self.page("plugins:ai_ops:mcpserver_notes", kwargs={"pk": server.pk})


class NavigationTest(PagesTestCase):
    def test_there_is_a_tab_with_servers_and_both_jobs(self):
        page = self.page("home")
        for address in (
            reverse("plugins:ai_ops:mcpserver_list"),
            *(f"/extras/jobs/{DEFAULT_SCHEDULES[kind].class_path}/run/" for kind in ("cleanup", "health")),
        ):
            with self.subTest(address):
                assert f'href="{address}"' in page

    def test_servers_can_be_added_and_imported_from_the_tab(self):
        """Nautobot 3.2 keeps an item's buttons and does not show them."""
        items = registry["nav_menu"]["tabs"]["AI Ops"]["groups"]["MCP"]["items"]
        buttons = items[reverse("plugins:ai_ops:mcpserver_list")]["buttons"]
        assert [button["link"] for button in buttons.values()] == [
            "plugins:ai_ops:mcpserver_add",
            "plugins:ai_ops:mcpserver_import",
        ]
        for button in buttons.values():
            self.page(button["link"])

    def test_the_tab_shows_only_what_the_user_may_do(self):
        self.user.is_superuser = False
        self.user.save()
        self.add_permissions("ai_ops.view_mcpserver")
        page = self.page("home")
        assert reverse("plugins:ai_ops:mcpserver_list") in page
        assert "Clean Up Checkpoints" not in page

    def test_both_jobs_are_where_the_tab_says(self):
        for kind in ("cleanup", "health"):
            with self.subTest(kind):
                class_path = DEFAULT_SCHEDULES[kind].class_path
                self.page("extras:job_run_by_class_path", kwargs={"class_path": class_path})

    def test_the_search_finds_servers(self):
        MCPServer.objects.create(name="weather forecast", url="http://one.example.com")
        query = {"q": "weather", "model": "ai_ops.mcpserver"}
        response = self.client.get(reverse("search"), query, headers={"HX-Request": "true"})
        self.assertContains(response, "weather forecast")


class ImportAndExportTest(PagesTestCase):
    def import_servers(self, csv):
        create_job_result_and_run_job(
            "nautobot.core.jobs",
            "ImportObjects",
            username=self.user.username,
            content_type=ContentType.objects.get_for_model(MCPServer).pk,
            csv_data=csv,
        )

    def export(self):
        result = create_job_result_and_run_job(
            "nautobot.core.jobs",
            "ExportObjectList",
            username=self.user.username,
            content_type=ContentType.objects.get_for_model(MCPServer).pk,
        )
        return FileProxy.objects.get(job_result=result).file.read().decode("utf-8-sig")

    def test_imported_servers_are_unhealthy_and_their_paths_have_slashes(self):
        self.import_servers("name,server_url,health_check\none,http://one.example.com,live\n")
        server = MCPServer.objects.get()
        assert (server.status.name, server.url, server.health_check) == (
            "Unhealthy",
            "http://one.example.com",
            "/live",
        )

    def test_a_status_may_be_imported(self):
        self.import_servers("name,server_url,status__name\none,http://one.example.com,Maintenance\n")
        assert MCPServer.objects.get().status.name == "Maintenance"

    def test_a_bad_row_is_refused_with_its_field_and_what_to_do(self):
        with self.assertLogs("nautobot.core.jobs") as logs:
            self.import_servers("name,server_url\none,http://one.example.com\ntwo,http://user:secret@two.example.com\n")
        assert "`server_url`: `Remove the user name and the password from the URL" in "\n".join(logs.output)
        assert list(MCPServer.objects.values_list("name", flat=True)) == ["one"]

    def test_what_was_exported_can_be_imported(self):
        MCPServer.objects.create(name="one", url="http://one.example.com:8000", description="kept")
        MCPServer.objects.create(name="two", protocol="stdio")
        csv = self.export()
        MCPServer.objects.all().delete()
        self.import_servers(csv)
        assert list(MCPServer.objects.values_list("name", "url", "description")) == [
            ("one", "http://one.example.com:8000", "kept"),
            ("two", "", ""),
        ]
