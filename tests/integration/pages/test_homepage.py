"""The panel of the app on the home page."""

from datetime import timedelta

from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from nautobot.apps.testing import TestCase, extract_page_body
from nautobot.extras.models import Status

from ai_ops.choices import MaintenanceKindChoices, RunStateChoices, RunTriggerChoices
from ai_ops.models import MaintenanceRun, MCPServer, MCPServerIncident

CLEANUP = MaintenanceKindChoices.CLEANUP


def make_run(name, state=RunStateChoices.DEAD, **fields):
    fields = {"kind": CLEANUP, "trigger": RunTriggerChoices.SCHEDULE} | fields
    return MaintenanceRun.objects.create(name=name, state=state, **fields)


def make_trouble():
    """Two unhealthy servers of three, an open incident, a dead letter beside three that were dealt with."""
    now = timezone.now()
    for number, status in enumerate(("Unhealthy", "Unhealthy", "Healthy")):
        MCPServer.objects.create(
            name=f"server {number}", url="http://mcp.example.com", status=Status.objects.get(name=status)
        )
    MCPServerIncident.objects.create(name="an outage", opened=now)
    MCPServerIncident.objects.create(name="over", opened=now, closed=now)
    make_run("a dead letter")
    make_run("discarded", discarded=now)
    make_run("redriven by", RunStateChoices.SUCCEEDED, parent=make_run("redriven"), trigger=RunTriggerChoices.REDRIVE)


class HomepageTest(TestCase):
    @classmethod
    def setUpTestData(cls):
        make_trouble()

    def setUp(self):
        super().setUp()
        self.user.is_superuser = True
        self.user.save()

    def page(self):
        response = self.client.get(reverse("home"))
        self.assertHttpStatus(response, 200)
        return extract_page_body(response.content.decode())

    def panel(self):
        page = self.page()
        return page[page.index('id="ai-ops"') :].split("</ul>")[0] if 'id="ai-ops"' in page else ""

    def test_it_counts_what_needs_an_operator(self):
        panel = self.panel()
        for count, name in ((2, "Unhealthy MCP servers"), (1, "Open incidents"), (1, "Dead letters")):
            with self.subTest(name):
                before = panel[: panel.index(name)]
                assert before.rindex(f">{count}</span>") > before.rindex("<li")

    def test_it_says_how_the_last_cleanup_ended(self):
        assert "No checkpoint cleanup has finished yet" in self.panel()
        an_hour_ago = timezone.now() - timedelta(hours=1)
        run = make_run("done", RunStateChoices.SUCCEEDED, finished=an_hour_ago, counters={"deleted_count": 1249})
        make_run("one more", RunStateChoices.SKIPPED, finished=timezone.now())
        panel = self.panel()
        assert run.get_absolute_url() in panel
        assert "Succeeded" in panel
        assert "ago, 1,249 keys deleted" in panel

    def test_a_dry_run_says_that_it_deleted_nothing(self):
        make_run(
            "dry", RunStateChoices.SUCCEEDED, finished=timezone.now(), counters={"deleted_count": 9, "dryrun": True}
        )
        assert "9 keys would be deleted" in self.panel()

    def test_each_user_sees_what_they_may_see(self):
        self.user.is_superuser = False
        self.user.save()
        assert self.panel() == ""
        self.add_permissions("ai_ops.view_mcpserver")
        panel = self.panel()
        assert "Unhealthy MCP servers" in panel
        for name in ("Open incidents", "Dead letters", "Last cleanup"):
            with self.subTest(name):
                assert name not in panel

    def test_it_takes_no_more_queries_for_more_of_everything(self):
        self.page()
        with CaptureQueriesContext(connection) as few:
            self.page()
        make_trouble_many()
        with CaptureQueriesContext(connection) as many:
            self.page()
        assert len(many) <= len(few)


def make_trouble_many():
    for number in range(20):
        make_run(f"more {number}")
        MCPServerIncident.objects.create(name=f"outage {number}", opened=timezone.now())
