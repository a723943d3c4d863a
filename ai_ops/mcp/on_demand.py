"""Checks of one MCP server on demand, for the button and the REST action."""

from __future__ import annotations

from datetime import timedelta

from django.db.models import Q
from django.db.models.functions import Now

from ai_ops.choices import MaintenanceKindChoices, RunStateChoices, RunTriggerChoices
from ai_ops.exceptions import RunRefusedError
from ai_ops.models import MaintenanceRun, MCPServer
from ai_ops.runs.permissions import may_run
from ai_ops.runs.requests import request_run

# Three probes with two pauses take less than a minute. A longer check waits for another reason.
LONGEST_CHECK = timedelta(minutes=10)


def request_check(server: MCPServer, user) -> MaintenanceRun:
    """Request a check of `server` only, with `user` as the user of the run.

    Returns:
        The run; if an approval workflow applies, it has no JobResult yet.

    Raises:
        RunRefusedError: The check was refused; the message has the reason and the advice.
    """
    if reason := server.why_not_checked():
        raise RunRefusedError(reason)
    return request_run(MaintenanceKindChoices.SERVER, {"server": str(server.pk)}, user, trigger=RunTriggerChoices.JOB)


def is_being_checked(server: MCPServer) -> bool:
    """Return whether a check of only `server` is running or queued."""
    runs = MaintenanceRun.objects.filter(kind=MaintenanceKindChoices.SERVER, subject=str(server.pk))
    recent = runs.filter(created__gt=Now() - LONGEST_CHECK)
    return recent.filter(
        Q(state=RunStateChoices.RUNNING) | Q(state=RunStateChoices.PENDING, next_attempt__isnull=False)
    ).exists()


def may_run_check(user) -> bool:
    """Return whether `user` may run the health check Job."""
    return may_run(MaintenanceKindChoices.SERVER, user)
