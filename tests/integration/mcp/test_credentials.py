"""Credentials of MCP servers: where they are read from, where they go, and that nothing keeps them."""

from __future__ import annotations

import logging

import pytest
from asgiref.sync import async_to_sync
from django.core.cache import cache
from django.db import connection
from django.db.models import ProtectedError
from django.test import Client
from django.urls import reverse
from django_redis import get_redis_connection as cache_connection
from nautobot.extras.choices import JobResultStatusChoices
from nautobot.extras.models import JobResult, Secret, SecretsGroup, SecretsGroupAssociation, Status
from nautobot.users.models import Token

from ai_ops.agents import tools
from ai_ops.agents.tools import get_tools
from ai_ops.celery_tasks import check_mcp_server_health
from ai_ops.exceptions import CredentialsError
from ai_ops.jobs.mcp_health_check import MCPServerHealthCheckJob
from ai_ops.mcp.secrets import read_credentials
from ai_ops.models import AgentGeneration, MCPServer
from tests.fakes.mcp_server import MCP_FAULTS, WELL, FakeMCPServer, error, json_answer, result

TOKEN = "s3cret-t0ken-4711"

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _everything_is_logged(caplog, monkeypatch):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(tools, "_built", None)
    cache.delete(AgentGeneration.MIRROR_KEY)


@pytest.fixture
def secret(monkeypatch):
    """Make a Secret whose value is in an environment variable."""

    def made(name, value):
        monkeypatch.setenv(f"TEST_{name}", value)
        return Secret.objects.create(
            name=name, provider="environment-variable", parameters={"variable": f"TEST_{name}"}
        )

    return made


@pytest.fixture
def group(secret):
    """Make a SecretsGroup of secrets by their types."""

    def made(access_type="HTTP(S)", **values):
        group = SecretsGroup.objects.create(name="of the test")
        for secret_type, value in values.items():
            SecretsGroupAssociation.objects.create(
                secrets_group=group, secret=secret(secret_type, value), access_type=access_type, secret_type=secret_type
            )
        return group

    return made


def server_with(secrets_group, **fields):
    status = Status.objects.get_for_model(MCPServer).get(name=fields.pop("status", "Unhealthy"))
    server = MCPServer(
        status=status, secrets_group=secrets_group, **{"name": "guarded", "url": "http://127.0.0.1:1", **fields}
    )
    server.validated_save()
    return server


def test_a_token_is_read_as_a_bearer(group):
    credentials = read_credentials(server_with(group(token=TOKEN)))
    assert (credentials.header, credentials.value) == ("Authorization", f"Bearer {TOKEN}")


def test_a_key_and_a_secret_are_a_headers_name_and_value(group):
    credentials = read_credentials(server_with(group(key="X-Api-Key", secret=TOKEN)))
    assert (credentials.header, credentials.value) == ("X-Api-Key", TOKEN)


def test_a_server_without_a_group_has_no_credentials():
    assert read_credentials(server_with(None)) is None


@pytest.mark.parametrize(
    ("secrets", "words"),
    [
        ({}, "it needs, of access type HTTP(S), either a Token, or a Key and a Secret"),
        ({"token": TOKEN, "key": "X-Api-Key"}, "it needs, of access type HTTP(S), either"),
        ({"key": "X-Api-Key"}, "it needs, of access type HTTP(S), either"),
        ({"access_type": "Generic", "token": TOKEN}, "it needs, of access type HTTP(S), either"),
        ({"token": f"{TOKEN}\r\nX-Injected: y"}, "has a line break or a NUL in it"),
        ({"key": "Host", "secret": TOKEN}, "the header Host is not for credentials"),
        ({"key": "Mcp-Session-Id", "secret": TOKEN}, "the header Mcp-Session-Id is not for credentials"),
        ({"token": ""}, "the secret token can't be read"),
    ],
)
def test_a_group_that_can_not_be_used_is_the_checkers_trouble_and_flips_nothing(group, monkeypatch, secrets, words):
    with FakeMCPServer(health_status=500).running() as fake:
        server = server_with(group(**secrets), url=fake.url, status="Healthy")
        if secrets.get("token") == "":
            monkeypatch.delenv("TEST_token")
        outcome = check_mcp_server_health(server.pk)
        assert fake.requests == []
    assert (outcome["reason"], outcome["changed"], outcome["success"]) == ("CHECKER", False, False)
    assert "since the secrets group of the test can't be used: " in outcome["message"]
    assert words in outcome["message"]
    assert TOKEN not in str(outcome)


def test_what_a_failing_provider_says_is_not_repeated(group, monkeypatch):
    server = server_with(group(token=TOKEN))
    monkeypatch.setenv("TEST_token", "")
    Secret.objects.update(parameters={"variable": "{{ obj.no.such." + TOKEN + " }}"})
    server.refresh_from_db()
    with pytest.raises(CredentialsError) as refusal:
        read_credentials(server)
    assert TOKEN not in str(refusal.value)


def test_a_group_in_use_can_not_be_deleted(group):
    in_use = group(token=TOKEN)
    server_with(in_use)
    with pytest.raises(ProtectedError):
        in_use.delete()


@pytest.mark.parametrize("probe", ["http", "mcp", "auto"])
def test_probes_of_every_kind_are_made_with_the_credentials(group, probe):
    with FakeMCPServer(token=TOKEN, health_status=404).running() as fake:
        check_mcp_server_health(server_with(group(token=TOKEN), url=fake.url, probe=probe).pk)
        assert all(f"authorization: bearer {TOKEN}".encode() in head.lower() for head in fake.heads)


# ------------------------------------------------------------------------------------------------
# Grep for it


def _echo(fake, message):
    async def fault(writer):
        # Each client has ids of its own, and waits for the answer to its own.
        writer.write(json_answer({**message, "id": fake.request_id}))

    return {"initialize": fault}


# By path of a server: whether it has tools for agents.
PATHS = {
    "/mcp": True,
    "/mcp/401": False,
    "/mcp/500": False,
    "/mcp/elsewhere": False,
    "/mcp/echoes-in-its-name": True,
    "/mcp/echoes-in-an-error": False,
}


@pytest.mark.django_db(transaction=True, databases=["default", "job_logs"])
def test_the_secret_is_in_no_table_no_cache_no_log_and_no_answer(group, job, user, caplog, monkeypatch):
    """Also of servers that send it back to be shown."""
    name, unknown = {"name": f"for {TOKEN}", "version": TOKEN}, f"Bearer {TOKEN} is unknown"
    fake = FakeMCPServer(token=TOKEN, health_status=404, tools=["lookup"])
    monkeypatch.setitem(MCP_FAULTS, "/mcp/echoes-in-its-name", _echo(fake, result({**WELL, "serverInfo": name})))
    monkeypatch.setitem(MCP_FAULTS, "/mcp/echoes-in-an-error", _echo(fake, error(-32000, unknown)))
    guarded = group(token=TOKEN)
    healthy, unhealthy = (Status.objects.get(name=name) for name in ("Healthy", "Unhealthy"))
    checked = []
    with fake.running():
        for path, has_tools in PATHS.items():
            fake.heads.clear()
            server = server_with(
                guarded, name=f"guarded {path}", url=fake.url, mcp_endpoint=path, probe="mcp", status="Healthy"
            )
            run = JobResult.enqueue_job(
                job, user, synchronous=True, job_kwargs=MCPServerHealthCheckJob.serialize_data({"server": server})
            )
            run.refresh_from_db()
            assert run.status == JobResultStatusChoices.STATUS_SUCCESS, path
            # Of all servers agents get the tools of this one.
            MCPServer.objects.update(status=unhealthy)
            MCPServer.objects.filter(pk=server.pk).update(status=healthy)
            found = async_to_sync(get_tools)()
            assert any(TOKEN.encode() in head for head in fake.heads), path
            assert bool(found) == has_tools, path
            assert TOKEN not in repr([vars(tool) for tool in found]), path
            checked.append((server, run))
    assert TOKEN not in caplog.text
    assert {"ai_ops_mcpserver", "extras_joblogentry"} <= set(_tables_with("guarded"))
    assert _tables_with(TOKEN) == []
    assert _cached_with(TOKEN) == []
    for answer in _answers(user, checked):
        assert answer.status_code == 200
        assert TOKEN not in answer.content.decode(), answer.request["PATH_INFO"]


def _tables_with(text):
    """The names of all tables in which a row holds it; one query for all of them."""
    with connection.cursor() as cursor:
        names = connection.introspection.table_names(cursor)
        found = (f"SELECT '{name}' FROM \"{name}\" AS line WHERE strpos(line::text, %s) > 0" for name in names)
        cursor.execute(" UNION ".join(found), [text] * len(names))
        return [name for (name,) in cursor.fetchall()]


def _cached_with(text):
    client = cache_connection("default")
    # Of another type than a string MGET gives None.
    keys = list(client.scan_iter(count=1000))
    return [key for key, value in zip(keys, client.mget(keys), strict=True) if text.encode() in (value or b"")]


def _answers(user, checked):
    """Every page and every answer of REST and GraphQL that tells of these servers and runs."""
    browser = Client()
    browser.force_login(user)
    header = {"HTTP_AUTHORIZATION": f"Token {Token.objects.create(user=user).key}"}
    for server, run in checked:
        yield browser.get(server.get_absolute_url())
        yield browser.get(reverse("plugins:ai_ops:mcpserver_changelog", kwargs={"pk": server.pk}))
        yield browser.get(run.get_absolute_url())
        detail = reverse("plugins-api:ai_ops-api:mcpserver-detail", kwargs={"pk": server.pk})
        yield Client().get(detail, {"depth": 3}, **header)
        yield Client().get(reverse("extras-api:jobresult-detail", kwargs={"pk": run.pk}), **header)
        yield Client().get(reverse("extras-api:jobresult-logs", kwargs={"pk": run.pk}), **header)
    yield browser.get(reverse("plugins:ai_ops:mcpserver_list"))
    query = "query { mcp_servers { name secrets_group { name secrets { name parameters } } } }"
    yield Client().post(reverse("graphql-api"), {"query": query}, content_type="application/json", **header)
