"""The check of one MCP server on demand: what the button and the REST action have in common."""

from __future__ import annotations

from nautobot.extras.models import JobResult, ScheduledJob

from ai_ops.models import MCPServer
from ai_ops.run_now import RunRefusedError, may_run, request_run


def request_check(server: MCPServer, user) -> JobResult | ScheduledJob:
    """Enqueue a check of `server` alone, to be run as `user`.

    Returns:
        The JobResult of the run; where an approval workflow applies, the ScheduledJob that waits for it.

    Raises:
        RunRefusedError: There will be no check; the message says why and what to do.
    """
    if reason := server.why_not_checked():
        raise RunRefusedError(reason)
    return request_run("health", user, {"server": server})


def may_run_check(user) -> bool:
    """Tell whether `user` has the permission to run the health check Job."""
    return may_run("health", user)
