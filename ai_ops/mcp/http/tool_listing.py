"""Lists the tools of one MCP server, in a session of its own that ends as a probe's does."""

from __future__ import annotations

from dataclasses import dataclass

from ai_ops.mcp.http.attempt import Attempt, Target
from ai_ops.mcp.http.connections import LineTransport
from ai_ops.mcp.http.failures import Wording
from ai_ops.mcp.logic.protocol import Message
from ai_ops.mcp.logic.tools import Tool, ToolReader
from ai_ops.mcp.logic.verdicts import Probe


@dataclass(frozen=True)
class Listing:
    """The answer of a server to the request for its tools.

    Attributes:
        probe: How it went, in the words of a probe. It says nothing about the server's health.
        tools: What it lists; None where the list could not be had, which is not the same as no tools.
    """

    probe: Probe
    tools: tuple[Tool, ...] | None = None


class ToolListing(Attempt):
    """One listing on its way; the time by which it has to be done is that of the whole of it."""

    def __init__(self, transport: LineTransport, target: Target, started: float, timeout: float) -> None:
        super().__init__(transport, target, started, timeout)
        self._wording = Wording("MCP endpoint", "lists its tools as MCP says and within the limits", target.credentials)
        credentials = target.credentials
        self._reader = ToolReader(credentials.hide_in) if credentials else ToolReader()

    async def listed(self) -> Listing:
        """Shake hands, list all pages, take leave."""
        outcome = await self._outcome(self._converse)
        probe = outcome.as_probe(self.latency_ms)
        return Listing(probe, self._reader.tools() if probe.ok else None)

    def _keep(self, page: Message) -> None:
        self._reader.add(page)
