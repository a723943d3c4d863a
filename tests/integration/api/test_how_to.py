"""Every example of the how-tos, run as it stands: Python, GraphQL, the command line, and curl at a real HTTP server."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import shutil
import subprocess

import pytest
from django.core.management import call_command
from django.test import override_settings
from nautobot.core.graphql import execute_query
from nautobot.extras.models import ScheduledJob, Status
from nautobot.users.models import Token, User

from ai_ops.config import AiOpsSettings
from ai_ops.models import MCPServer, PinnedThread
from development.services import PROJECT
from tests.fakes.conversations import old_id
from tests.fakes.mcp_server import FakeMCPServer

PAGE = (PROJECT / "docs/user/how_to.md").read_text()
BLOCK = re.compile(r"^```(\w+)( title=\"[^\"]*\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SECTIONS = re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def place(checkpoint_redis, live_server, monkeypatch):
    """A Redis with conversations of two users, a server that is well and one that is down, and a user with a token."""
    for thread in ("user-42-a", "user-42-b", "user-7-a"):
        checkpoint_redis.set(f"checkpoint:{thread}:{old_id(60)}", "{}")
    user = User.objects.create(username="ada", is_superuser=True, is_active=True)
    token = Token.objects.create(user=user).key
    monkeypatch.setenv("NAUTOBOT_URL", live_server.url)
    monkeypatch.setenv("NAUTOBOT_TOKEN", token)
    with FakeMCPServer().running() as fake:
        for name, status in (("Tickets", "Healthy"), ("Down", "Unhealthy")):
            MCPServer.objects.create(name=name, url=fake.url, status=Status.objects.get(name=status))
        yield user, {"NAUTOBOT_URL": live_server.url, "NAUTOBOT_TOKEN": token}


def run_block(language, title, code, user, variables):
    if language == "python" and title:
        values = {}
        exec(code, values)
        with override_settings(PLUGINS_CONFIG=values["PLUGINS_CONFIG"]):
            AiOpsSettings.load()
    elif language == "python":
        exec(code, dict(variables))
    elif language == "graphql":
        result = execute_query(code, user=user)
        assert not result.errors
        return result.data
    elif code.startswith("nautobot-server "):
        for line in code.splitlines():
            call_command(*shlex.split(line)[1:], stdout=io.StringIO())
    else:
        assert code.startswith("curl ")
        done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ))
        return json.loads(done.stdout)
    return None


def run_section(title, user, variables):
    (section,) = (each for each in SECTIONS if each.startswith(title))
    blocks = BLOCK.findall(section)
    assert blocks
    return [run_block(*block, user, variables) for block in blocks]


def test_each_section_has_a_test():
    tested = set(
        re.findall(r'run_section\(\s*"([^"]+)"', (PROJECT / "tests/integration/api/test_how_to.py").read_text())
    )
    assert {section.splitlines()[0] for section in SECTIONS} == tested


def test_a_cleanup_when_memory_is_short(place, checkpoint_redis, capsys):
    run_section("Clean up when memory is short", *place)
    assert capsys.readouterr().out.startswith("30 30 days for idle threads")
    assert not checkpoint_redis.keys("checkpoint:*")


def test_a_cleanup_of_one_user(place, checkpoint_redis, capsys):
    run_section("Clean up the conversations of one user", *place)
    assert "2 conversations to delete" in capsys.readouterr().out
    assert [key.split(b":")[1] for key in checkpoint_redis.keys("checkpoint:*")] == [b"user-7-a"]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_a_pin(place):
    _, made, _ = run_section("Keep a conversation", *place)
    assert made["thread_id"] == "user-42-a"
    assert sorted(PinnedThread.objects.values_list("thread_id", flat=True)) == ["user-42-a", "user-42-b"]


def test_a_schedule_of_ones_own(place):
    before = ScheduledJob.objects.count()
    run_section("Add a schedule", *place)
    assert ScheduledJob.objects.count() == before


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_servers_that_are_down(place, capsys):
    asked, found, _ = run_section("See which servers are down", *place)
    assert [each["name"] for each in asked["mcp_servers"]] == ["Down"]
    assert [each["name"] for each in found["results"]] == ["Down"]
    assert capsys.readouterr().out.startswith("Down http://127.0.0.1:")


def test_a_check_of_one_server(place, capsys):
    run_section("Check one server now", *place)
    assert capsys.readouterr().out.startswith("True GET http://127.0.0.1:")


def test_the_runs_that_failed(place):
    run_section("List the latest failed runs", *place)


def test_a_look_at_redis(place, capsys):
    run_section("Start from Redis", *place)
    said = capsys.readouterr().out
    assert "3 keys" in said
    assert said.count("b'checkpoint:user-") == 3
