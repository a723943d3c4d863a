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
    """Return the agents' names of those tools of `server` that are renamed for agents.

    Args:
        server: Of its tools those are looked at that it listed last, whether agents use it now or not.
        always: Whether all tools have the name of their server in front.
    """
    mine = list(_listed(Q(server=server)))
    others = Q(server__protocol=MCPProtocolChoices.HTTP, server__status__name=MCPServerStatus.HEALTHY) & ~Q(
        server=server
    )
    rows = [*mine, *_listed(others & Q(name__in=[name for *_, name in mine]))]
    # A prefix may make a name that another tool has from the start.
    rows += _listed(others & Q(name__in=set(distinct_names(rows, always=always)) - {name for *_, name in rows}))
    names = distinct_names(rows, always=always)
    return {name: seen for (pk, _, name), seen in zip(rows, names, strict=True) if pk == server.pk and seen != name}


def _listed(which: Q) -> Iterator[_Row]:
    # What a user has rejected agents do not get at all.
    rows = MCPServerTool.objects.filter(which, rejected=None).exclude(hash="").order_by("server", "name")
    return rows.values_list("server", "server__name", "name").iterator()
