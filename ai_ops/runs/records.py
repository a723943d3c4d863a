"""The records of runs: begun, ended, and what ends an attempt. A record that can't be written stops no work."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from django.db import DatabaseError, InterfaceError, transaction
from django.db.models import F
from django.db.models.functions import Now
from django.utils import timezone

from ai_ops.choices import RunStateChoices
from ai_ops.models.runs import MaintenanceRun
from ai_ops.runs.clock import database_time
from ai_ops.runs.context import RunRequest
from ai_ops.runs.decisions import run_name
from ai_ops.runs.events import tell_of_end, tell_of_rescue
from ai_ops.runs.logs import get_logger
from ai_ops.runs.retries import TryAgain, after_failure

logger = get_logger(__name__)

# A report may name ten thousand threads; a record is a small row.
MAX_COUNTERS = 40
# Each is a sentence; a fleet may have thousands, which are in the log.
MAX_ERRORS, MAX_ERROR_LENGTH = 20, 1000
# States that observers are told of.
ENDS_BADLY = (RunStateChoices.FAILED, RunStateChoices.DEAD)


def this_process() -> str:
    """Host and process, for people."""
    return f"{socket.gethostname()}, process {os.getpid()}"


def new_record(
    kind: str, subject: str, options: Mapping[str, Any], request: RunRequest, **fields: Any
) -> MaintenanceRun:
    """A record that is not saved yet."""
    now = timezone.now()
    return MaintenanceRun(
        name=run_name(kind, now, secrets.choice),
        kind=kind,
        subject=subject,
        trigger=request.trigger,
        owner=request.owner,
        job_result=request.job_result,
        parent_id=request.parent_id,
        options=dict(options),
        **fields,
    )


def find_record(kind: str, request: RunRequest) -> MaintenanceRun | None:
    """The record that was made when the run was asked for, or by an earlier delivery of the same message."""
    if request.run_id:
        return MaintenanceRun.objects.filter(pk=request.run_id).first()
    if request.job_result is None or request.parent_id:
        return None
    return MaintenanceRun.objects.filter(job_result=request.job_result, kind=kind).order_by("created").first()


def find_duplicate(kind: str, request: RunRequest) -> MaintenanceRun | None:
    """Return the record of another delivery of the same message that has begun since `find_record`; None for none."""
    if request.run_id or request.job_result is None or request.parent_id:
        return None
    begun = MaintenanceRun.objects.filter(job_result=request.job_result, kind=kind)
    return begun.exclude(state=RunStateChoices.SKIPPED).first()


def begin(record: MaintenanceRun, fence: int, request: RunRequest) -> bool:
    """Note that an attempt has begun, under the lease with that fence; False if it is not this process's to do.

    The lease is exclusive: a record that says that it is running was left by a process that died or was
    stopped, and is taken over.
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
            tell_of_rescue(record.pk, "Another process took its work over.")
        record.refresh_from_db()
    return bool(begun)


def attempt_of(record: MaintenanceRun, state: str, error: str, ended: datetime) -> dict[str, Any]:
    """An entry of `MaintenanceRun.attempts`: how and when the latest attempt of `record` ended."""
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
    """Note the final state of the attempt; False, and nothing is noted, if the record is no longer of this attempt."""
    mine = MaintenanceRun.objects.filter(pk=record.pk, state=record.state, fence=record.fence)
    fields = {"errors": [_text(error)] if error else []} | fields
    ended = mine.update(state=state, finished=Now(), heartbeat=Now(), error=_text(error), **fields)
    if ended:
        record.state = state
        if state in ENDS_BADLY:
            tell_of_end(record.pk)
    return bool(ended)


def end_failed_attempt(record: MaintenanceRun, state: str, error: str, **fields: Any) -> str | None:
    """Note that the infrastructure failed an attempt, and when there is another; a sentence that says so.

    Args:
        record: As it was seen; if it is not so any more, nothing is written.
        state: How the attempt ended, failed or lost.
        error: Why, in a sentence.
        fields: What else is to be noted.
    """
    decision = after_failure(record.attempt, record.max_attempts, secrets.SystemRandom().random)
    now = database_time(record)
    attempts = [*record.attempts, attempt_of(record, state, error, now)]
    if not record.is_retried:
        return None if end(record, state, error=error, attempts=attempts, **fields) else _ended_elsewhere(record)
    if isinstance(decision, TryAgain):
        due = now + timedelta(seconds=decision.seconds)
        ended = end(record, RunStateChoices.PENDING, error=error, attempts=attempts, next_attempt=due, **fields)
        note = f"{record} is tried again at {due:%Y-%m-%d %H:%M:%S} UTC."
    else:
        error = f"{error} It was {decision.why}."
        ended = end(record, RunStateChoices.DEAD, error=error, attempts=attempts, **fields)
        note = f"{record} is dead: it was {decision.why}. Redrive or discard it on its page."
    if not ended:
        return _ended_elsewhere(record)
    logger.warning("%s", note, extra={"grouping": "run"})
    return note


def end_without_work(request: RunRequest, error: str) -> None:
    """Note that the run that was asked for failed before its work began; where none was asked for, nothing."""
    waiting = MaintenanceRun.objects.filter(pk=request.run_id, state=RunStateChoices.PENDING)
    ended = waiting.update(
        state=RunStateChoices.FAILED,
        error=_text(error),
        errors=[_text(error)],
        finished=Now(),
        next_attempt=None,
        job_result=request.job_result,
    )
    if ended:
        tell_of_end(request.run_id)


@contextmanager
def failing_with_its_job(request: RunRequest) -> Iterator[None]:
    """Let the run that was asked for fail with the Job, if that fails before the work begins: no other code ends it."""
    seen = MaintenanceRun.objects.filter(pk=request.run_id).values_list("attempt", flat=True).first()
    try:
        yield
    except Exception as error:
        if MaintenanceRun.objects.filter(pk=request.run_id, attempt=seen).exists():
            end_without_work(request, f"{type(error).__name__}: {error}")
        raise


def end_attempt(record: MaintenanceRun, state: str, error: str, **fields: Any) -> str | None:
    """Note the final state of a run; a sentence if that was no longer this process's to do."""
    return None if end(record, state, error=error, **fields) else _ended_elsewhere(record)


def _ended_elsewhere(record: MaintenanceRun) -> str:
    """Say that the supervisor, or another process, has seen to `record`, and bring its state up to date."""
    record.state = (
        MaintenanceRun.objects.filter(pk=record.pk).values_list("state", flat=True).first() or RunStateChoices.LOST
    )
    note = f"{record} was ended by the supervisor, or another process, meanwhile."
    logger.warning("%s", note, extra={"grouping": "run"})
    return note


def counters_of(report: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of a task's report and its short texts; what is a list or an object has no place in a small row."""
    plain = {
        name: value.replace("\0", "") if isinstance(value, str) else value
        for name, value in report.items()
        if name not in ("error", "run") and isinstance(value, bool | int | float | str) and len(str(value)) <= 200
    }
    return dict(list(plain.items())[:MAX_COUNTERS])


def errors_of(report: Mapping[str, Any]) -> list[str]:
    """The errors of a task's report as a record keeps them: those that it lists, or its one error."""
    listed = report.get("errors")
    # The review of incidents has a number under this name.
    errors = listed if isinstance(listed, list | tuple) else [report["error"]] if report.get("error") else []
    return [_text(str(error))[:MAX_ERROR_LENGTH] for error in errors[:MAX_ERRORS]]


def saved(record: MaintenanceRun) -> str | None:
    """Insert `record`; a sentence if that failed, which is logged and stops nothing."""
    try:
        with transaction.atomic():
            record.save(force_insert=True)
    except (DatabaseError, InterfaceError) as error:
        sentence = f"The record of this run could not be written ({str(error).strip()}): the work goes on without it."
        logger.error("%s", sentence, extra={"grouping": "run"})
        return sentence
    return None


def _text(error: str) -> str:
    # PostgreSQL keeps no NUL in a text, and the message of an error may quote anything.
    return error.replace("\0", "\\0")
