"""The Job as Nautobot runs it: its log, its result, its schedule and the change log."""

from __future__ import annotations

import math
from contextlib import ExitStack, nullcontext
from html.parser import HTMLParser
from urllib.parse import quote

import pytest
from django.db import OperationalError, connections
from django.urls import reverse
from django.utils import timezone
from nautobot.core.templatetags.helpers import render_markdown
from nautobot.extras.choices import JobExecutionType, JobResultStatusChoices, ObjectChangeEventContextChoices
from nautobot.extras.models import JobLogEntry, JobResult, ObjectChange, ScheduledJob

from ai_ops.celery_tasks import check_mcp_server_health
from ai_ops.choices import JOB_GROUP
from ai_ops.jobs.mcp_health_check import MCPServerHealthCheckJob
from ai_ops.mcp import check, flips
from ai_ops.mcp.flips import FLIPS_AT_ONCE
from ai_ops.models import MaintenanceRun, MCPServer, MCPServerIncident, MCPServerTool
from tests.fakes.servers import add
from tests.fakes.wire import TOOL, WireServer, body, error, init, raw, result, tools

# Job logs are written through a database alias of their own.
pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "job_logs"])


def run(job, user, **job_kwargs):
    result = JobResult.enqueue_job(
        job, user, synchronous=True, job_kwargs=MCPServerHealthCheckJob.serialize_data(job_kwargs)
    )
    result.refresh_from_db()
    return result


def lines(result):
    return {(entry.log_level, entry.message) for entry in result.job_log_entries.all()}


def test_the_job_checks_all_servers_and_logs_what_it_did(job, user, up):
    down, back = add("down", "http://127.0.0.1:1", "Healthy"), add("back", up.url, "Unhealthy")
    result = run(job, user)
    assert result.status == JobResultStatusChoices.STATUS_SUCCESS
    assert result.result.pop("run")["state"] == "succeeded"
    assert result.result == {
        "success": True,
        "checked_count": 2,
        "changed_count": 2,
        "failed_count": 1,
        "worker_count": 2,
        "cache_cleared": True,
        "error": None,
        "errors": [],
    }
    assert lines(result) >= {
        ("info", "Starting MCP server health checks..."),
        ("info", f"back was Unhealthy and is now Healthy, as 3 checks agree. GET {up.url}/health answered 200"),
        ("info", "✅ MCP client cache cleared due to status changes"),
        (
            "info",
            "✅ MCP health check completed: 2 server(s) checked using 2 worker(s), 2 status change(s), 1 failure(s)",
        ),
        ("warning", "⚠️ 2 server(s) changed status - check logs for details"),
    }
    entry = result.job_log_entries.get(message__startswith="down was Healthy and is now Unhealthy")
    assert (entry.log_level, entry.grouping, entry.log_object) == ("warning", "servers", "down")
    assert entry.absolute_url == down.get_absolute_url()
    assert back.status.name != MCPServer.objects.get(pk=back.pk).status.name


def test_a_flip_is_in_the_change_log_with_the_jobs_context(job, user, up):
    server = add("back", up.url, "Unhealthy")
    run(job, user)
    change = ObjectChange.objects.get(changed_object_id=server.pk)
    assert change.change_context == ObjectChangeEventContextChoices.CONTEXT_JOB
    assert change.change_context_detail == "ai_ops.jobs.mcp_health_check.MCPServerHealthCheckJob"
    assert change.user_name == "oncall"
    assert change.object_data_v2["status"]["id"] == str(MCPServer.objects.get(pk=server.pk).status.pk)


def test_a_run_that_changes_nothing_leaves_no_trace_in_the_change_log_and_warns_of_nothing(job, user, up):
    server = add("well", up.url, "Healthy")
    result = run(job, user)
    assert result.status == JobResultStatusChoices.STATUS_SUCCESS
    assert not ObjectChange.objects.filter(changed_object_id=server.pk).exists()
    assert not result.job_log_entries.filter(log_level="warning").exists()


def test_lines_that_are_written_together_are_those_that_nautobot_writes_one_by_one(job, user, down, monkeypatch):
    names = ["plain", "n" * 255, "password=secret1 token: secret2", "<b>bold</b> *text* [a](http://evil.example)"]
    servers = [add(name, down.url, "Healthy") for name in names]
    healthy = servers[0].status
    together = _flip_lines(run(job, user))
    MCPServer.objects.update(status=healthy)
    with monkeypatch.context() as patched:
        patched.setattr(flips, "lines_together", nullcontext)
        one_by_one = _flip_lines(run(job, user))
    assert len(together) == len(servers)
    assert together == one_by_one


def _flip_lines(result):
    entries = result.job_log_entries.filter(message__contains=" is now Unhealthy").order_by("created")
    return list(entries.values_list("log_level", "grouping", "message", "log_object", "absolute_url"))


def test_the_lines_of_many_flips_are_few_inserts(job, user, down):
    for number in range(FLIPS_AT_ONCE):
        add(f"server {number}", down.url, "Healthy")
    statements = []

    def keep(execute, sql, *arguments):
        statements.append(sql)
        return execute(sql, *arguments)

    with ExitStack() as wrapped:
        for alias in connections:
            wrapped.enter_context(connections[alias].execute_wrapper(keep))
        result = run(job, user)
    assert len(_flip_lines(result)) == FLIPS_AT_ONCE
    inserts = [sql for sql in statements if sql.startswith('INSERT INTO "extras_joblogentry"')]
    assert len(inserts) < FLIPS_AT_ONCE


@pytest.mark.parametrize("cause", ["the line", "the statement"])
def test_a_line_that_can_not_be_written_costs_neither_a_flip_nor_another_line(job, user, down, monkeypatch, cause):
    # Both in one transaction, and so their lines in one statement.
    monkeypatch.setattr(check, "GATHER_SECONDS", math.inf)
    for each in ("one", "two"):
        add(each, down.url, "Healthy")
    if cause == "the line":
        monkeypatch.setattr(MCPServer, "get_absolute_url", lambda server, api=False: "/\0" * (server.name == "two"))

    def refuse(execute, sql, *arguments):
        if sql.startswith('INSERT INTO "extras_joblogentry"') and sql.count("(%s") > 1:
            raise OperationalError("the disk is full")
        return execute(sql, *arguments)

    with ExitStack() as wrapped:
        for alias in connections if cause == "the statement" else ():
            wrapped.enter_context(connections[alias].execute_wrapper(refuse))
        result = run(job, user)
    assert (result.result["changed_count"], result.result["success"]) == (2, True)
    written = [line[3] for line in _flip_lines(result)]
    assert written == (["one"] if cause == "the line" else ["one", "two"])


def test_one_server_can_be_checked_alone(job, user, up):
    server, other = add("alpha", up.url, "Unhealthy"), add("other", up.url, "Unhealthy")
    result = run(job, user, server=server)
    assert result.status == JobResultStatusChoices.STATUS_SUCCESS
    assert (result.result["server"], result.result["changed"]) == ("alpha", True)
    assert MCPServer.objects.get(pk=other.pk).status.name == "Unhealthy"
    assert ("warning", "⚠️ 1 server(s) changed status - check logs for details") in lines(result)


def test_a_check_that_can_not_be_made_fails_the_job_with_its_reason_and_keeps_the_result(job, user, up):
    result = run(job, user, server=add("risky", up.url, "Vulnerable"))
    sentence = "risky is not checked while its status is Vulnerable: give it another status first."
    assert result.status == JobResultStatusChoices.STATUS_FAILURE
    assert ("failure", f"❌ MCP health check failed: {sentence}") in lines(result)
    assert (result.result["success"], result.result["error"]) == (False, sentence)


def test_a_server_that_is_down_does_not_fail_the_job(job, user):
    add("dead", "http://127.0.0.1:1", "Unhealthy")
    assert run(job, user).status == JobResultStatusChoices.STATUS_SUCCESS


def test_the_job_is_hidden_in_its_group_and_can_be_scheduled(job, user):
    assert (job.name, job.grouping, job.hidden) == ("MCP Server Health Check", JOB_GROUP, True)
    assert job.has_sensitive_variables is False
    assert job.time_limit > job.soft_time_limit
    schedule = ScheduledJob.create_schedule(
        job,
        user,
        name="health",
        start_time=timezone.now(),
        interval=JobExecutionType.TYPE_CUSTOM,
        crontab="*/10 * * * *",
        job_kwargs={},
    )
    assert schedule.enabled


HOSTILE = (
    "![i](http://evil.example/i.png) [log in](http://evil.example/login) <img src=http://evil.example/h.png>"
    "<script>alert(1)</script> \u202e\u2066reversed \x1b[31m\x07\x00 <http://evil.example>\n\n# Head\n> quote "
)


class Acting(HTMLParser):
    """Return the parts of a page that lead to evil.example, or are a script with alert(1)."""

    def __init__(self, html):
        super().__init__()
        self.found, self._in_script = [], False
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self._in_script = tag == "script"
        self.found += [
            (tag, name, value)
            for name, value in attrs
            if name in ("src", "href", "action", "style") and "evil.example" in (value or "")
        ]

    def handle_data(self, data):
        if self._in_script and data.strip().startswith("alert(1)"):
            self.found.append(("script", data))


def hostile_rows():
    """By name of a server: what it answers, with HOSTILE wherever it may say something."""
    long = HOSTILE + "A" * 5_000
    named = result(init(serverInfo={"name": long, "version": long}, instructions=long), "Mcp-Session-Id: s")
    tool = {**TOOL, "description": long, "title": long, "annotations": {"title": long}}
    shown = [{**tool, "name": "a tool"}, {**tool, "name": HOSTILE}, {**tool, "name": long}]
    ascii_only = HOSTILE.encode("ascii", "ignore").decode().translate({0: None, 10: None, 7: None, 27: None})
    return {
        "names": {"initialize": named, "tools/list": tools(*shown)},
        "error": {"initialize": body(lambda n: {**error(n), "error": {"code": -1, "message": long}})},
        "listing": {"tools/list": body(lambda n: {**error(n), "error": {"code": -1, "message": long}})},
        "redirect": {"initialize": raw(302, b"", f"Location: http://evil.example/{quote(ascii_only)}{ascii_only}")},
        "type": {"initialize": body(lambda n: b"{}", kind=ascii_only)},
        "revision": {"initialize": result(init(protocolVersion=long))},
    }


def test_nothing_that_a_server_says_acts_on_a_page_or_in_a_log(job, user, client):
    with WireServer().running() as wire:
        for name, row in hostile_rows().items():
            wire.rows[name] = (False, row)
            server = add(name, f"http://127.0.0.1:{wire.port}", "Healthy")
            MCPServer.objects.filter(pk=server.pk).update(probe="mcp", mcp_endpoint=f"/probe/{name}")
        results = [run(job, user), run(job, user)]
        # Then the approved tools change, so that there is a difference to be shown.
        wire.rows["names"] = (False, {**hostile_rows()["names"], "tools/list": tools({**TOOL, "name": HOSTILE[:200]})})
        check_mcp_server_health(MCPServer.objects.get(name="names").pk)
    assert MCPServer.objects.filter(status__name="Unhealthy").count() == 5, "all but the one that is only called badly"
    assert MCPServerTool.objects.exists()
    assert MCPServerIncident.objects.exists()
    for entry in JobLogEntry.objects.filter(job_result__in=results):
        assert Acting(render_markdown(entry.message)).found == [], entry.message
        assert_readable(entry.message, 6_000)
    client.force_login(user)
    shown = 0
    for url in pages_about_servers(results):
        page = client.get(url)
        assert page.status_code == 200, url
        text = page.content.decode()
        assert Acting(text).found == [], url
        assert_readable(text, 1_000_000)
        shown += "evil.example" in text
    assert shown > 10, "it is shown, and harmless"


def assert_readable(text, longest):
    """No character turns the direction of writing or controls a terminal, and there is not too much of it."""
    assert len(text) < longest
    assert not set("\u202e\u2066\x1b\x07\x00") & set(text)


def pages_about_servers(results):
    lists = ("mcpserver", "mcpservercheck", "mcpserverincident", "mcpservertool", "maintenancerun")
    yield from (reverse(f"plugins:ai_ops:{name}_list") for name in lists)
    for model in (MCPServer, MCPServerIncident, MCPServerTool, MaintenanceRun):
        yield from (each.get_absolute_url() for each in model.objects.all())
    for each in results:
        yield each.get_absolute_url()
        yield reverse("extras:jobresult_log-table", kwargs={"pk": each.pk})
