"""The real client library pynautobot against each endpoint of the app, through a real HTTP server."""

from __future__ import annotations

import pynautobot
import pytest
from django.contrib.auth import get_user_model
from django.test import LiveServerTestCase
from django.utils import timezone
from nautobot.extras.models import ScheduledJob
from nautobot.users.models import Token

from ai_ops.api.urls import router
from ai_ops.models import (
    MaintenanceRun,
    MCPServer,
    MCPServerCheck,
    MCPServerHealth,
    MCPServerIncident,
    MCPServerTool,
    MCPServerToolSet,
    PinnedThread,
    RetentionPolicy,
    ThreadErasure,
)
from tests.fakes.jobs import delete_schedules, enable_jobs, see_workers
from tests.fakes.runs import recorded


class PynautobotTest(LiveServerTestCase):
    def setUp(self):
        super().setUp()
        user = get_user_model().objects.create_superuser("robot")
        self.nautobot = pynautobot.api(
            self.live_server_url, token=Token.objects.create(user=user).key, exclude_m2m=False
        )
        self.api = self.nautobot.plugins.ai_ops

    def test_servers_are_created_found_updated_and_deleted(self):
        servers = self.api.mcp_servers
        one = servers.create(name="one", server_url="http://one.example.com")
        assert one.server_url == "http://one.example.com"
        assert one.url == f"{self.live_server_url}/api/plugins/ai-ops/mcp-servers/{one.id}/"
        assert [each.name for each in servers.create([{"name": "two", "protocol": "stdio"}])] == ["two"]
        assert [each.name for each in servers.all()] == ["one", "two"]
        assert [each.name for each in servers.filter(server_url__ic="one.example")] == ["one"]
        assert servers.get(one.id) == servers.get(name="one") == servers.get(server_url="http://one.example.com") == one

        # A record fetches what it lacks from its own address.
        MCPServerCheck.objects.create(
            server=MCPServer.objects.get(name="one"), ok=True, latency_ms=1, time="2026-01-01T00:00Z"
        )
        (check,) = self.api.mcp_server_checks.all()
        assert check.server.server_url == "http://one.example.com"

        one.server_url = "https://one.example.com"
        assert one.save()
        assert servers.update(id=one.id, data={"description": "updated"})
        two = servers.get(name="two")
        two.description = "too"
        assert [each.description for each in servers.update([two])] == ["too"]
        assert list(MCPServer.objects.values_list("url", "description")) == [
            ("https://one.example.com", "updated"),
            ("", "too"),
        ]
        with pytest.raises(pynautobot.RequestError, match=r"server_url.*Remove the user name and the password"):
            servers.update(id=one.id, data={"server_url": "http://user:secret@one.example.com"})

        assert one.delete()
        assert servers.delete([two])
        assert servers.all() == []

    def test_what_runs_write_is_found_and_not_made(self):
        now = timezone.now()
        server = MCPServer.objects.create(name="one", url="http://one.example.com")
        MCPServer.objects.create(name="two", url="http://two.example.com")
        rows = {
            "mcp_server_health": MCPServerHealth.objects.create(server=server, ok=True, latency_ms=1, checked=now),
            "mcp_server_checks": MCPServerCheck.objects.create(server=server, ok=True, latency_ms=1, time=now),
            "mcp_server_tools": MCPServerTool.objects.create(server=server, name="count", since=now, first_seen=now),
            "mcp_server_tool_sets": MCPServerToolSet.objects.create(server=server, asked=now),
            "mcp_server_incidents": MCPServerIncident.objects.create(name="one: CONNECT", opened=now),
        }
        rows["mcp_server_incidents"].servers.add(server)
        for name, row in rows.items():
            with self.subTest(name):
                endpoint = getattr(self.api, name)
                self.assert_found(endpoint, row, **{"servers" if "incident" in name else "server": "one"})
                self.assert_refused(endpoint, row, "create", "update", "delete")
                # What it refers to is a record too, with its own address.
                found = endpoint.get(str(row.pk))
                related = found.servers[0] if "incident" in name else found.server
                assert related.name == "one"

    def test_policies_and_erasures_are_found(self):
        policy = RetentionPolicy.objects.create(name="bots", thread_patterns="bot-*")
        self.assert_found(self.api.retention_policies, policy, name="bots")
        erasure = ThreadErasure.objects.create(reason="asked for", guarded_until=timezone.now())
        self.assert_found(self.api.thread_erasures, erasure, reason="asked for")

    def test_pinned_threads_are_created_found_updated_and_deleted(self):
        pins = self.api.pinned_threads
        pin = pins.create(thread_id="user-1-a", note="stays")
        self.assert_found(pins, PinnedThread.objects.get(), thread_id="user-1-a")
        pin.note = "goes"
        assert pin.save()
        assert PinnedThread.objects.get().note == "goes"
        assert pin.delete()
        assert pins.all() == []

    def test_runs_are_asked_for_found_and_not_edited(self):
        enable_jobs()
        see_workers(default=1)
        run = self.api.runs.create(kind="incidents")
        assert run.url == f"{self.live_server_url}/api/plugins/ai-ops/runs/{run.id}/"
        recorded("storage", state="dead", owner=None)
        self.assert_found(self.api.runs, MaintenanceRun.objects.get(pk=run.id), kind="incidents")
        self.assert_refused(self.api.runs, MaintenanceRun.objects.get(pk=run.id), "update", "delete")

    def test_schedules_are_created_found_and_deleted(self):
        delete_schedules()
        enable_jobs()
        schedules = self.api.schedules
        schedules.create(kind="storage")
        made = schedules.create(kind="cleanup", crontab="0 5 * * *", options={"retention_days": 7})
        assert made.url == f"{self.live_server_url}/api/plugins/ai-ops/schedules/{made.id}/"
        self.assert_found(schedules, ScheduledJob.objects.get(pk=made.id), kind="cleanup")
        assert schedules.count() == 2
        self.assert_refused(schedules, ScheduledJob.objects.get(pk=made.id), "update")
        assert made.delete()
        assert [each.kind for each in schedules.all()] == ["storage"]

    def assert_found(self, endpoint, row, **filters):
        """Find that row, and it alone, in each way there is."""
        key = str(row.pk)
        assert key in {each.id for each in endpoint.all()}
        assert endpoint.get(key).id == endpoint.get(**filters).id == key
        assert (
            [each.id for each in endpoint.filter(**filters)] == [each.id for each in endpoint.filter(id=key)] == [key]
        )
        assert endpoint.get(key).url == f"{self.live_server_url}/api/plugins/ai-ops/{endpoint.name}/{key}/"
        # The record as it is known already asks for the rest of itself.
        assert endpoint.get(key).full_details()
        assert endpoint.get("00000000-0000-4000-8000-000000000000") is None

    def assert_refused(self, endpoint, row, *actions):
        calls = {
            "create": lambda: endpoint.create(name="one"),
            "update": lambda: endpoint.update(id=str(row.pk), data={"name": "another"}),
            "delete": lambda: endpoint.get(str(row.pk)).delete(),
        }
        for action in actions:
            with pytest.raises(pynautobot.RequestError) as refusal:
                calls[action]()
            assert refusal.value.req.status_code == 405, action


def test_no_endpoint_is_left_out():
    tested = {"mcp-servers", "mcp-server-health", "mcp-server-checks", "mcp-server-tools", "mcp-server-tool-sets"}
    tested |= {"mcp-server-incidents", "pinned-threads", "runs", "schedules", "retention-policies", "thread-erasures"}
    # Conversations are in no table: there is nothing to list.
    tested.add("threads")
    assert {prefix for prefix, _, _ in router.registry} == tested
