"""The end of schedules for one MCP server when that server is deleted: each of their runs would fail."""

from __future__ import annotations

from typing import Any

from django.db import transaction

from ai_ops.models import MCPServer
from ai_ops.runs.decisions import Hold
from ai_ops.runs.findings import Findings
from ai_ops.runs.logs import get_logger
from ai_ops.schedules.control import app_schedules, servers_that_are_gone

logger = get_logger(__name__)


def follow_server(sender: Any, instance: MCPServer, **_: Any) -> None:
    """End the schedules of a server that is deleted; receives `post_delete`."""
    _end_schedules(f'its MCP server "{instance.name}" was deleted', str(instance.pk))


def end_without_server(_hold: Hold | None = None) -> Findings:
    """End active schedules whose server does not exist.

    Returns:
        Schedules that ended, as fixed.
    """
    ended = _end_schedules("its MCP server was deleted")
    return Findings(ended, ended)


def _end_schedules(reason: str, server: str | None = None) -> int:
    """End active schedules of that server, or of all deleted servers; return their number."""
    # One that waits for approval is not active; it ends when it becomes so.
    of_one_server = app_schedules().filter(enabled=True, kwargs__has_key="server")
    if not of_one_server.exists():
        return 0
    with transaction.atomic():
        found = servers_that_are_gone(of_one_server)
        gone = [pk for pk, of_server in found.items() if server in (None, of_server)]
        for schedule in of_one_server.filter(pk__in=gone).select_for_update(of=("self",)):
            schedule.enabled = False
            schedule.description = f"{schedule.description}\n\nEnded: {reason}.".strip()
            schedule.save()
            logger.warning('The schedule "%s" ended: %s', schedule.name, reason, extra={"grouping": "schedules"})
        return len(gone)
