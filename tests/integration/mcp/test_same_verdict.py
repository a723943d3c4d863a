"""The probe, the listing of tools and the agents' own client agree on each server, whatever it sends."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
from langchain_mcp_adapters.client import MultiServerMCPClient
from langchain_mcp_adapters.sessions import StreamableHttpConnection
from langchain_mcp_adapters.tools import MAX_ITERATIONS

from ai_ops.mcp.http.prober import Prober, Target
from ai_ops.mcp.http.tls import ssl_context
from ai_ops.mcp.http.transports import ClientFactory
from ai_ops.mcp.logic.tools import MAX_PAGES
from ai_ops.mcp.logic.verdicts import ProbeKind, Reason
from tests.fakes.wire import ROWS, WireServer

# What a server that never answers costs each of the three. It must not be too short for the others on a busy machine.
SECONDS = 6.0

# The client takes some 20 ms of CPU for a server: with more at once it would be late by itself.
AT_ONCE = 24


async def loads(url: str) -> bool:
    """Return whether agents get tools there: langchain-mcp-adapters over the official SDK, as in `ai_ops.agents`."""
    connection = StreamableHttpConnection(
        transport="streamable_http",
        url=url,
        httpx_client_factory=ClientFactory(ssl_context(), allow_loopback=True, leaving=SECONDS / 10),
    )
    try:
        async with asyncio.timeout(SECONDS):
            await MultiServerMCPClient({"one": connection}).get_tools(server_name="one")
    except Exception:
        return False
    return True


async def _all_load(urls: list[str]) -> list[bool]:
    some = asyncio.Semaphore(AT_ONCE)

    async def one(url: str) -> bool:
        async with some:
            return await loads(url)

    return await asyncio.gather(*map(one, urls))


@pytest.fixture(scope="module")
def verdicts():
    """By row what the probe, the listing and the client say; all rows at once, since some take all of their time."""
    with WireServer().running() as server, Prober(SECONDS, allow_loopback=True) as prober:

        def targets(who):
            return [Target("", server.url(who, row), ProbeKind.MCP) for row in ROWS]

        # Side by side: both wait most of the time. The client, which would be late by itself, comes after them.
        with ThreadPoolExecutor() as pool:
            probing = pool.submit(lambda: list(prober.probe_all(targets("probe"))))
            listings = list(prober.list_all(targets("listing")))
            probes = probing.result()
        loaded = asyncio.run(_all_load([server.url("client", row) for row in ROWS]))
    return {
        row: (probe, listing.probe, client)
        for row, probe, listing, client in zip(ROWS, probes, listings, loaded, strict=True)
    }


@pytest.mark.parametrize("row", ROWS)
def test_probe_listing_and_client_agree(verdicts, row):
    probe, listing, client = verdicts[row]
    expected = ROWS[row][0]
    assert (client, probe.ok, listing.ok) == (expected, expected, expected), (probe.message, listing.message)
    assert probe.ok or probe.message.endswith(".")
    # Not an error of the program: that says nothing about the server.
    assert Reason.CHECKER not in (probe.reason, listing.reason)


def test_as_many_pages_are_read_as_the_client_reads():
    assert MAX_PAGES == MAX_ITERATIONS


def test_the_table_is_not_made_of_one_kind():
    assert len(ROWS) >= 60
    assert 40 < sum(well for well, _ in ROWS.values()) < len(ROWS) - 40


@pytest.mark.parametrize(("row", "connections"), [("kept", 1), ("kept-events", 1), ("plain", 4)])
def test_a_probe_and_a_listing_use_a_connection_again_that_the_server_keeps(row, connections):
    with WireServer().running() as server, Prober(SECONDS, allow_loopback=True) as prober:
        target = Target("", server.url("one", row), ProbeKind.MCP)
        assert prober.probe(target).ok
        assert server.connections.total() == connections
        assert prober.list_tools(target).probe.ok
        assert server.connections.total() == 2 * connections
