"""Pages and REST of what health checks leave behind."""

import re
from datetime import timedelta

from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from nautobot.apps.testing import APIViewTestCases, FilterTestCases, TestCase, ViewTestCases, extract_page_body

from ai_ops.config import AiOpsSettings
from ai_ops.filters import MCPServerCheckFilterSet
from ai_ops.mcp.incidents import follow_run
from ai_ops.mcp.logic.reports import ServerReport
from ai_ops.models import MCPServer, MCPServerCheck, MCPServerHealth, MCPServerIncident


def make_checks():
    for number in range(3):
        server = MCPServer.objects.create(name=f"server {number}", url=f"http://mcp{number}.example.com:8000")
        time = timezone.now() - timedelta(minutes=number)
        MCPServerCheck.objects.create(
            server=server,
            time=time,
            ok=number != 1,
            reason="HTTP" if number == 1 else "",
            latency_ms=10 * number,
            http_status=500 if number == 1 else 200,
            flipped=number == 1,
            protocol_version="2025-06-18" if number else "2025-11-25",
            server_name=f"<b>{number}</b>",
            server_version="1.0",
            certificate_days=10 * number,
        )
        MCPServerHealth.objects.create(
            server=server,
            checked=time,
            ok=number != 1,
            reason="HTTP" if number == 1 else "",
            message="<i>answered</i>",
            latency_ms=1234.5,
        )


class MCPServerCheckListTest(ViewTestCases.ListObjectsViewTestCase):
    model = MCPServerCheck
    filter_on_field = "reason"

    @classmethod
    def setUpTestData(cls):
        make_checks()

    def get_list_url(self):
        return reverse("plugins:ai_ops:mcpservercheck_list")


class MCPServerCheckAPITest(APIViewTestCases.GetObjectViewTestCase, APIViewTestCases.ListObjectsViewTestCase):
    model = MCPServerCheck

    @classmethod
    def setUpTestData(cls):
        make_checks()

    def test_checks_can_not_be_written(self):
        self.add_permissions("ai_ops.add_mcpservercheck", "ai_ops.delete_mcpservercheck")
        self.add_permissions("ai_ops.change_mcpservercheck")
        for method in (self.client.post, self.client.patch, self.client.delete):
            self.assertHttpStatus(method(self._get_list_url(), {}, format="json", **self.header), 405)


class MCPServerHealthAPITest(APIViewTestCases.GetObjectViewTestCase, APIViewTestCases.ListObjectsViewTestCase):
    model = MCPServerHealth

    @classmethod
    def setUpTestData(cls):
        make_checks()


class MCPServerCheckFilterTest(FilterTestCases.BaseFilterTestCase):
    queryset = MCPServerCheck.objects.all()
    filterset = MCPServerCheckFilterSet

    @classmethod
    def setUpTestData(cls):
        make_checks()

    def servers(self, **params):
        found = self.filterset(params, self.queryset)
        assert found.is_valid(), found.errors
        return [check.server.name for check in found.qs]

    def test_checks_are_found_by_server_result_reason_and_time(self):
        id_of_2 = str(MCPServer.objects.get(name="server 2").pk)
        a_minute_ago = (timezone.now() - timedelta(seconds=90)).isoformat()
        for params, names in (
            ({"server": ["server 1"]}, ["server 1"]),
            ({"server": [id_of_2]}, ["server 2"]),
            ({"ok": True}, ["server 0", "server 2"]),
            ({"flipped": True}, ["server 1"]),
            ({"reason": ["HTTP"]}, ["server 1"]),
            ({"latency_ms__gte": [10]}, ["server 1", "server 2"]),
            ({"http_status": [500]}, ["server 1"]),
            ({"protocol_version": ["2025-06-18"]}, ["server 1", "server 2"]),
            ({"server_name__ic": ["<B>2"]}, ["server 2"]),
            ({"server_version": ["2.0"]}, []),
            ({"certificate_days__lt": [15]}, ["server 0", "server 1"]),
            ({"time__gte": [a_minute_ago]}, ["server 0", "server 1"]),
            ({"q": "SERVER 2"}, ["server 2"]),
        ):
            with self.subTest(params):
                assert self.servers(**params) == names


class PagesTest(TestCase):
    @classmethod
    def setUpTestData(cls):
        make_checks()

    def setUp(self):
        super().setUp()
        self.user.is_superuser = True
        self.user.save()

    def page(self, server=None):
        url = server.get_absolute_url() if server else reverse("plugins:ai_ops:mcpserver_list")
        headers = {} if server else {"HX-Request": "true"}
        response = self.client.get(url, headers=headers)
        self.assertHttpStatus(response, 200)
        return extract_page_body(response.content.decode()) if server else response.content.decode()

    def test_the_list_shows_reason_latency_and_uptime(self):
        page = self.page()
        for text in ("HTTP", "1,234 ms", "100 %", "0 %"):
            with self.subTest(text):
                assert text in page

    def test_a_flapping_server_has_a_badge_in_the_list_and_a_word_on_its_page(self):
        badge = '<span class="badge bg-warning">flapping</span>'
        assert badge not in self.page()
        server = MCPServer.objects.get(name="server 1")
        MCPServerHealth.objects.filter(server=server).update(flapping=True, change_percent=23)
        assert self.page().count(badge) == 1
        assert "23 % of the last probes, flapping" in self.page(server)

    def test_an_outage_of_many_is_one_incident_in_the_list_and_its_page_has_all_servers(self):
        reports = [
            ServerReport(
                server=server.name,
                server_id=str(server.pk),
                status_before="Healthy",
                status_after="Unhealthy",
                changed=True,
                ok=False,
                reason="CONNECT",
                message="check that the server runs",
            )
            for server in MCPServer.objects.all()
        ]
        follow_run(reports, AiOpsSettings.load())
        headers = {"HX-Request": "true"}
        rows = self.client.get(reverse("plugins:ai_ops:mcpserverincident_list"), headers=headers).content.decode()
        assert "3 servers: CONNECT" in rows
        page = self.page(MCPServerIncident.objects.get())
        assert "server 0: check that the server runs" in page
        for server in MCPServer.objects.all():
            assert f'href="{server.get_absolute_url()}"' in page
            assert "3 servers: CONNECT" in self.page(server)

    def test_the_list_takes_no_more_queries_for_more_servers(self):
        self.page()
        with CaptureQueriesContext(connection) as few:
            self.page()
        for number in range(10):
            server = MCPServer.objects.create(name=f"more {number}", url="http://more.example.com")
            MCPServerHealth.objects.create(server=server, checked=timezone.now(), ok=True)
            MCPServerCheck.objects.create(server=server, time=timezone.now(), ok=True, latency_ms=1)
        with CaptureQueriesContext(connection) as many:
            self.page()
        assert len(many) <= len(few)

    def test_a_server_shows_its_latest_check_its_uptime_its_charts_and_recent_checks(self):
        page = self.page(MCPServer.objects.get(name="server 1"))
        for text in ("Latest check", "Uptime and latency", "Latency, last 24 hours", "Recent checks"):
            with self.subTest(text):
                assert text.lower() in page.lower()
        assert "0 % of 1 probes" in page
        assert "p50 " not in page, "no check was OK"
        assert "&lt;i&gt;answered&lt;/i&gt;" in page

    def test_the_window_that_charts_show_is_the_one_that_was_chosen(self):
        address = MCPServer.objects.get(name="server 1").get_absolute_url()
        page = self.client.get(address, {"window": "7d"}).content.decode()
        assert page.count("LAST 7 DAYS</strong>") == 2
        shown = re.findall('primary active" href="[?]window=7d#(.*?)" aria-current="true">', page)
        assert len(set(shown)) == 2
        assert all(f'id="{place}"' in page for place in shown), "the page stays at the chart"

    def test_a_server_that_was_never_checked_shows_none_of_it(self):
        page = self.page(MCPServer.objects.create(name="new", url="http://new.example.com"))
        assert "latest check" not in page.lower()
        assert "last 24 hours" not in page.lower()

    def test_who_may_not_view_checks_does_not_see_them(self):
        self.user.is_superuser = False
        self.user.save()
        self.add_permissions("ai_ops.view_mcpserver")
        page = self.page(MCPServer.objects.get(name="server 1"))
        assert "server 1" in page
        assert "latest check" not in page.lower()
        assert "recent checks" not in page.lower()
