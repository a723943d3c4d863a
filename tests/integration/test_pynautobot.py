"""The real client library pynautobot against each endpoint of the app, through a real HTTP server."""

from __future__ import annotations

import pynautobot
import pytest
from django.contrib.auth import get_user_model
from django.test import LiveServerTestCase
from nautobot.users.models import Token

from ai_ops.models import MCPServer, MCPServerCheck


class PynautobotTest(LiveServerTestCase):
    def setUp(self):
        super().setUp()
        user = get_user_model().objects.create_superuser("robot")
        self.nautobot = pynautobot.api(self.live_server_url, token=Token.objects.create(user=user).key)
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
        with pytest.raises(pynautobot.RequestError, match=r"server_url.*Leave user name and password out"):
            servers.update(id=one.id, data={"server_url": "http://user:secret@one.example.com"})

        assert one.delete()
        assert servers.delete([two])
        assert servers.all() == []
