"""Transitions of runs: the only place that changes the state of a run.

::

    pending ── start ──> running ── end ──> succeeded, failed, interrupted
       │                    │
       │                    └── end_failed_attempt ──> pending (retried), dead, or failed (not retried)
       ├── interrupt ──> interrupted
       ├── skip ──> skipped
       └── end_without_work ──> failed

A transition is a conditional UPDATE on the state and fence that were read, so only one of two processes makes it. A run
from a shell has no pending record: `start_new` and `skip_new` insert one.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import F, QuerySet
from django.db.models.functions import Now

from ai_ops.choices import RunStateChoices
from ai_ops.models.runs import MaintenanceRun
from ai_ops.runs.clock import database_time
from ai_ops.runs.context import RunRequest
from ai_ops.runs.events import publish_end, publish_rescue
from ai_ops.runs.logs import get_logger
from ai_ops.runs.records import saved, text_of, this_process
from ai_ops.runs.retries import TryAgain, after_failure
from ai_ops.runs.totals import count_run

logger = get_logger(__name__)

# States that are published as events.
ENDS_BADLY = (RunStateChoices.FAILED, RunStateChoices.DEAD)


def start_new(record: MaintenanceRun, fence: int, acquired: datetime | None) -> str | None:
    """Insert the record of a run that has just started. Return a sentence if that fails; the work continues.

    Args:
        record: The unsaved record.
        fence: The fence of the run's lease.
        acquired: Time at which the lease was acquired, by the database's clock; None if unknown.
    """
    record.state, record.fence, record.holder = RunStateChoices.RUNNING, fence, this_process()
    record.started = record.heartbeat = acquired
    return saved(record)


def skip_new(record: MaintenanceRun, why: str) -> str | None:
    """Insert the record of a skipped run; return a sentence if that fails."""
    record.state, record.error = RunStateChoices.SKIPPED, why
    record.finished = record.started = None
    return saved(record)


def start(record: MaintenanceRun, fence: int, request: RunRequest) -> bool:
    """Start an attempt of a recorded run, under the lease with `fence`; return False if another process did.

    The lease is exclusive, so a record in the state running was left by a process that died or was suspended, and is
    taken over.
    """
    seen = MaintenanceRun.objects.filter(pk=record.pk, state=record.state, fence=record.fence)
    if record.state == RunStateChoices.RUNNING:
        died = attempt_of(record, RunStateChoices.LOST, "Its process died.", database_time(record))
        record.attempts = [*record.attempts, died]
    elif record.state != RunStateChoices.PENDING:
        return False
    begun = seen.update(
        state=RunStateChoices.RUNNING,
        attempt=F("attempt") + 1,
        attempts=record.attempts,
        started=Now(),
        heartbeat=Now(),
        finished=None,
        next_attempt=None,
        fence=fence,
        holder=this_process(),
        job_result=request.job_result or record.job_result,
        error="",
        errors=[],
    )
    if begun:
        if record.state == RunStateChoices.RUNNING:
            publish_rescue(record.pk, "Another process took over its work.")
        record.refresh_from_db()
    return bool(begun)


def attempt_of(record: MaintenanceRun, state: str, error: str, ended: datetime) -> dict[str, Any]:
    """Return an entry of `MaintenanceRun.attempts`: the end of the latest attempt of `record`."""
    return {
        "attempt": record.attempt,
        "state": state,
        "error": error,
        "started": record.started,
        "ended": ended,
        "fence": record.fence,
        "holder": record.holder,
        "job_result": str(record.job_result_id) if record.job_result_id else None,
    }


def end(record: MaintenanceRun, state: str, *, error: str = "", **fields: Any) -> bool:
    """End the attempt in a final state; return False, and change nothing, if the record is of a later attempt."""
    mine = MaintenanceRun.objects.filter(pk=record.pk, state=record.state, fence=record.fence)
    fields = {"errors": [text_of(error)] if error else []} | fields
    with transaction.atomic():
        ended = mine.update(state=state, finished=Now(), heartbeat=Now(), error=text_of(error), **fields)
        if ended and state in RunStateChoices.FINAL:
            count_run(record.kind, state, fields.get("execution_time_ms"), fields.get("counters"))
    if ended:
        record.state = state
        if state in ENDS_BADLY:
            publish_end(record.pk)
    return bool(ended)


def end_failed_attempt(record: MaintenanceRun, state: str, error: str, **fields: Any) -> str | None:
    """End an attempt after an infrastructure failure, for a retry or finally; return the decision as a sentence.

    Args:
        record: The record as it was read; if it has changed since, nothing is written.
        state: The state of the attempt, failed or lost.
        error: The reason, as a sentence.
        fields: Other fields to save.
    """
    decision = after_failure(record.attempt, record.max_attempts, secrets.SystemRandom().random)
    now = database_time(record)
    attempts = [*record.attempts, attempt_of(record, state, error, now)]
    if not record.is_retried:
        return None if end(record, state, error=error, attempts=attempts, **fields) else _ended_elsewhere(record)
    if isinstance(decision, TryAgain):
        due = now + timedelta(seconds=decision.seconds)
        ended = end(record, RunStateChoices.PENDING, error=error, attempts=attempts, next_attempt=due, **fields)
        note = f"{record} will be retried at {due:%Y-%m-%d %H:%M:%S} UTC."
    else:
        error = f"{error} It was {decision.why}."
        ended = end(record, RunStateChoices.DEAD, error=error, attempts=attempts, **fields)
        note = f"{record} is dead: it was {decision.why}. Redrive or discard it on its page."
    if not ended:
        return _ended_elsewhere(record)
    logger.warning("%s", note, extra={"grouping": "run"})
    return note


def end_attempt(record: MaintenanceRun, state: str, error: str, **fields: Any) -> str | None:
    """End a run in a final state; return a sentence if another process has ended it."""
    return None if end(record, state, error=error, **fields) else _ended_elsewhere(record)


def interrupt(waiting: QuerySet[MaintenanceRun], why: str) -> bool:
    """End the pending runs in `waiting` before their work starts; return whether there were any."""
    return _end_pending(waiting, RunStateChoices.INTERRUPTED, error=why)


def end_without_work(request: RunRequest, error: str) -> None:
    """Fail the requested run, whose work has not started; without a request do nothing."""
    waiting = MaintenanceRun.objects.filter(pk=request.run_id)
    text = text_of(error)
    if _end_pending(waiting, RunStateChoices.FAILED, error=text, errors=[text], job_result=request.job_result):
        publish_end(request.run_id)


def _end_pending(waiting: QuerySet[MaintenanceRun], state: str, **fields: Any) -> bool:
    """End the pending runs in `waiting`, and count them; return whether there were any."""
    with transaction.atomic():
        pending = waiting.filter(state=RunStateChoices.PENDING).order_by().select_for_update()
        runs = dict(pending.values_list("pk", "kind"))
        MaintenanceRun.objects.filter(pk__in=runs).update(state=state, finished=Now(), next_attempt=None, **fields)
        for kind in runs.values():
            count_run(kind, state)
    return bool(runs)


@contextmanager
def failing_with_its_job(request: RunRequest) -> Iterator[None]:
    """Fail the requested run if its Job fails before the work starts, because no other code would end it."""
    seen = MaintenanceRun.objects.filter(pk=request.run_id).values_list("attempt", flat=True).first()
    try:
        yield
    except Exception as error:
        if MaintenanceRun.objects.filter(pk=request.run_id, attempt=seen).exists():
            end_without_work(request, f"{type(error).__name__}: {error}")
        raise


def _ended_elsewhere(record: MaintenanceRun) -> str:
    """Reload the state of `record`, which another process has ended; return a sentence about it."""
    record.state = (
        MaintenanceRun.objects.filter(pk=record.pk).values_list("state", flat=True).first() or RunStateChoices.LOST
    )
    note = f"{record} was meanwhile ended by the supervisor or another process."
    logger.warning("%s", note, extra={"grouping": "run"})
    return note
