"""Lists of tools over real sockets: what hostile servers are called, and what is read of well ones."""

from __future__ import annotations

import json
import time
import tracemalloc

import pytest

from ai_ops.mcp.http import conversation as mcp_conversation
from ai_ops.mcp.http.prober import Prober, Target
from ai_ops.mcp.http.tool_listing import Listing
from ai_ops.mcp.logic.credentials import Credentials
from ai_ops.mcp.logic.verdicts import ProbeKind, Reason
from tests.fakes.mcp_server import MCP_FAULTS, FakeMCPServer
from tests.fakes.tool_lists import TOOL_LISTS

# As in the other table: short for servers that never end, and so long for all others that a busy machine reads a list
# of ten thousand tools in it.
TIMEOUT = 1.0
ENOUGH = 20.0
GRACE = 10.0

# path, reason, words that the sentence must have
REFUSED_WHOLE = ("number-name", "no-name", "no-schema", "number-description", "no-tool", "deep")
FAULT_TABLE = [
    ("/mcp/tools-refused", Reason.PROTOCOL, "JSON-RPC error -32601 (Method not found): agents can't list its tools"),
    ("/mcp/tools-silent", Reason.TIMEOUT, "POST tools/list to http://127.0.0.1"),
    ("/mcp/tools-resets", Reason.PROTOCOL, "an incomplete answer"),
    ("/mcp/tools-500", Reason.HTTP, "check its log"),
    ("/mcp/tools-429", Reason.HTTP, "answered 429"),
    (
        "/mcp/tools-login",
        Reason.PROTOCOL,
        "text/html instead of JSON: set the MCP endpoint to one that lists its tools",
    ),
    ("/mcp/tools-bomb", Reason.PROTOCOL, "more than 1024 KiB and was cut off"),
    ("/mcp/tools-floods", Reason.PROTOCOL, "more than 1024 KiB and was cut off"),
    ("/mcp/tools-sse-floods", Reason.PROTOCOL, "1024 KiB"),
    ("/mcp/tools-sse-drips", Reason.TIMEOUT, "ran out of time"),
    ("/mcp/tools-brackets", Reason.PROTOCOL, "not JSON in UTF-8"),
    ("/mcp/tools-many", Reason.PROTOCOL, "listed more than 10,000 tools"),
    ("/mcp/tools-endless", Reason.PROTOCOL, "a list of more than 100 pages"),
    ("/mcp/tools-same-cursor", Reason.PROTOCOL, "the same cursor again"),
    ("/mcp/tools-number-cursor", Reason.PROTOCOL, "an invalid nextCursor"),
    ("/mcp/tools-long-cursor", Reason.PROTOCOL, "the same cursor again"),
    ("/mcp/tools-fat-pages", Reason.PROTOCOL, "a list longer than 2,048 KiB"),
    ("/mcp/tools-too-huge", Reason.PROTOCOL, "more than 1024 KiB and was cut off"),
    ("/mcp/tools-no-list", Reason.PROTOCOL, "an invalid tools"),
    # The agents' client refuses the whole list for one such tool.
    *((f"/mcp/tools-{fault}", Reason.PROTOCOL, "tools/list") for fault in REFUSED_WHOLE),
    # The handshake is that of a probe, with all of its faults; these stand for them.
    ("/mcp/404", Reason.HTTP, "POST initialize"),
    ("/mcp/future", Reason.INCOMPATIBLE, "which the agents' client does not"),
    ("/mcp/elsewhere", Reason.HTTP, "redirects to http://elsewhere.invalid/mcp"),
]
WELL = {
    "/mcp/tools-none": [],
    "/mcp/tools-three-pages": [f"tool_{page}_{number}" for page in range(3) for number in range(2)],
    "/mcp/tools-shuffled": sorted(f"tool_{number}" for number in range(20)),
    "/mcp/tools-twice": ["pay"],
    "/mcp/tools-huge": ["huge"],
    "/mcp/tools-nul": ["nul"],
}
# What can't be read does not hide the rest of the list, and is a tool of its own.
UNREADABLE = {
    "/mcp/tools-nul-name": ("(unreadable) a\\u0000b", "its name is not 1 to 255 printable characters"),
    "/mcp/tools-long-name": ("(unreadable) aaa", "its name is not 1 to 255 printable characters"),
}


@pytest.fixture(autouse=True)
def _fewer_pages(monkeypatch):
    monkeypatch.setattr(mcp_conversation, "MAX_PAGES", 100)


@pytest.fixture
def prober():
    with Prober(ENOUGH, allow_loopback=True) as opened:
        yield opened


def target_for(server, path, **options):
    return Target(f"{server.url}/health", f"{server.url}{path}", ProbeKind.HTTP, **options)


def test_the_table_has_every_path():
    named = {path for path, *_ in FAULT_TABLE} | set(WELL) | set(UNREADABLE)
    assert named >= set(TOOL_LISTS) | {path for path in MCP_FAULTS if path.startswith("/mcp/tools")}


@pytest.mark.parametrize(("path", "reason", "words"), FAULT_TABLE)
def test_each_fault_has_its_reason_ends_in_time_and_is_never_no_tools(server, path, reason, words):
    server.messages.clear()
    timeout = TIMEOUT if reason is Reason.TIMEOUT else ENOUGH
    with Prober(timeout, allow_loopback=True) as prober:
        started = time.monotonic()
        listing = prober.list_tools(target_for(server, path))
        took = time.monotonic() - started
    assert (listing.tools, listing.probe.ok, listing.probe.reason) == (None, False, reason), listing.probe.message
    assert words in listing.probe.message
    assert took < timeout + GRACE
    said = [method for asked, method in server.messages if asked == path]
    assert "tools/list" not in said or said[-1] == "DELETE", "it takes leave"


@pytest.mark.parametrize("path", WELL)
def test_well_servers_are_read_whole(server, prober, path):
    listing = prober.list_tools(target_for(server, path))
    assert listing.probe.ok, listing.probe.message
    assert [tool.name for tool in listing.tools] == WELL[path]


@pytest.mark.parametrize("path", UNREADABLE)
def test_what_can_not_be_read_is_listed_as_such(server, prober, path):
    (tool,) = prober.list_tools(target_for(server, path)).tools
    name, words = UNREADABLE[path]
    assert tool.name.startswith(name)
    assert words in tool.definition
    assert words in tool.excerpt


def test_the_order_of_a_list_is_nothing(server, prober):
    target = target_for(server, "/mcp/tools-shuffled")
    assert prober.list_tools(target).tools == prober.list_tools(target).tools


@pytest.mark.parametrize("path", ["/mcp/tools-huge", "/mcp/tools-fat-pages", "/mcp/tools-bomb", "/mcp/tools-endless"])
def test_memory_stays_small(server, prober, path):
    target = target_for(server, path)
    prober.list_tools(target)
    tracemalloc.start()
    prober.list_tools(target)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 8 * 1024 * 1024


def test_a_list_of_more_than_64_kib_in_one_event_is_ordinary(prober):
    tools = [{"name": f"tool_{number}", "description": "x" * 1000, "inputSchema": {}} for number in range(100)]
    assert len(json.dumps(tools)) > 64 * 1024
    with FakeMCPServer(tools=tools, as_events=True).running() as running:
        listing = prober.list_tools(target_for(running, "/mcp"))
    assert listing.probe.ok, listing.probe.message
    assert len(listing.tools) == 100


def test_credentials_are_sent_and_kept_nowhere_when_sent_back(prober):
    tool = {"name": "echo", "description": "You sent Bearer t0ken.", "inputSchema": {"default": "t0ken"}}
    with FakeMCPServer(tools=[tool], token="t0ken").running() as running:
        assert prober.list_tools(target_for(running, "/mcp")).probe.reason is Reason.AUTH_REQUIRED
        listing = prober.list_tools(target_for(running, "/mcp", credentials=Credentials.bearer("t0ken")))
    assert listing.probe.ok
    assert "t0ken" not in repr(listing)
    assert listing.tools[0].excerpt == "You sent (hidden)."


def test_it_obeys_the_address_policy(server):
    with Prober(TIMEOUT) as prober:
        listing = prober.list_tools(target_for(server, "/mcp"))
    assert (listing.tools, listing.probe.reason) == (None, Reason.POLICY)


def test_retry_after_is_kept(server, prober):
    assert prober.list_tools(target_for(server, "/mcp/tools-429")).probe.retry_after == 7200


def test_a_ca_file_that_is_not_there_is_ours_to_mend(server, prober):
    listing = prober.list_tools(target_for(server, "/mcp", ca_file="/no/such/file.pem"))
    assert isinstance(listing, Listing)
    assert (listing.tools, listing.probe.reason) == (None, Reason.CHECKER)


def test_many_are_listed_in_the_order_they_were_given(server, prober):
    targets = [target_for(server, path) for path in WELL] * 3
    names = [[tool.name for tool in listing.tools] for listing in prober.list_all(targets)]
    assert names == list(WELL.values()) * 3
