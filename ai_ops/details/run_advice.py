"""The words on a run's page for each state: what the state means, and what the operator should do."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.utils.dateparse import parse_datetime

from ai_ops.choices import RunStateChoices
from ai_ops.config import AiOpsSettings
from ai_ops.models import MaintenanceRun
from ai_ops.runs.heartbeat import MISSED_HEARTBEATS, RENEWALS_PER_LEASE
from ai_ops.ui.time_markup import duration, exact

MEANINGS = {
    RunStateChoices.PENDING: "It waits for a worker. The supervisor resends a lost message when the run is due.",
    RunStateChoices.RUNNING: "A process works on it and sends heartbeats.",
    RunStateChoices.SUCCEEDED: "It completed the work.",
    RunStateChoices.FAILED: "Retrying will not help until the cause is fixed.",
    RunStateChoices.SKIPPED: "Another run was doing the same work, so this run did nothing.",
    RunStateChoices.INTERRUPTED: "It was stopped. The work done until then stays.",
    RunStateChoices.LOST: "Its process died, and runs of this kind or trigger are not retried.",
    RunStateChoices.DEAD: "All allowed attempts failed because of the infrastructure.",
}

WHAT_TO_DO = {
    RunStateChoices.FAILED: "Fix the cause named in the error. Then wait for the next run of its schedule, or run the "
    "Job now.",
    RunStateChoices.SKIPPED: "Nothing: the named run did the work.",
    RunStateChoices.INTERRUPTED: "Nothing: the next run continues where this one stopped.",
    RunStateChoices.LOST: "Check the log of the worker and the memory of its host at that time, then run it again.",
    RunStateChoices.DEAD: "Fix the cause named in the error, then press Redrive: a new run does the work. If you no "
    "longer need it, press Discard.",
}


def meaning(run: MaintenanceRun) -> str:
    """Return the meaning of the state of `run`, which has the annotations of its page, in a sentence or two."""
    if run.state == RunStateChoices.PENDING and run.attempt:
        due = f" at {_when(run.next_attempt)}" if run.next_attempt else ""
        return (
            f"The infrastructure failed attempt {run.attempt} of {run.max_attempts}; the next is due{due}. "
            "The supervisor starts it."
        )
    if run.state == RunStateChoices.PENDING and run.next_attempt is None:
        return "It waits for approval: look under Approvals, Approval Dashboard."
    if run.state == RunStateChoices.DEAD and run.discarded:
        return f"{MEANINGS[run.state]} It was discarded at {_when(run.discarded)}: no decision is needed."
    if run.state == RunStateChoices.DEAD and run.is_redriven:
        return f"{MEANINGS[run.state]} A new run, listed below, does its work."
    if _is_silent(run):
        silent = duration(milliseconds_since(run.heartbeat, run.database_now))
        return f"Its last heartbeat was {silent} ago. The supervisor rescues it, unless a worker still has it."
    stopping = " A user has stopped it; it ends after the current batch." if _is_stopping(run) else ""
    return MEANINGS[run.state] + stopping


def what_to_do(run: MaintenanceRun) -> str | None:
    """Return the advice to the operator for a run in this state; None if there is none."""
    return WHAT_TO_DO.get(run.state) if run.state != RunStateChoices.DEAD or is_undecided(run) else None


def is_undecided(run: MaintenanceRun) -> bool:
    """Return whether `run`, which has the annotations of its page, is a dead letter."""
    return run.state == RunStateChoices.DEAD and not run.discarded and not run.is_redriven


def _when(moment: Any) -> str | None:
    # The record keeps earlier attempts as text.
    moment = parse_datetime(moment) if isinstance(moment, str) else moment
    return exact(moment) if moment else None


def _is_silent(run: MaintenanceRun) -> bool:
    """Return whether the run missed more heartbeats than allowed."""
    if run.state != RunStateChoices.RUNNING or run.heartbeat is None:
        return False
    allowed = AiOpsSettings.load().lease_seconds / RENEWALS_PER_LEASE * MISSED_HEARTBEATS
    return (run.database_now - run.heartbeat).total_seconds() > allowed


def _is_stopping(run: MaintenanceRun) -> bool:
    return run.cancel_requested and run.state == RunStateChoices.RUNNING


def milliseconds_since(since: datetime | None, now: datetime) -> float | None:
    """Return the time from `since` to `now` in milliseconds; None for None."""
    return None if since is None else max(0.0, (now - since).total_seconds() * 1000)
