"""The MCP client that the agents of one process share."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from langchain_mcp_adapters.client import MultiServerMCPClient
from langchain_mcp_adapters.sessions import Connection, StreamableHttpConnection

from ai_ops.agents.generation import current_generation
from ai_ops.choices import MCPProtocolChoices, MCPServerStatus
from ai_ops.models import MCPServer


@dataclass(frozen=True)
class _Built:
    generation: int
    client: MultiServerMCPClient


_lock = threading.Lock()
_built: _Built | None = None


def get_mcp_client() -> MultiServerMCPClient:
    """Return this process's client for the Healthy HTTP servers, made anew after any flip.

    Ask for it at the start of each request and don't keep it longer. It reads the database: from a
    coroutine call ``sync_to_async(get_mcp_client)()``.

    Raises:
        AgentCacheError: The shared cache could not be read.
    """
    global _built
    generation = current_generation()
    with _lock:
        if _built is None or _built.generation != generation:
            _built = _Built(generation, MultiServerMCPClient(_connections()))
        return _built.client


def _connections() -> dict[str, Connection]:
    servers = MCPServer.objects.filter(protocol=MCPProtocolChoices.HTTP, status__name=MCPServerStatus.HEALTHY)
    return {
        server.name: StreamableHttpConnection(transport="streamable_http", url=server.mcp_url) for server in servers
    }
