"""Events of MCP servers and incidents for observers: their topics and contents."""

from __future__ import annotations

from uuid import UUID

from ai_ops.mcp.logic.reports import HealthReport, ServerReport
from ai_ops.models.incidents import MCPServerIncident
from ai_ops.runs.events import publish

TOPIC_CHECKED = "ai_ops.mcp.checked"
TOPIC_FLIPPED = "ai_ops.mcp.flipped"
TOPIC_OPENED = "ai_ops.mcp.incident.opened"
TOPIC_CLOSED = "ai_ops.mcp.incident.closed"
TOPIC_ACKNOWLEDGED = "ai_ops.mcp.incident.acknowledged"
TOPIC_ESCALATED = "ai_ops.mcp.incident.escalated"
# The occasions of events, by topic.
TOPICS = {
    TOPIC_CHECKED: "a health check has ended",
    TOPIC_FLIPPED: "a check has changed the status of a server",
    TOPIC_OPENED: "an incident has been opened",
    TOPIC_CLOSED: "an incident is over",
    TOPIC_ACKNOWLEDGED: "a user has acknowledged an incident",
    TOPIC_ESCALATED: "an incident has been open for `incident_escalation_hours`",
}


def publish_check(report: HealthReport, run_id: UUID | None) -> None:
    """Publish the report of a health check that has ended."""
    publish(TOPIC_CHECKED, {**report.as_dict(), "run": str(run_id) if run_id else None})


def publish_flip(report: ServerReport) -> None:
    """Publish that a check has changed the status of a server."""
    payload = {
        "server": {"id": report.server_id, "name": report.server},
        "status_before": report.status_before,
        "status_after": report.status_after,
        "reason": report.reason,
        "message": report.message,
        "checked_at": report.checked_at.isoformat() if report.checked_at else None,
    }
    publish(TOPIC_FLIPPED, payload)


def publish_incident(topic: str, incident: MCPServerIncident) -> None:
    """Publish a transition of an incident."""
    servers = incident.servers.order_by("name").values_list("pk", "name")
    payload = {
        "incident": {
            "id": str(incident.pk),
            "name": incident.name,
            "kind": incident.kind,
            "reason": incident.reason,
            "message": incident.message,
            "opened": incident.opened,
            "closed": incident.closed,
            "duration_seconds": int(incident.duration.total_seconds()) if incident.closed else None,
            "acknowledged": incident.acknowledged,
            "acknowledged_by": incident.acknowledged_by.username if incident.acknowledged_by else None,
            "escalated": incident.escalated,
        },
        "servers": [{"id": str(pk), "name": name} for pk, name in servers],
    }
    publish(topic, payload)
