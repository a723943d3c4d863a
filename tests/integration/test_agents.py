"""The agents' client, and how a flip reaches it in another process."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading

import pytest
from django.core.cache import cache
from django.db import connection
from nautobot.extras.models import Status

from ai_ops.agents import clear_mcp_cache, current_generation
from ai_ops.agents.generation import GENERATION_KEY
from ai_ops.agents.mcp_client import get_mcp_client
from ai_ops.celery_tasks import check_mcp_server_health
from ai_ops.choices import MCPProtocolChoices
from ai_ops.models import MCPServer
from tests.fakes.mcp_server import FakeMCPServer

# Says which servers its client has, and whether it is the client it had before, whenever it is asked.
AGENT = """
import sys
import nautobot
nautobot.setup()
from ai_ops.agents.mcp_client import get_mcp_client
before = None
for line in sys.stdin:
    client = get_mcp_client()
    print(sorted(client.connections), "same" if client is before else "new", flush=True)
    before = client
"""


@pytest.fixture
def _no_generation():
    cache.delete(GENERATION_KEY)


def add(name, status_name, **fields):
    status = Status.objects.get_for_model(MCPServer).get(name=status_name)
    server = MCPServer(name=name, status=status, **{"url": "http://127.0.0.1:1", **fields})
    server.validated_save()
    return server


@pytest.mark.usefixtures("_no_generation")
def test_every_bump_is_a_number_nobody_has_seen_even_after_the_cache_was_flushed():
    seen = [current_generation()]
    for _ in range(3):
        seen += [clear_mcp_cache() for _ in range(50)]
        cache.delete(GENERATION_KEY)
        seen.append(clear_mcp_cache())
        cache.delete(GENERATION_KEY)
        seen.append(current_generation())
    assert len(set(seen)) == len(seen)
    assert seen == sorted(seen)


@pytest.mark.usefixtures("_no_generation")
def test_readers_agree_on_the_number_until_someone_bumps_it():
    first = current_generation()
    assert current_generation() == first
    assert cache.ttl(GENERATION_KEY) is None
    assert clear_mcp_cache() == first + 1 == current_generation()


@pytest.mark.usefixtures("_no_generation")
def test_bumps_at_the_same_time_are_all_counted():
    first = current_generation()
    threads = [threading.Thread(target=lambda: [clear_mcp_cache() for _ in range(50)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert current_generation() == first + 200


@pytest.mark.django_db
def test_the_client_knows_the_healthy_http_servers_and_stays_until_something_flips():
    add("well", "Healthy", url="http://mcp.example:8000/", mcp_endpoint="/mcp")
    add("down", "Unhealthy")
    add("risky", "Vulnerable")
    add("local", "Healthy", protocol=MCPProtocolChoices.STDIO)
    clear_mcp_cache()
    client = get_mcp_client()
    assert client.connections == {"well": {"transport": "streamable_http", "url": "http://mcp.example:8000/mcp"}}
    assert get_mcp_client() is client
    clear_mcp_cache()
    assert get_mcp_client() is not client


@pytest.mark.django_db(transaction=True)
def test_a_second_process_drops_its_client_after_the_first_flipped_a_server(monkeypatch):
    monkeypatch.setattr("ai_ops.health_run.PAUSE_SECONDS", 0.05)
    monkeypatch.setenv("NAUTOBOT_DB_NAME", connection.settings_dict["NAME"])
    with FakeMCPServer(health_status=500).running() as fake, _agent() as ask:
        server = add("alpha", "Healthy", url=fake.url)
        clear_mcp_cache()
        assert ask() == "['alpha'] new"
        assert ask() == "['alpha'] same"
        assert check_mcp_server_health(server.pk)["changed"]
        assert ask() == "[] new"
        assert ask() == "[] same"
        fake.health_status = 200
        assert check_mcp_server_health(server.pk)["changed"]
        assert ask() == "['alpha'] new"


@contextlib.contextmanager
def _agent():
    """A process of its own; yields a function that has it fetch its client once."""
    command = [sys.executable, "-c", AGENT]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as process:

        def ask() -> str:
            process.stdin.write("client?\n")
            return process.stdout.readline().strip()

        yield ask
