"""Rescue of runs whose process died, and repair of the JobResults that they left unfinished.

A run is lost if it has missed three heartbeats, its lease has expired, and no worker has its task. If its process is
still alive, it has lost its lease and can't write any more.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Iterable
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from django.db import transaction
from django.db.models import DurationField, Exists, ExpressionWrapper, F, OuterRef
from django.db.models.functions import Coalesce, Now
from nautobot.extras.choices import JobQueueTypeChoices, JobResultStatusChoices
from nautobot.extras.jobs_cancel import CancelFactory, JobAlreadyTerminal, JobLiveness
from nautobot.extras.models import JobResult

from ai_ops.choices import RunStateChoices, RunTriggerChoices
from ai_ops.exceptions import WorkersUnreachableError
from ai_ops.models.runs import MaintenanceLease, MaintenanceRun
from ai_ops.runs import records, transitions
from ai_ops.runs.events import publish_rescue
from ai_ops.runs.findings import Findings
from ai_ops.runs.heartbeat import MINIMUM_RESCUE_AGE_SECONDS, is_lost
from ai_ops.runs.hold import Hold
from ai_ops.runs.logs import get_logger
from ai_ops.runs.service_user import service_user
from ai_ops.runs.supervisor_log import log_handled
from ai_ops.schedules.approval import APP_JOBS
from ai_ops.supervision.isolation import isolate
from ai_ops.supervision.workers import known_tasks

logger = get_logger(__name__)

# Maximum numbers that one pass reads and repairs. A larger number is a disaster that one pass should not make worse.
# The next pass starts in a minute.
MAX_RUNS = 100
MAX_JOB_RESULTS = 100

# A message may wait in a queue for a long time, and no worker reports it there.
UNSENT_AFTER = timedelta(hours=1)
# A run is older than the JobResults of its attempts by the waits between them.
LONGEST_RUN = timedelta(days=2)

# The outcome of reaping a JobResult. It is unknown if its backend did not answer.
REAPED, ENDED, UNKNOWN = "reaped", "ended", "unknown"

Ask = Callable[[Collection[str]], frozenset[str]]


def rescue(hold: Hold, own_run: uuid.UUID | None, ask: Ask = known_tasks) -> Findings:
    """End the attempts of runs whose process died; the runs are retried, or become dead or lost.

    Args:
        hold: The hold of the supervisor.
        own_run: The supervisor's own record, which is skipped.
        ask: Returns the given tasks that workers report.

    Returns:
        Findings with the numbers of running runs, of rescued runs, and of silent runs that can't be rescued because a
        worker still has them or the workers did not answer.
    """
    running = list(_running(own_run))
    lease_seconds = hold.settings.lease_seconds
    suspects = [run for run in running if _is_lost(run, lease_seconds, known_alive=run.held)]
    if not suspects:
        return Findings(len(running))
    try:
        known = ask([str(run.job_result_id) for run in suspects if run.job_result_id])
    except WorkersUnreachableError as error:
        logger.warning("%d silent run(s) were not rescued: %s", len(suspects), error, extra={"grouping": "rescue"})
        return Findings(len(running), 0, len(suspects))
    fixed = unfixable = 0
    for run in suspects:
        hold.confirm()
        if _is_lost(run, lease_seconds, known_alive=str(run.job_result_id) in known):
            rescued = isolate(f"rescuing {run}", partial(_rescue_one, hold, run))
            fixed += rescued is True
            unfixable += rescued is None
        else:
            unfixable += 1
            _warn_of_stopped(run)
    return Findings(len(running), fixed, unfixable)


def repair(hold: Hold, own_job_result: Any = None, ask: Ask = known_tasks) -> Findings:
    """Reap the unfinished JobResults of dead workers, as Nautobot's Cancel button does.

    This covers only results of this app's Jobs whose attempt has ended in its record and whose task no worker reports.

    Args:
        hold: The hold of the supervisor.
        own_job_result: The JobResult of the supervisor's own Job.
        ask: Returns the given tasks that workers report.

    Returns:
        Findings with the numbers of JobResults that are unfinished for more than a minute, of reaped ones, and of those
        that can't be reaped.
    """
    unfinished = list(_unfinished(own_job_result))
    left_over = _left_over(unfinished)
    if not left_over:
        return Findings(len(unfinished))
    try:
        known = ask([str(result.pk) for result in left_over])
    except WorkersUnreachableError as error:
        logger.warning("%d JobResult(s) were not repaired: %s", len(left_over), error, extra={"grouping": "repair"})
        return Findings(len(unfinished), 0, len(left_over))
    fixed = unfixable = 0
    for result in left_over:
        hold.confirm()
        if str(result.pk) in known:
            continue
        reaped = isolate(f"repairing the result {result.pk}", partial(_reap, result))
        fixed += reaped == REAPED
        unfixable += reaped in (None, UNKNOWN)
    return Findings(len(unfinished), fixed, unfixable)


def _running(own_run: uuid.UUID | None) -> Iterable[Any]:
    """Return running runs with `silent`, `age` and `held` by the database's clock, the longest silent first."""
    since = Coalesce("heartbeat", "started", "created")
    held = MaintenanceLease.objects.filter(run=OuterRef("pk"), token__isnull=False, expires__gte=Now())
    return (
        MaintenanceRun.objects.filter(state=RunStateChoices.RUNNING)
        .exclude(pk=own_run)
        .annotate(
            since=since,
            silent=ExpressionWrapper(Now() - since, output_field=DurationField()),
            age=ExpressionWrapper(Now() - Coalesce("started", "created"), output_field=DurationField()),
            held=Exists(held),
        )
        .order_by("since")[:MAX_RUNS]
    )


def _is_lost(run: Any, lease_seconds: float, *, known_alive: bool) -> bool:
    return is_lost(
        silent_seconds=run.silent.total_seconds(),
        age_seconds=run.age.total_seconds(),
        lease_seconds=lease_seconds,
        known_alive=known_alive,
    )


def _rescue_one(hold: Hold, run: Any) -> bool:
    """End the attempt, unless the run has ended, restarted or sent a heartbeat since it was read."""
    why = (
        f"It has sent no heartbeat for {run.silent.total_seconds():.0f} s, and no worker has it. Its process "
        f"({run.holder}) has died, or could not record its end."
    )
    with transaction.atomic():
        hold.lock()
        seen = MaintenanceRun.objects.filter(
            pk=run.pk, state=RunStateChoices.RUNNING, fence=run.fence, heartbeat=run.heartbeat
        )
        locked = seen.select_related("job_result").select_for_update(of=("self",)).first()
        if locked is None:
            return False
        if _has_reported_success(locked):
            why = "Its Job succeeded, but its process could not record its end."
            counters = records.counters_of(locked.job_result.result)
            transitions.end(locked, RunStateChoices.SUCCEEDED, progress="", counters=counters)
        elif locked.cancel_requested or _was_revoked(locked):
            logger.warning("%s was lost. %s", locked, why, extra={"grouping": "rescue"})
            transitions.end(locked, RunStateChoices.INTERRUPTED, error=f"The run was cancelled. {why}", progress="")
        else:
            logger.warning("%s was lost. %s", locked, why, extra={"grouping": "rescue"})
            transitions.end_failed_attempt(locked, RunStateChoices.LOST, why, progress="")
        publish_rescue(locked.pk, why)
        log_handled(run, "running", run.silent, f"it is {locked.state} now", grouping="rescue")
    return True


def _has_reported_success(run: MaintenanceRun) -> bool:
    """Return whether the Job of `run` succeeded, so that its work is complete.

    For a part this is the Job of the whole run.
    """
    result = run.job_result if run.trigger != RunTriggerChoices.PART else None
    return (
        result is not None
        and result.status == JobResultStatusChoices.STATUS_SUCCESS
        and isinstance(result.result, dict)
        and result.result.get("success") is not False
    )


def _was_revoked(run: MaintenanceRun) -> bool:
    """Return whether a user cancelled the JobResult, which kills the process without notifying the run."""
    return run.job_result is not None and run.job_result.status == JobResultStatusChoices.STATUS_REVOKED


def _warn_of_stopped(run: Any) -> None:
    logger.warning(
        "%s has been silent for %.0f s, and a Celery worker (%s) still has it: the process seems to be "
        "suspended. Another run may replace it; cancel its Job if it does not resume.",
        run,
        run.silent.total_seconds(),
        run.holder,
        extra={"grouping": "rescue"},
    )


def _unfinished(own_job_result: Any) -> Iterable[JobResult]:
    return (
        JobResult.objects.filter(
            status__in=JobResultStatusChoices.UNREADY_STATES, job_model__module_name__startswith=APP_JOBS
        )
        .exclude(pk=own_job_result and own_job_result.pk)
        .annotate(begun=Coalesce("date_started", "date_created"))
        .filter(begun__lt=Now() - timedelta(seconds=MINIMUM_RESCUE_AGE_SECONDS))
        .annotate(waiting=ExpressionWrapper(Now() - F("date_created"), output_field=DurationField()))
        .order_by("begun")[:MAX_JOB_RESULTS]
    )


def _left_over(unfinished: list[Any]) -> list[Any]:
    """Return the JobResults whose attempt has ended according to the records of runs."""
    if not unfinished:
        return []
    states: dict[uuid.UUID, set[str]] = {}
    runs = MaintenanceRun.objects.filter(job_result__in=[result.pk for result in unfinished])
    for result_id, state in runs.values_list("job_result_id", "state"):
        states.setdefault(result_id, set()).add(state)
    unknown = [result for result in unfinished if result.pk not in states]
    ended = _of_earlier_attempts(min(result.date_created for result in unknown)) if unknown else set()
    return [
        result
        for result in unfinished
        if (result.pk in states and _is_over(result, states[result.pk])) or str(result.pk) in ended
    ]


def _is_over(result: Any, states: set[str]) -> bool:
    """Return whether the Job of `result` has no pending or running run."""
    if RunStateChoices.RUNNING in states:
        return False
    if result.status == JobResultStatusChoices.STATUS_STARTED:
        # A pending run waits for its next attempt, which has another Job.
        return True
    return RunStateChoices.PENDING not in states and result.waiting > UNSENT_AFTER


def _of_earlier_attempts(since: datetime) -> set[str]:
    """Return the ids of JobResults of all attempts but the latest."""
    runs = MaintenanceRun.objects.filter(attempt__gt=1, created__gte=since - LONGEST_RUN)
    lists = runs.order_by("-created").values_list("attempts", flat=True)[: 10 * MAX_JOB_RESULTS]
    return {each["job_result"] for attempts in lists for each in attempts if each.get("job_result")}


def _reap(result: Any) -> str:
    """Reap a JobResult through Nautobot; return the outcome as a clause."""
    queue_type = result.queue_type or JobQueueTypeChoices.TYPE_CELERY
    strategy = CancelFactory.get_strategy(queue_type)
    # Celery was asked for all tasks together.
    if queue_type != JobQueueTypeChoices.TYPE_CELERY and strategy.liveness(result) != JobLiveness.NOT_RUNNING:
        return UNKNOWN
    try:
        if not strategy.perform_reap(result, service_user()):
            return ENDED
    except JobAlreadyTerminal:
        return ENDED
    logger.warning("%s had been left %s by a worker that died", result.name, result.status, extra={"object": result})
    log_handled(
        f"The result {result.pk} of {result.name}",
        result.status,
        result.waiting,
        "ended in the same way as by Nautobot's Cancel button",
        grouping="repair",
        about=result,
    )
    return REAPED
