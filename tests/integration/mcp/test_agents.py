"""The agents' tools, and how a change to a server reaches them in every process."""

from __future__ import annotations

import contextlib
import threading
import time

import pytest
from asgiref.sync import async_to_sync
from django.core.cache import cache
from django.core.exceptions import ValidationError
from django.db import connection, transaction
from nautobot.extras.models import Secret, SecretsGroup

from ai_ops.agents import clear_mcp_cache, current_generation, mcp_client, tools
from ai_ops.agents.mcp_client import get_mcp_client
from ai_ops.agents.tools import get_tools
from ai_ops.choices import MCPProtocolChoices
from ai_ops.mcp.http.transports import ClientFactory
from ai_ops.models import AgentGeneration, MCPServer
from development.services import free_ports
from tests.fakes.certificates import CertificateAuthority
from tests.fakes.mcp_server import FakeMCPServer
from tests.fakes.servers import add

# Of what other processes, or threads, are to see.
committed = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _nothing_built_yet(monkeypatch):
    monkeypatch.setattr(tools, "_built", None)
    monkeypatch.setattr(mcp_client, "_built", None)
    cache.delete(AgentGeneration.MIRROR_KEY)


@pytest.fixture
def fake():
    with FakeMCPServer(tools=["lookup"]).running() as server:
        yield server


def names():
    return sorted(tool.name for tool in async_to_sync(get_tools)())


def lists(fake):
    return sum(method == "tools/list" for _, method in fake.messages)


# ------------------------------------------------------------------------------------------------
# The generation


@committed
def test_every_bump_is_a_number_nobody_has_seen_even_after_cache_and_row_were_lost():
    seen = [current_generation()]
    for _ in range(3):
        seen += [clear_mcp_cache() for _ in range(20)]
        cache.delete(AgentGeneration.MIRROR_KEY)
        seen.append(clear_mcp_cache())
        AgentGeneration.objects.all().delete()
        cache.delete(AgentGeneration.MIRROR_KEY)
        seen.append(current_generation())
    assert len(set(seen)) == len(seen)
    assert seen == sorted(seen)


@committed
def test_readers_agree_on_the_number_until_someone_bumps_it():
    first = current_generation()
    assert current_generation() == first
    assert 0 < cache.ttl(AgentGeneration.MIRROR_KEY) <= 30
    assert clear_mcp_cache() == first + 1 == current_generation() == cache.get(AgentGeneration.MIRROR_KEY)


@committed
def test_bumps_at_the_same_time_are_all_counted_and_the_mirror_has_the_last():
    first = current_generation()

    def bump():
        for _ in range(25):
            clear_mcp_cache()
        connection.close()

    threads = [threading.Thread(target=bump) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert AgentGeneration.current() == cache.get(AgentGeneration.MIRROR_KEY) == first + 100


@committed
def test_whatever_changes_a_server_by_hand_bumps():
    before = current_generation()
    server = add("edited")
    generations = [before, current_generation()]
    server.description = "moved"
    server.save()
    generations.append(current_generation())
    server.delete()
    generations.append(current_generation())
    add("one")
    add("two")
    generations.append(current_generation())
    MCPServer.objects.all().delete()
    generations.append(current_generation())
    assert generations == sorted(set(generations))


@committed
def test_changes_that_count_as_one_bump_once_and_none_bump_nothing():
    one, two = add("one"), add("two")
    before = current_generation()
    with transaction.atomic(), AgentGeneration.bumped_once():
        one.save()
        two.save()
    assert AgentGeneration.current() == cache.get(AgentGeneration.MIRROR_KEY) == before + 1
    with transaction.atomic(), AgentGeneration.bumped_once():
        pass
    assert current_generation() == before + 1

    def save_one_that_is_refused():
        with transaction.atomic(), AgentGeneration.bumped_once():
            one.save()
            MCPServer(name="nowhere", status=one.status).validated_save()

    with pytest.raises(ValidationError):
        save_one_that_is_refused()
    assert current_generation() == before + 1
    one.save()
    assert current_generation() == before + 2


@committed
def test_a_change_that_is_rolled_back_was_never_seen():
    server = add("kept")
    before = current_generation()
    with contextlib.suppress(ZeroDivisionError), transaction.atomic():
        server.save()
        assert current_generation() == before
        raise ZeroDivisionError
    assert current_generation() == AgentGeneration.current() == before


@committed
def test_without_the_cache_the_database_is_asked_and_a_change_is_made_all_the_same(settings, caplog):
    server = add("edited")
    before = current_generation()
    with transaction.atomic():
        AgentGeneration.bump()
        settings.CACHES = {"default": {**settings.CACHES["default"], "LOCATION": "redis://127.0.0.1:1/0"}}
    assert current_generation() == before + 1
    assert "Agents are notified of changed MCP servers 30 s late" in caplog.text
    assert MCPServer.objects.filter(pk=server.pk).exists()


# ------------------------------------------------------------------------------------------------
# The client


@pytest.mark.django_db
def test_the_client_knows_the_healthy_http_servers_and_stays_until_something_changes():
    add("well", url="http://mcp.example:8000/", mcp_endpoint="/mcp")
    add("down", status_name="Unhealthy")
    add("risky", status_name="Vulnerable")
    add("local", protocol=MCPProtocolChoices.STDIO)
    client = get_mcp_client()
    (found,) = client.connections.values()
    assert (list(client.connections), found["url"]) == (["well"], "http://mcp.example:8000/mcp")
    assert isinstance(found["httpx_client_factory"], ClientFactory)
    assert get_mcp_client() is client
    AgentGeneration.bump()
    cache.delete(AgentGeneration.MIRROR_KEY)
    assert get_mcp_client() is not client


# ------------------------------------------------------------------------------------------------
# The tools


@committed
def test_tools_of_healthy_servers_are_loaded_once_and_kept(fake):
    add("well", url=fake.url)
    add("down", status_name="Unhealthy", url=fake.url)
    assert names() == names() == ["lookup"]
    assert lists(fake) == 1


@committed
def test_a_dead_server_takes_away_only_its_own_tools(fake, caplog):
    add("well", url=fake.url)
    add("dead", url="http://127.0.0.1:1")
    assert names() == ["lookup"]
    assert "The tools of dead could not be loaded (ConnectError: " in caplog.text


@committed
def test_servers_that_are_ill_cost_no_more_than_the_time_of_a_probe(fake, settings, caplog):
    # The server that is well has as long, also on a busy machine.
    settings.PLUGINS_CONFIG = {"ai_ops": {"allow_loopback": True, "check_timeout": 4}}
    add("well", url=fake.url)
    faults = ("silent", "login", "sse-endless", "500")
    for fault in faults:
        add(fault, url=fake.url, mcp_endpoint=f"/mcp/{fault}")
    started = time.monotonic()
    assert names() == ["lookup"]
    assert time.monotonic() - started < 25, "the client by itself would wait for 30 s and more"
    for fault in faults:
        assert f"The tools of {fault} could not be loaded" in caplog.text


@committed
def test_a_setting_gives_all_tools_the_name_of_their_server(fake, settings):
    add("Billing (EU)", url=fake.url)
    assert (names(), get_mcp_client().tool_name_prefix) == (["lookup"], False)
    AgentGeneration.bump()
    settings.PLUGINS_CONFIG = {"ai_ops": {"allow_loopback": True, "prefix_tool_names": True}}
    assert (names(), get_mcp_client().tool_name_prefix) == (["Billing_EU_lookup"], True)


@committed
def test_a_tool_that_a_server_lists_twice_is_one_tool_since_models_refuse_a_list_with_both():
    with FakeMCPServer(tools=["lookup", "lookup", "count"]).running() as server:
        add("one", server.url)
        assert names() == ["count", "lookup"]


@committed
def test_an_error_is_never_taken_for_no_tools(monkeypatch):
    monkeypatch.setattr(tools, "RETRY_SECONDS", 0.0)
    (port,) = free_ports(1)
    add("restarting", url=f"http://127.0.0.1:{port}")
    assert names() == []
    with FakeMCPServer(tools=["lookup"], port=port).running():
        assert names() == ["lookup"]


@committed
def test_a_known_tool_outlives_a_restart_and_vanishes_after_the_grace(monkeypatch):
    monkeypatch.setattr(tools, "RETRY_SECONDS", 0.0)
    monkeypatch.setattr(tools, "FRESH_SECONDS", 0.0)
    with FakeMCPServer(tools=["lookup"]).running() as fake:
        add("restarting", url=fake.url)
        assert names() == ["lookup"]
    assert names() == ["lookup"]
    monkeypatch.setattr(tools, "GRACE_SECONDS", 0.0)
    assert names() == []


@committed
def test_a_failing_server_is_not_asked_again_by_each_request(fake):
    add("ill", url=fake.url, mcp_endpoint="/mcp/500")
    assert names() == names() == []
    assert sum(path == "/mcp/500" for path, _ in fake.messages) == 1


@committed
def test_a_change_to_one_server_leaves_the_others_unasked(fake):
    add("well", url=fake.url)
    other = add("other", url=fake.url)
    assert names() == ["other_lookup", "well_lookup"], "two of one name would be one"
    other.delete()
    assert names() == ["lookup"]
    assert lists(fake) == 2


@committed
def test_what_was_built_while_a_server_changed_is_not_kept(fake, monkeypatch):
    server = add("well", url=fake.url)
    ask = tools._ask

    async def changed_meanwhile(usable):
        monkeypatch.setattr(tools, "_ask", ask)
        await tools.sync_to_async(server.delete)()
        return await ask(usable)

    monkeypatch.setattr(tools, "_ask", changed_meanwhile)
    assert names() == []
    assert tools._built.generation == current_generation()


@committed
def test_agents_obey_the_same_policy(settings, caplog):
    settings.PLUGINS_CONFIG = {"ai_ops": {"allow_loopback": False}}
    with FakeMCPServer(tools=["lookup"]).running() as fake:
        add("here", url=fake.url)
        add("metadata", url="http://169.254.169.254")
        assert names() == []
        assert fake.requests == []
    assert "127.0.0.1 is a loopback address" in caplog.text
    assert "169.254.169.254 is a link-local address" in caplog.text


@committed
def test_agents_use_the_servers_credentials_and_send_none_over_a_redirect(monkeypatch):
    monkeypatch.setenv("TEST_TOKEN", "s3cret-t0ken")
    secret = Secret.objects.create(name="token", provider="environment-variable", parameters={"variable": "TEST_TOKEN"})
    group = SecretsGroup.objects.create(name="group")
    group.secrets.add(secret, through_defaults={"access_type": "HTTP(S)", "secret_type": "token"})
    with FakeMCPServer(tools=["lookup"], token="s3cret-t0ken").running() as fake:
        add("guarded", url=fake.url, secrets_group=group)
        assert names() == ["lookup"]
        assert all(b"s3cret-t0ken" in head for head in fake.heads)
        MCPServer.objects.get().delete()
        add("redirecting", url=fake.url, secrets_group=group, mcp_endpoint="/mcp/slash")
        assert names() == []
        redirected = [head for head in fake.heads if b"/mcp/slash/ HTTP" in head]
    assert redirected
    assert not any(b"s3cret-t0ken" in head for head in redirected)


@committed
def test_agents_use_the_servers_tls_settings(tmp_path, settings):
    settings.PLUGINS_CONFIG = {"ai_ops": {"allow_loopback": True, "ca_directories": [str(tmp_path)]}}
    authority = CertificateAuthority.make(tmp_path)
    with FakeMCPServer(tools=["lookup"], tls=authority.server_context()).running() as fake:
        server = add("secure", url=fake.url)
        assert names() == []
        server.ca_file = authority.ca_file
        server.save()
        assert names() == ["lookup"]
