"""MCP servers as an operator enters them."""

from __future__ import annotations

from typing import Any

from nautobot.extras.models import Status

from ai_ops.models import MCPServer

# The port of tcpmux: a connection is refused at once.
NOBODY_LISTENS = "http://127.0.0.1:1"


def add(name: str, url: str = NOBODY_LISTENS, status_name: str = "Healthy", **fields: Any) -> MCPServer:
    """Save a server, and return it. It is not validated, which takes as long as all the rest."""
    status = Status.objects.get(name=status_name)
    return MCPServer.objects.create(name=name, url=url, status=status, **fields)


def add_many(count: int, url: str = NOBODY_LISTENS, name: str = "server") -> list[MCPServer]:
    """Save so many Healthy servers at one address, which are probed by their health page, and return them."""
    return [add(f"{name}-{number:02}", url, probe="http") for number in range(count)]


def status_of(server: MCPServer) -> str:
    """Return the name of its status in the database."""
    return MCPServer.objects.get(pk=server.pk).status.name
