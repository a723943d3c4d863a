"""The main path as a person walks it in a browser: add a server, see it Healthy; lose it, see the incident."""

from __future__ import annotations

import contextlib
import shutil
import signal

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from development.screenshots import ARGUMENTS
from development.stack import PASSWORD, USER
from tests.acceptance import local_processes
from tests.fakes.mcp_server import FakeMCPServer

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed (Debian's package chromium)")

# A check that finds something new takes two pauses of 5 s, and the page of the run shows its end by itself.
RUN_TIMEOUT_MS = 40_000


@pytest.fixture(scope="module")
def nautobot(tmp_path_factory):
    """The address of a Nautobot with a worker of its own."""
    state = tmp_path_factory.mktemp("browser") / "state"
    stack = local_processes.start("development.stack", state)
    assert stack.stdout is not None
    lines = []
    for line in stack.stdout:
        lines.append(line)
        if "Nautobot is ready" in line:
            break
    assert lines, "the stack printed nothing"
    assert "Nautobot is ready" in lines[-1], "".join(lines)
    yield lines[-1].split()[-1]
    stack.send_signal(signal.SIGINT)
    stack.wait(60)
    local_processes.remove(state)


@pytest.fixture
def mcp_server():
    """An MCP server, and what stops it. Started before the browser, whose library runs a loop in this thread."""
    with contextlib.ExitStack() as running:
        yield running.enter_context(FakeMCPServer().running()), running.close


@pytest.fixture
def page(nautobot, mcp_server, tmp_path):
    """A page of a browser that has logged in."""
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            tmp_path / "profile", executable_path=CHROMIUM, args=ARGUMENTS, viewport={"width": 1400, "height": 900}
        )
        page = context.pages[0]
        page.goto(f"{nautobot}/login/")
        page.fill("input[name=username]", USER)
        page.fill("input[name=password]", PASSWORD)
        page.press("input[name=password]", "Enter")
        page.wait_for_load_state()
        yield page
        context.close()


def check_now(page: Page, server_page: str) -> None:
    """Press the button and wait for the run's end."""
    page.goto(server_page)
    page.get_by_role("button", name="Check now").click()
    page.wait_for_url("**/job-results/**")
    expect(page.get_by_role("main")).to_contain_text("Success", timeout=RUN_TIMEOUT_MS, ignore_case=True)
    page.goto(server_page)


def test_a_server_is_added_found_healthy_lost_and_becomes_an_incident(nautobot, mcp_server, page):
    server, stop_it = mcp_server
    page.goto(f"{nautobot}/plugins/ai-ops/mcp-servers/add/")
    page.fill("input[name=name]", "Tickets")
    page.fill("input[name=url]", server.url)
    page.get_by_role("button", name="Create", exact=True).click()
    page.wait_for_url("**/mcp-servers/*-*-*-*-*/")
    server_page = page.url
    expect(page.get_by_role("main")).to_contain_text("Unhealthy")
    check_now(page, server_page)
    expect(page.get_by_role("main")).to_contain_text("Healthy")
    expect(page.get_by_role("main")).not_to_contain_text("Unhealthy")
    expect(page.get_by_role("main")).to_contain_text("100 % of 1 checks")
    stop_it()
    check_now(page, server_page)
    expect(page.get_by_role("main")).to_contain_text("Unhealthy")
    page.get_by_role("link", name="Tickets: CONNECT").click()
    expect(page.get_by_role("main")).to_contain_text("check that the server runs")
    page.get_by_role("button", name="Acknowledge").click()
    expect(page.get_by_role("main")).to_contain_text(USER)
