"""Events of runs that end badly."""

from __future__ import annotations

from typing import Any

from ai_ops.choices import RunStateChoices
from ai_ops.events import TOPIC_RUN_DEAD, TOPIC_RUN_FAILED, TOPIC_RUN_RESCUED, publish
from ai_ops.run_models import MaintenanceRun

_TOPIC_OF_STATE = {RunStateChoices.FAILED: TOPIC_RUN_FAILED, RunStateChoices.DEAD: TOPIC_RUN_DEAD}


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
    return MaintenanceRun.objects.select_related("owner").filter(pk=run_id).first()


def _payload(run: MaintenanceRun) -> dict[str, Any]:
    return {
        "run": {
            "id": str(run.pk),
            "name": run.name,
            "kind": run.kind,
            "subject": run.subject,
            "trigger": run.trigger,
            "state": run.state,
            "owner": run.owner.username if run.owner else None,
            "attempt": run.attempt,
            "max_attempts": run.max_attempts,
            "next_attempt": run.next_attempt,
            "started": run.started,
            "finished": run.finished,
            "error": run.error or None,
            "errors": run.errors,
            "job_result": str(run.job_result_id) if run.job_result_id else None,
        }
    }
