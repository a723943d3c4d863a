"""Events of runs and schedules for observers, sent through Nautobot's event brokers."""

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
# The occasions of events, by topic.
TOPICS = {
    TOPIC_RUN_FAILED: "a run has failed",
    TOPIC_RUN_DEAD: "a run is dead after its last attempt",
    TOPIC_RUN_RESCUED: "the supervisor has ended the attempt of a dead process",
    TOPIC_SCHEDULE_LATE: "a schedule has not started a run that is due; once a day for each start",
}
_TOPIC_OF_STATE = {RunStateChoices.FAILED: TOPIC_RUN_FAILED, RunStateChoices.DEAD: TOPIC_RUN_DEAD}


def publish(topic: str, payload: dict[str, Any]) -> None:
    """Publish an event after the commit; log the traceback if a broker fails."""
    # Not a partial, which has no name: Django logs a failure with the function's name.
    transaction.on_commit(lambda: publish_event(topic=topic, payload=payload), robust=True)


def publish_end(run_id: Any) -> None:
    """Publish an event if a run has failed or is dead."""
    run = _row(run_id)
    if run is not None and run.state in _TOPIC_OF_STATE:
        publish(_TOPIC_OF_STATE[run.state], _payload(run))


def publish_rescue(run_id: Any, why: str) -> None:
    """Publish an event for the end of a lost attempt, with the next state of the run."""
    if run := _row(run_id):
        publish(TOPIC_RUN_RESCUED, _payload(run) | {"why": why})


def _row(run_id: Any) -> MaintenanceRun | None:
    return MaintenanceRun.objects.select_related("owner", "job_result").filter(pk=run_id).first()


def _payload(run: MaintenanceRun) -> dict[str, Any]:
    times = {name: getattr(run, name) for name in ("next_attempt", "started", "finished")}
    return {"run": summary(run) | times | {"errors": run.errors}}
