"""Pages, REST and GraphQL of servers' tools, and the charts' windows."""

from __future__ import annotations

from datetime import timedelta

from django.contrib.contenttypes.models import ContentType
from django.db import connection
from django.test.utils import CaptureQueriesContext, override_settings
from django.urls import reverse
from django.utils import timezone
from django.utils.html import strip_tags
from nautobot.apps.testing import APIViewTestCases, FilterTestCases, TestCase, ViewTestCases, extract_page_body
from nautobot.core.graphql import execute_query
from nautobot.extras.models import Status
from nautobot.users.models import ObjectPermission

from ai_ops.details.tools import difference
from ai_ops.filters import MCPServerFilterSet, MCPServerToolFilterSet, MCPServerToolSetFilterSet
from ai_ops.mcp.http.tool_listing import Listing
from ai_ops.mcp.logic.tools import ToolReader
from ai_ops.mcp.logic.verdicts import Probe
from ai_ops.mcp.tool_approval import record_listing
from ai_ops.models import MCPServer, MCPServerCheck, MCPServerHealth, MCPServerTool, MCPServerToolSet

SCRIPT = "<script>alert(1)</script>"


def lists(server, *tools):
    """Record that `server` lists tools, each a name and a description."""
    reader = ToolReader()
    reader.add({"tools": [{"name": name, "description": said, "inputSchema": {}} for name, said in tools]})
    record_listing(server, Listing(Probe(True, None, "", 1.0), reader.tools()), timezone.now())
    return MCPServerToolSet.objects.get(server=server)


def make_tools():
    for number in range(3):
        server = MCPServer.objects.create(name=f"server {number}", url=f"http://mcp{number}.example.com:8000")
        lists(server, ("count", "Count devices."), ("gone", "Go away."), ("same", "Stay."))
    drifted = MCPServer.objects.get(name="server 1")
    lists(drifted, ("count", f"Count {SCRIPT}."), ("new", "Be new."), ("same", "Stay."))


class NamesForAgentsTest(TestCase):
    """A server's page says which of its tools agents see under another name."""

    def seen(self, server, **settings):
        self.add_permissions("ai_ops.view_mcpserver", "ai_ops.view_mcpservertool", "ai_ops.view_mcpservertoolset")
        ours = {"ai_ops": {"allow_loopback": True, **settings}}
        with override_settings(PLUGINS_CONFIG=ours):
            page = extract_page_body(self.client.get(server.get_absolute_url()).content.decode())
        return " ".join(strip_tags(page).split())

    def test_the_page_tells_how_tools_are_called_whose_name_another_server_has(self):
        healthy = Status.objects.get_for_model(MCPServer).get(name="Healthy")
        billing, shop, ill = (
            MCPServer.objects.create(name=name, url="http://10.0.0.1", status=healthy)
            for name in ("Billing", "<Shop>", "Ill")
        )
        for server in (billing, shop, ill):
            lists(server, ("pay", "Pay."), (f"list_{server.pk.hex[:6]}", "List."))
        MCPServer.objects.filter(pk=ill.pk).update(status=Status.objects.get_for_model(MCPServer).get(name="Unhealthy"))
        assert "pay as Billing_pay" in self.seen(billing)
        assert "pay as Shop_pay" in self.seen(shop)
        assert "list_" not in self.seen(billing).partition("Agents see")[2][:40]
        # A tool that is gone takes the name with it.
        lists(shop, ("other", "Other."))
        assert "Agents see" not in self.seen(billing)
        assert "pay as Billing_pay" in self.seen(billing, prefix_tool_names=True)


class MCPServerToolViewTest(ViewTestCases.GetObjectViewTestCase, ViewTestCases.ListObjectsViewTestCase):
    model = MCPServerTool
    filter_on_field = "name"

    @classmethod
    def setUpTestData(cls):
        make_tools()


class MCPServerToolAPITest(APIViewTestCases.GetObjectViewTestCase, APIViewTestCases.ListObjectsViewTestCase):
    model = MCPServerTool
    choices_fields = ["state"]

    @classmethod
    def setUpTestData(cls):
        make_tools()


class MCPServerToolSetAPITest(APIViewTestCases.GetObjectViewTestCase, APIViewTestCases.ListObjectsViewTestCase):
    model = MCPServerToolSet

    @classmethod
    def setUpTestData(cls):
        make_tools()

    def approve(self, tool_set, **data):
        url = reverse("plugins-api:ai_ops-api:mcpservertoolset-approve", kwargs={"pk": tool_set.pk})
        return self.client.post(url, data, format="json", **self.header)

    def test_to_approve_needs_its_own_permission_and_what_was_looked_at(self):
        tool_set = MCPServerToolSet.objects.get(server__name="server 1")
        self.add_permissions("ai_ops.view_mcpservertoolset", "ai_ops.change_mcpservertoolset")
        self.assertHttpStatus(self.approve(tool_set, listed_hash=tool_set.listed_hash), 403)
        self.add_permissions("ai_ops.approve_mcpservertoolset")
        self.assertHttpStatus(self.approve(tool_set), 400)
        response = self.approve(tool_set, listed_hash="something else")
        self.assertHttpStatus(response, 409)
        assert "review them again" in response.data["detail"]
        response = self.approve(tool_set, listed_hash=tool_set.listed_hash)
        self.assertHttpStatus(response, 200)
        assert response.data["drifted"] is False
        tool_set.refresh_from_db()
        assert tool_set.approved_by == self.user
        self.assertHttpStatus(self.approve(tool_set, listed_hash=tool_set.listed_hash), 409)

    def test_a_permission_for_some_servers_is_for_those_alone(self):
        permission = ObjectPermission.objects.create(
            name="one", actions=["approve"], constraints={"server__name": "server 0"}
        )
        permission.users.add(self.user)
        permission.object_types.add(ContentType.objects.get_for_model(MCPServerToolSet))
        self.add_permissions("ai_ops.view_mcpservertoolset")
        tool_set = MCPServerToolSet.objects.get(server__name="server 1")
        response = self.approve(tool_set, listed_hash=tool_set.listed_hash)
        self.assertHttpStatus(response, 403)
        assert response.data["detail"] == (
            "You may not approve Tools of server 1: ask for the permission on MCP server tool sets with the additional "
            "action approve."
        )

    def test_one_tool_is_approved_or_rejected_by_rest(self):
        self.add_permissions("ai_ops.view_mcpservertool", "ai_ops.view_mcpservertoolset")
        tool = MCPServerTool.objects.get(server__name="server 1", name="count")
        address = reverse("plugins-api:ai_ops-api:mcpservertool-reject", kwargs={"pk": tool.pk})

        def rejects(**data):
            return self.client.post(address, data, format="json", **self.header)

        self.assertHttpStatus(rejects(hash=tool.hash), 403)
        self.add_permissions("ai_ops.approve_mcpservertoolset")
        self.assertHttpStatus(rejects(), 400)
        self.assertHttpStatus(rejects(hash="other"), 409)
        response = rejects(hash=tool.hash)
        self.assertHttpStatus(response, 200)
        assert response.data == {"changes": "Rejected: count."}
        self.assertHttpStatus(rejects(hash=tool.hash), 409)
        gone = MCPServerTool.objects.get(server__name="server 1", name="gone")
        address = reverse("plugins-api:ai_ops-api:mcpservertool-approve", kwargs={"pk": gone.pk})
        self.assertHttpStatus(rejects(hash=""), 200)
        assert not MCPServerTool.objects.filter(pk=gone.pk).exists()

    def test_tool_sets_are_not_written_by_rest(self):
        self.add_permissions("ai_ops.add_mcpservertoolset")
        self.assertHttpStatus(self.client.post(self._get_list_url(), {}, format="json", **self.header), 405)


class MCPServerToolFilterTest(FilterTestCases.BaseFilterTestCase):
    queryset = MCPServerTool.objects.all()
    filterset = MCPServerToolFilterSet

    @classmethod
    def setUpTestData(cls):
        make_tools()

    def test_tools_are_found_by_state_and_servers_by_that_of_their_tools(self):
        for filterset, queryset, params, names in (
            (MCPServerToolFilterSet, MCPServerTool, {"state": ["changed"]}, ["count"]),
            (MCPServerToolFilterSet, MCPServerTool, {"server": ["server 1"], "q": "NEW"}, ["new"]),
            (MCPServerFilterSet, MCPServer, {"tool_state": ["changed", "added"]}, ["server 1"]),
            (MCPServerFilterSet, MCPServer, {"tools_reason": ["TIMEOUT"]}, []),
            (MCPServerToolSetFilterSet, MCPServerToolSet, {"drifted": True}, ["Tools of server 1"]),
            (MCPServerToolSetFilterSet, MCPServerToolSet, {"drifted": False, "server": ["server 1"]}, []),
        ):
            with self.subTest(params):
                found = filterset(params, queryset.objects.all())
                assert found.is_valid(), found.errors
                assert [str(each) for each in found.qs] == names


class ToolsOnPagesTest(TestCase):
    @classmethod
    def setUpTestData(cls):
        make_tools()
        cls.drifted = MCPServer.objects.get(name="server 1")
        cls.calm = MCPServer.objects.get(name="server 0")
        cls.url = reverse("plugins:ai_ops:mcpserver_approve_tools", kwargs={"pk": cls.drifted.pk})

    def setUp(self):
        super().setUp()
        self.add_permissions("ai_ops.view_mcpserver", "ai_ops.view_mcpservertool", "ai_ops.view_mcpservertoolset")

    def page(self, server):
        response = self.client.get(server.get_absolute_url())
        self.assertHttpStatus(response, 200)
        return extract_page_body(response.content.decode())

    def test_a_server_shows_what_differs_line_by_line_and_nothing_of_it_is_markup(self):
        page = self.page(self.drifted)
        for text in ("-   Count devices.", "+   Count &lt;script&gt;alert(1)&lt;/script&gt;.", "1 added", "1 changed"):
            with self.subTest(text):
                assert text in page
        assert SCRIPT not in page

    def test_a_server_without_drift_shows_its_tools_alone(self):
        page = self.page(self.calm)
        assert "3 approved" in page
        assert "the first list, approved automatically" in page
        assert "differ from the approved" not in page.lower()

    def test_who_may_not_view_tools_does_not_see_them(self):
        ObjectPermission.objects.all().delete()
        self.add_permissions("ai_ops.view_mcpserver")
        assert "Count" not in self.page(self.drifted)

    def test_the_list_marks_drift_and_takes_no_more_queries_for_more_servers(self):
        url = reverse("plugins:ai_ops:mcpserver_list")
        page = self.client.get(url, headers={"HX-Request": "true"}).content.decode()
        assert page.count(">drift<") == 1
        with CaptureQueriesContext(connection) as few:
            self.client.get(url, headers={"HX-Request": "true"})
        for number in range(5):
            lists(MCPServer.objects.create(name=f"more {number}", url="http://more.example.com"), ("one", ""))
        with CaptureQueriesContext(connection) as many:
            self.client.get(url, headers={"HX-Request": "true"})
        assert len(many) <= len(few)

    def test_approving_needs_the_permission_and_the_tools_that_were_looked_at(self):
        listed_hash = self.drifted.tool_set.listed_hash
        assert self.url not in self.page(self.drifted)
        self.assertHttpStatus(self.client.post(self.url, {"listed_hash": listed_hash}), 403)
        self.add_permissions("ai_ops.approve_mcpservertoolset")
        page = self.page(self.drifted)
        assert self.url in page
        assert listed_hash in page
        lists(self.drifted, ("count", "Count otherwise."), ("new", "Be new."), ("same", "Stay."))
        self.client.post(self.url, {"listed_hash": listed_hash})
        assert MCPServerTool.objects.filter(state="changed").exists(), "it changed again meanwhile"
        listed_hash = MCPServerToolSet.objects.get(server=self.drifted).listed_hash
        self.assertRedirects(self.client.post(self.url, {"listed_hash": listed_hash}), self.drifted.get_absolute_url())
        assert not MCPServerTool.objects.exclude(state="approved").exists()
        assert MCPServerToolSet.objects.get(server=self.drifted).approved_by == self.user
        assert self.url not in self.page(self.drifted)

    def test_one_tool_is_approved_or_rejected_from_the_servers_page_and_its_own(self):
        self.add_permissions("ai_ops.approve_mcpservertoolset")
        for name, choices in (("count", ["approve", "reject"]), ("new", ["approve", "reject"]), ("gone", ["approve"])):
            tool = MCPServerTool.objects.get(server=self.drifted, name=name)
            with self.subTest(name):
                for page in (self.page(self.drifted), self.page(tool)):
                    addresses = {
                        each: reverse(f"plugins:ai_ops:mcpservertool_{each}", args=[tool.pk])
                        for each in ("approve", "reject")
                    }
                    assert [each for each, address in addresses.items() if address in page] == choices
                address = addresses[choices[-1]]
                self.assertRedirects(self.client.post(address, {"hash": tool.hash}), self.drifted.get_absolute_url())
        found = dict(MCPServerTool.objects.filter(server=self.drifted).values_list("name", "state"))
        assert found == {"count": "rejected", "new": "rejected", "same": "approved"}
        page = self.page(self.drifted)
        assert "2 rejected" in page
        assert self.url not in page, "there is nothing left that could be approved together"

    def test_a_server_is_made_vulnerable_beside_its_tools_by_a_user_who_may_change_it(self):
        address = reverse("plugins:ai_ops:mcpserver_set_vulnerable", args=[self.drifted.pk])
        assert address not in self.page(self.drifted)
        self.assertHttpStatus(self.client.post(address), 403)
        self.add_permissions("ai_ops.change_mcpserver")
        assert address in self.page(self.drifted)
        self.client.get(address)
        assert MCPServer.objects.get(pk=self.drifted.pk).status.name != "Vulnerable"
        self.client.post(address)
        assert MCPServer.objects.get(pk=self.drifted.pk).status.name == "Vulnerable"
        assert address not in self.page(self.drifted)

    def test_a_get_approves_nothing(self):
        self.add_permissions("ai_ops.approve_mcpservertoolset")
        self.client.get(self.url)
        assert MCPServerTool.objects.filter(state="changed").exists()

    def test_a_tools_own_page_shows_its_difference(self):
        page = self.page(MCPServerTool.objects.get(server=self.drifted, name="gone"))
        assert "-   Go away." in page

    def test_what_a_difference_leaves_out_is_marked(self):
        old, new = ("\n".join(["same"] * 9 + [said] + ["same"] * 9) for said in ("old", "new"))
        shown = difference(MCPServerTool(state="changed", approved_definition=old, definition=new))
        lines = [line.strip() for line in strip_tags(shown.replace("</span>", "\n")).splitlines()]
        assert lines == ["…", *["same"] * 3, "- old", "+ new", *["same"] * 3, "…"]

    def test_long_differences_are_not_compared_to_the_end(self):
        for text in ("a", "b"):
            lists(self.calm, ("count", "\n".join(f"{text}{number}" for number in range(1000))))
        assert "Lines after the first 400 are not compared." in self.page(self.calm)

    def test_a_difference_beyond_what_is_kept_is_said_to_be(self):
        for end in "ab":
            lists(self.calm, ("count", "x" * 100_000 + end))
        lists(self.calm, ("count", "x" * 100_000 + "a"))
        MCPServerTool.objects.filter(server=self.calm).exclude(name="count").delete()
        tool = MCPServerTool.objects.get(server=self.calm)
        tool.approved_definition, tool.state = tool.definition, "changed"
        tool.save()
        assert "They differ in a part that is too long to be stored." in self.page(self.calm)

    def test_tools_can_be_read_by_graphql(self):
        self.user.is_superuser = True
        self.user.save()
        query = '{ mcp_servers(tool_state: ["changed"]) { name tool_set { reason } tools { name state } } }'
        result = execute_query(query, user=self.user)
        assert result.errors is None
        (server,) = result.data["mcp_servers"]
        assert {tool["name"]: tool["state"].lower() for tool in server["tools"]} == {
            "count": "changed",
            "gone": "removed",
            "new": "added",
            "same": "approved",
        }


class ChartWindowsTest(TestCase):
    @classmethod
    def setUpTestData(cls):
        cls.server = MCPServer.objects.create(name="one", url="http://one.example.com")
        MCPServerHealth.objects.create(server=cls.server, checked=timezone.now(), ok=True)
        for days, latency in ((0, 111.1), (5, 555.5), (20, 2020.2)):
            time = timezone.now() - timedelta(days=days)
            MCPServerCheck.objects.create(server=cls.server, time=time, ok=True, latency_ms=latency)

    def setUp(self):
        super().setUp()
        self.user.is_superuser = True
        self.user.save()

    def page(self, window):
        return self.client.get(self.server.get_absolute_url(), {"window": window}).content.decode()

    def test_the_reader_chooses_how_far_back_charts_go(self):
        for window, title, shown in (
            ("24h", "LAST 24 HOURS", [True, False, False]),
            ("7d", "LAST 7 DAYS", [True, True, False]),
            ("30d", "LAST 30 DAYS", [True, True, True]),
            ("a year", "LAST 24 HOURS", [True, False, False]),
        ):
            with self.subTest(window):
                page = self.page(window)
                assert f"LATENCY, {title}" in page
                assert f"CHECKS, {title}" in page
                assert [latency in page for latency in ("111.1", "555.5", "2020.2")] == shown

    def test_both_charts_read_the_checks_once(self):
        with CaptureQueriesContext(connection) as queries:
            self.page("30d")
        assert sum("FLOOR" in query["sql"] for query in queries) == 1
