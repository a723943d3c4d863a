"""``make demo`` and ``make start``, from nothing, as a newcomer runs them, and the pages as a person walks them.

One file, so that one Nautobot serves all of it.
"""

import contextlib
import dataclasses
import json
import re
import subprocess

import httpx
import pytest
from playwright.sync_api import Page, expect, sync_playwright

from development import services
from development.screenshots import ARGUMENTS
from development.stack import PASSWORD, USER, api_token
from tests.acceptance import local_processes
from tests.fakes.chromium import CHROMIUM, needs_chromium
from tests.fakes.mcp_server import FakeMCPServer
from tests.waiting import until

# A check that finds something new takes two pauses of 5 s, and the page of the run shows its end by itself.
RUN_TIMEOUT_MS = 40_000

CLEANUP_CONTRACT = {"success", "processed_count", "deleted_count", "retention_days", "error"}
HEALTH_CONTRACT = {
    "success",
    "checked_count",
    "changed_count",
    "failed_count",
    "worker_count",
    "cache_cleared",
    "error",
}


@pytest.fixture(scope="module")
def demo_output(state):
    """The output of a demo from an empty state folder; it must have ended well."""
    demo = local_processes.start("development.demo", state, "--json")
    output, _ = demo.communicate(timeout=300)
    logs = {path.name: path.read_text(errors="replace")[-2000:] for path in (state / "logs").glob("*.log")}
    assert demo.returncode == 0, f"{output}\n{logs if demo.returncode else ''}"
    return output


def test_both_jobs_report_their_contract(demo_output):
    cleanup, storage, health = (
        json.loads(line.removeprefix("RESULT ")) for line in demo_output.splitlines() if line.startswith("RESULT ")
    )
    assert set(cleanup) >= CLEANUP_CONTRACT
    assert cleanup["success"] is True
    assert cleanup["deleted_count"] > 0
    assert storage["success"] is True
    assert set(health) >= HEALTH_CONTRACT
    assert (health["checked_count"], health["changed_count"], health["failed_count"]) == (3, 2, 1)
    assert health["cache_cleared"] is True


@pytest.mark.parametrize(
    "line",
    [
        "Starting checkpoint cleanup task...",
        "✅ Checkpoint cleanup completed: processed",
        "Deleted",
        "Starting MCP server health checks...",
        "✅ MCP health check completed: 3 server(s) checked using 3 worker(s), 2 status change(s), 1 failure(s)",
        "✅ MCP client cache cleared due to status changes",
        "⚠️ 2 server(s) changed status - check logs for details",
    ],
)
def test_job_logs_have_the_lines_that_operators_search_for(demo_output, line):
    assert line in demo_output


def test_nothing_was_seen_to_be_wrong(demo_output):
    assert "FAIL" not in demo_output
    assert "All statements above are right." in demo_output


@dataclasses.dataclass
class Stack:
    """The command of ``make start``."""

    process: subprocess.Popen[str]
    url: str


@pytest.fixture(scope="module")
def stack(demo_output, state):
    """``make start``, after the demo."""
    process = local_processes.start("development.stack", state)
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "Ctrl-C stops" in line:
            break
    assert process.poll() is None, "".join(lines)
    url = next(word for line in lines for word in line.split() if word.startswith("http://"))
    pause_health_checks(url, state)
    yield Stack(process, url)
    process.kill()
    process.wait(60)
    process.stdout.close()


def pause_health_checks(url, state):
    """Let no run of beat, which begins at some minutes, find out first what the walk is about."""
    with rest_client(url, state) as rest:
        (health,) = rest.get("/api/plugins/ai-ops/schedules/", params={"kind": "health"}).json()["results"]
        assert rest.post(f"/api/plugins/ai-ops/schedules/{health['id']}/pause/").status_code == 200
        unfinished = {"kind": "health", "state": ["pending", "running"]}
        until(
            lambda: rest.get("/api/plugins/ai-ops/runs/", params=unfinished).json()["count"] == 0,
            "the end of health checks",
        )


def rest_client(url, state):
    """A client of REST, as the superuser."""
    settings = services.Settings(**json.loads((state / "settings.json").read_text()))
    return httpx.Client(base_url=url, headers={"Authorization": f"Token {api_token(settings)}"}, timeout=60)


@pytest.fixture
def mcp_server():
    """An MCP server, and what stops it. Started before the browser, whose library runs a loop in this thread."""
    with contextlib.ExitStack() as running:
        yield running.enter_context(FakeMCPServer().running()), running.close


@pytest.fixture
def page(stack, mcp_server, tmp_path):
    """A page of a browser that has logged in."""
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            tmp_path / "profile", executable_path=CHROMIUM, args=ARGUMENTS, viewport={"width": 1400, "height": 900}
        )
        page = context.pages[0]
        page.goto(f"{stack.url}/login/")
        page.fill("input[name=username]", USER)
        page.fill("input[name=password]", PASSWORD)
        page.press("input[name=password]", "Enter")
        page.wait_for_load_state()
        yield page
        context.close()


def check_now(page: Page, server_page: str) -> None:
    """Press the button; the page follows the run until its end."""
    page.goto(server_page)
    page.get_by_role("button", name="Check now").click()
    expect(page.get_by_text("has been requested")).to_be_visible()
    expect(page.locator("#ai-ops-following")).to_have_count(0, timeout=RUN_TIMEOUT_MS)


@needs_chromium
def test_a_server_is_added_found_healthy_lost_and_becomes_an_incident(stack, mcp_server, page):
    server, stop_it = mcp_server
    page.goto(f"{stack.url}/plugins/ai-ops/mcp-servers/add/")
    page.fill("input[name=name]", "Tickets")
    page.fill("input[name=url]", server.url)
    page.get_by_role("button", name="Create", exact=True).click()
    page.wait_for_url("**/mcp-servers/*-*-*-*-*/")
    server_page = page.url
    expect(page.get_by_role("main")).to_contain_text("Unhealthy")
    check_now(page, server_page)
    expect(page.get_by_role("main")).to_contain_text("Healthy")
    expect(page.get_by_role("main")).not_to_contain_text("Unhealthy")
    expect(page.get_by_role("main")).to_contain_text(re.compile(r"100 % of \d+ probes"))
    stop_it()
    check_now(page, server_page)
    expect(page.get_by_role("main")).to_contain_text("Unhealthy")
    page.locator("#ai-ops-server-banner").get_by_role("link", name="Tickets: CONNECT").click()
    # The server's page has the same words and a button of the same name.
    page.wait_for_url("**/mcp-server-incidents/**")
    expect(page.get_by_role("main")).to_contain_text("check that the server runs")
    page.get_by_role("button", name="Acknowledge").click()
    expect(page.get_by_role("main")).to_contain_text(USER)


def test_start_brings_the_help_pages(stack):
    with httpx.Client(base_url=stack.url, headers={"Referer": stack.url}, timeout=60, follow_redirects=True) as browser:
        browser.get("/login/")
        token = browser.cookies["csrftoken"]
        browser.post("/login/", data={"username": USER, "password": PASSWORD, "csrfmiddlewaretoken": token})
        for page in ("/plugins/ai-ops/docs/", "/docs/ai-ops/models/mcpserver.html"):
            assert browser.get(page).status_code == 200, page


def test_start_serves_and_a_killed_supervisor_leaves_no_process_behind(stack, state):
    """The last test: the kernel ends the rest when the process that started it all is killed."""
    assert "AI Ops" in _plugin_names(stack.url, state)
    processes = local_processes.descendants(stack.process.pid)
    assert len(processes) >= 7, "PostgreSQL, two Redis, web, worker, beat, MCP servers"
    stack.process.kill()
    stack.process.wait(60)
    local_processes.assert_gone(processes)


def _plugin_names(url, state):
    with rest_client(url, state) as rest:
        response = rest.get("/api/plugins/installed-plugins/")
    return [each["name"] for each in response.raise_for_status().json()]
