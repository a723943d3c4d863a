"""MCP servers as an operator enters them."""

from __future__ import annotations

from typing import Any

from nautobot.extras.models import Status

from ai_ops.models import MCPServer

# The port of tcpmux: a connection is refused at once.
NOBODY_LISTENS = "http://127.0.0.1:1"


def add(name: str, url: str = NOBODY_LISTENS, status_name: str = "Healthy", **fields: Any) -> MCPServer:
    """Save a server, and return it."""
    status = Status.objects.get_for_model(MCPServer).get(name=status_name)
    server = MCPServer(name=name, url=url, status=status, **fields)
    server.validated_save()
    return server
