"""Tool names that several servers share, and the names under which agents see them."""

from __future__ import annotations

from collections.abc import Iterator

from django.db.models import Q

from ai_ops.choices import MCPProtocolChoices, MCPServerStatus
from ai_ops.mcp.logic.tool_names import distinct_names
from ai_ops.models import MCPServer
from ai_ops.models.tools import MCPServerTool

_Row = tuple[object, str, str]


def names_for_agents(server: MCPServer, *, always: bool) -> dict[str, str]:
    """Return the tools of `server` that have another name for agents, with that name.

    Args:
        server: The server, whose last listed tools are used even if agents do not use it now.
        always: Whether all tools have the name of their server as a prefix.
    """
    mine = list(_listed(Q(server=server)))
    others = Q(server__protocol=MCPProtocolChoices.HTTP, server__status__name=MCPServerStatus.HEALTHY) & ~Q(
        server=server
    )
    rows = [*mine, *_listed(others & Q(name__in=[name for *_, name in mine]))]
    # With a prefix a tool may get the original name of another tool.
    rows += _listed(others & Q(name__in=set(distinct_names(rows, always=always)) - {name for *_, name in rows}))
    names = distinct_names(rows, always=always)
    return {name: seen for (pk, _, name), seen in zip(rows, names, strict=True) if pk == server.pk and seen != name}


def _listed(which: Q) -> Iterator[_Row]:
    # Agents do not get rejected tools.
    rows = MCPServerTool.objects.filter(which, rejected=None).exclude(hash="").order_by("server", "name")
    return rows.values_list("server", "server__name", "name").iterator()
