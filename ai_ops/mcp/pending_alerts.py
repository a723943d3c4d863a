"""Pending alerts: flips without an incident yet, because their run was killed or their server flaps.

An alert is a column of the server's row in MCPServerHealth. It is cleared in the transaction that opens the incident,
so that no alert is lost or sent twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from ai_ops.choices import MCPServerStatus
from ai_ops.mcp.logic.reports import ServerReport
from ai_ops.models.health import MCPServerHealth
from ai_ops.runs.logs import get_logger

logger = get_logger(__name__)

# A run opens the incidents of its flips within seconds. A run that has not done so by then is dead.
OWED_FOR_LONG = timedelta(minutes=2)


def owe(reports: Sequence[ServerReport]) -> None:
    """Record pending alerts in the transaction that makes these servers Unhealthy.

    The end of the run clears them with `take_due`. For a killed run `take_owed` does.
    """
    MCPServerHealth.objects.bulk_create(
        [
            MCPServerHealth(
                server_id=report.server_id,
                checked=report.checked_at,
                ok=report.ok,
                reason=report.reason or "",
                message=report.message or "",
                alert_held=True,
            )
            for report in reports
        ],
        update_conflicts=True,
        unique_fields=["server"],
        update_fields=["checked", "ok", "reason", "message", "alert_held"],
    )


def take_owed(now: datetime) -> list[ServerReport]:
    """Take the pending alerts of killed runs; return the servers with their reports."""
    # A change in the future is from a wrong clock, and not from a newer run.
    owed = MCPServerHealth.objects.filter(
        alert_held=True, flapping=False, server__status__name=MCPServerStatus.UNHEALTHY
    ).exclude(server__last_updated__range=(now - OWED_FOR_LONG, now + OWED_FOR_LONG))
    down = [_as_found(health) for health in owed.select_related("server__status")]
    owed.filter(server__in=[report.server_id for report in down]).update(alert_held=False)
    return down


def take_due(reports: Sequence[ServerReport], flipped: Sequence[ServerReport]) -> list[ServerReport]:
    """Take the due alerts, including those of servers that stopped flapping; hold those of flapping servers."""
    health = MCPServerHealth.objects.filter(server__in=[report.server_id for report in flipped], flapping=True)
    held = {str(pk) for pk in health.values_list("server", flat=True)}
    if held:
        health.update(alert_held=True)
        names = ", ".join(report.server for report in flipped if report.server_id in held)
        logger.warning("Alerts held while these servers flap: %s", names, extra={"grouping": "incidents"})
    released = MCPServerHealth.objects.filter(
        server__in=[report.server_id for report in reports if report.server_id], flapping=False, alert_held=True
    )
    freed = {str(pk) for pk in released.values_list("server", flat=True)}
    if freed:
        released.update(alert_held=False)
    return [
        report
        for report in reports
        if report.server_id in freed or (report.changed and report.server_id and report.server_id not in held)
    ]


def hold(flipped: Sequence[ServerReport]) -> None:
    """Hold the alerts of servers that a run has flipped; a later run takes them if nothing has changed."""
    MCPServerHealth.objects.filter(server__in=[report.server_id for report in flipped]).update(alert_held=True)


def _as_found(health: MCPServerHealth) -> ServerReport:
    return ServerReport(
        server=health.server.name,
        server_id=str(health.server_id),
        status_after=health.server.status.name,
        ok=health.ok,
        reason=health.reason,
        message=health.message,
    )
