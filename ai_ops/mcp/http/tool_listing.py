"""A listing of an MCP server's tools, in a separate session that ends like that of a probe."""

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
    """The result of a listing of a server's tools.

    Attributes:
        probe: The result in the form of a probe. It says nothing about the server's health.
        tools: The listed tools; None if the listing failed, which is not the same as no tools.
    """

    probe: Probe
    tools: tuple[Tool, ...] | None = None


class ToolListing(Attempt):
    """A running listing, with one deadline for all its requests."""

    def __init__(self, transport: LineTransport, target: Target, started: float, timeout: float) -> None:
        super().__init__(transport, target, started, timeout)
        credentials = target.credentials
        self._wording = Wording("MCP endpoint", "lists its tools according to MCP and within the limits", credentials)
        self._reader = ToolReader(credentials.hide_in) if credentials else ToolReader()

    async def listed(self) -> Listing:
        """Do the handshake, list all pages, and end the session."""
        outcome = await self._outcome(self._converse)
        probe = outcome.as_probe(self.latency_ms)
        return Listing(probe, self._reader.tools() if probe.ok else None)

    def _keep(self, page: Message) -> None:
        self._reader.add(page)
