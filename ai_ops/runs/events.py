"""Events for observers, sent through Nautobot's event brokers; those of runs that end badly among them."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from nautobot.apps.events import publish_event

from ai_ops.choices import RunStateChoices
from ai_ops.models.runs import MaintenanceRun
from ai_ops.runs.queries import summary

TOPIC_RUN_FAILED = "ai_ops.run.failed"
TOPIC_RUN_DEAD = "ai_ops.run.dead"
TOPIC_RUN_RESCUED = "ai_ops.run.rescued"
TOPIC_SCHEDULE_LATE = "ai_ops.schedule.late"
TOPIC_CHECKED = "ai_ops.mcp.checked"
TOPIC_FLIPPED = "ai_ops.mcp.flipped"
TOPIC_OPENED = "ai_ops.mcp.incident.opened"
TOPIC_CLOSED = "ai_ops.mcp.incident.closed"
TOPIC_ACKNOWLEDGED = "ai_ops.mcp.incident.acknowledged"
TOPIC_ESCALATED = "ai_ops.mcp.incident.escalated"
# By topic: when it is published.
TOPICS = {
    TOPIC_CHECKED: "a health check has ended",
    TOPIC_FLIPPED: "a check has changed the status of a server",
    TOPIC_OPENED: "an incident has been opened",
    TOPIC_CLOSED: "an incident is over",
    TOPIC_ACKNOWLEDGED: "a user has acknowledged an incident",
    TOPIC_ESCALATED: "an incident has been open for `incident_escalation_hours`",
    TOPIC_RUN_FAILED: "a run has failed",
    TOPIC_RUN_DEAD: "a run gave up after its last attempt",
    TOPIC_RUN_RESCUED: "the attempt of a process that died was ended for it",
    TOPIC_SCHEDULE_LATE: "a schedule should have started a run and has not; once a day for each start",
}
_TOPIC_OF_STATE = {RunStateChoices.FAILED: TOPIC_RUN_FAILED, RunStateChoices.DEAD: TOPIC_RUN_DEAD}


def publish(topic: str, payload: dict[str, Any]) -> None:
    """Publish after the commit; a broker that fails is logged with its traceback and holds up nothing."""
    # Not a partial: Django logs a failure under the function's name, which a partial has not.
    transaction.on_commit(lambda: publish_event(topic=topic, payload=payload), robust=True)


def tell_of_end(run_id: Any) -> None:
    """Publish that a run has failed or is dead, where that is so."""
    run = _row(run_id)
    if run is not None and run.state in _TOPIC_OF_STATE:
        publish(_TOPIC_OF_STATE[run.state], _payload(run))


def tell_of_rescue(run_id: Any, why: str) -> None:
    """Publish that an attempt was ended for a process that did not end it, and what becomes of the run."""
    if run := _row(run_id):
        publish(TOPIC_RUN_RESCUED, _payload(run) | {"why": why})


def _row(run_id: Any) -> MaintenanceRun | None:
    return MaintenanceRun.objects.select_related("owner", "job_result").filter(pk=run_id).first()


def _payload(run: MaintenanceRun) -> dict[str, Any]:
    times = {name: getattr(run, name) for name in ("next_attempt", "started", "finished")}
    return {"run": summary(run) | times | {"errors": run.errors}}
