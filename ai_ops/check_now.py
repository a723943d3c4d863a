"""The check of one MCP server on demand: what the button and the REST action have in common."""

from __future__ import annotations

from nautobot.extras.models import JobResult, ScheduledJob

from ai_ops.choices import MCPProtocolChoices, MCPServerStatus
from ai_ops.models import MCPServer
from ai_ops.run_now import RunRefusedError, may_run, request_run


def request_check(server: MCPServer, user) -> JobResult | ScheduledJob:
    """Enqueue a check of `server` alone, to be run as `user`.

    Returns:
        The JobResult of the run; where an approval workflow applies, the ScheduledJob that waits for it.

    Raises:
        RunRefusedError: There will be no check; the message says why and what to do.
    """
    if reason := why_not_checked(server):
        raise RunRefusedError(reason)
    return request_run("health", user, {"server": server})


def why_not_checked(server: MCPServer) -> str | None:
    """Return why health checks leave `server` out, as a sentence, or None if they don't."""
    if server.protocol == MCPProtocolChoices.STDIO:
        return f"{server} is not checked: a STDIO server runs inside the agent and has no address to ask."
    if server.status.name == MCPServerStatus.VULNERABLE:
        return (
            f"{server} is not checked while its status is {MCPServerStatus.VULNERABLE}: give it another status first."
        )
    return None


def may_run_check(user) -> bool:
    """Tell whether `user` has the permission to run the health check Job."""
    return may_run("health", user)
