"""Retention of the records of runs and of their JobResults.

Finished runs are deleted after `run_history_days`, with the results of all their attempts. A dead letter waits for an
operator and is kept three times as long, unless it was discarded or redriven. It is then deleted before its redrive,
since without it the run would be a dead letter again. JobResults of this app without a run, such as those of expired
messages, are deleted after the same time.

Quiet passes of the supervisor and of the incident review are deleted after ten minutes, because hundreds a day would
hide the other runs. So are results of their expired messages.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable
from datetime import timedelta
from typing import Any, NamedTuple

from django.db import transaction
from django.db.models import DurationField, Exists, ExpressionWrapper, F, OuterRef, Q, QuerySet
from django.db.models.functions import Now
from nautobot.extras.choices import JobResultStatusChoices
from nautobot.extras.models import JobLogEntry, JobResult

from ai_ops.choices import RunStateChoices
from ai_ops.models.runs import MaintenanceRun
from ai_ops.runs.dead_letters import is_redriven
from ai_ops.runs.findings import Findings
from ai_ops.runs.hold import Hold
from ai_ops.runs.installed_jobs import find_job
from ai_ops.runs.logs import get_logger
from ai_ops.runs.quiet_passes import PASSES, quiet_passes
from ai_ops.runs.supervisor_log import log_first, log_handled
from ai_ops.schedules.approval import APP_JOBS

logger = get_logger(__name__)

# Maximum number in one pass, to keep it short. This is 700,000 records a day, twenty times the number of passes.
MAX_RECORDS = 500
MAX_QUIET_PASSES = 20
# Number of dead runs whose earlier attempts are read before results without a run are deleted.
MAX_KEPT = 5000

DEAD_LETTER_FACTOR = 3
QUIET_AGE = timedelta(minutes=10)


class Row(NamedTuple):
    """The fields needed to delete a run."""

    pk: uuid.UUID
    name: str
    state: str
    age: timedelta
    job_result: uuid.UUID | None
    attempts: list[dict[str, Any]]


class Result(NamedTuple):
    """The fields needed to delete a JobResult that belongs to no run."""

    pk: uuid.UUID
    name: str
    status: str
    age: timedelta


def trim(hold: Hold) -> Findings:
    """Delete expired records up to a limit, the oldest first, with a fixed number of queries.

    Returns:
        Findings with the numbers of due and deleted records and results, up to the limit of a pass.
    """
    kept_for = timedelta(days=hold.settings.run_history_days)
    old = _rows(_expired(kept_for), MAX_RECORDS)
    quiet = _rows(_quiet_passes(), MAX_QUIET_PASSES)
    deleted = _delete_records(hold, old, JobResultStatusChoices.READY_STATES)
    if old:
        log_first(old, _log_trimmed, "And %d more old run(s) deleted with their results", grouping="history")
    deleted += _delete_records(hold, quiet, [JobResultStatusChoices.STATUS_SUCCESS])
    alone = [*_results_without_run(kept_for), *_expired_messages()]
    results = _delete_job_results(hold, [result.pk for result in alone])
    if alone:
        log_first(alone, _log_deleted, "And %d more result(s) without a run deleted", grouping="history")
    return Findings(len(old) + len(quiet) + len(alone), deleted + results)


def _rows(runs: QuerySet[MaintenanceRun], limit: int) -> list[Row]:
    aged = runs.annotate(age=_age("created"))
    return [Row(*values) for values in aged.order_by("created").values_list(*Row._fields)[:limit]]


def _age(since: str) -> ExpressionWrapper:
    return ExpressionWrapper(Now() - F(since), output_field=DurationField())


def _log_deleted(result: Result) -> None:
    log_handled(f"The result {result.pk} of {result.name}", result.status, result.age, "deleted", grouping="history")


def _log_trimmed(row: Row) -> None:
    log_handled(row.name, row.state, row.age, "deleted with the results of its attempts", grouping="history")


def _expired(kept_for: timedelta) -> QuerySet[MaintenanceRun]:
    finished = Q(state__in=[state for state in RunStateChoices.FINAL if state != RunStateChoices.DEAD])
    dead = Q(state=RunStateChoices.DEAD)
    dealt_with = Q(discarded__isnull=False) | Q(is_redriven())
    may_go = finished | (dead & (dealt_with | Q(created__lt=Now() - DEAD_LETTER_FACTOR * kept_for)))
    return MaintenanceRun.objects.filter(may_go, created__lt=Now() - kept_for)


def _quiet_passes() -> QuerySet[MaintenanceRun]:
    return MaintenanceRun.objects.filter(quiet_passes(), created__lt=Now() - QUIET_AGE)


def _results_without_run(kept_for: timedelta) -> list[Result]:
    """Return expired results of this app's Jobs that belong to no run."""
    kept = MaintenanceRun.objects.filter(attempt__gt=1, created__lt=Now() - kept_for).order_by("-created")
    attempts = kept.values_list("attempts", flat=True)[:MAX_KEPT]
    named = {each["job_result"] for each_run in attempts for each in each_run if each.get("job_result")}
    # Excluded in the query. Otherwise they could fill the limit of each pass, and no other result would be deleted.
    old = _own_results().filter(date_created__lt=Now() - kept_for).exclude(pk__in=named)
    rows = old.annotate(age=_age("date_created")).order_by("date_created")
    return [Result(*values) for values in rows.values_list(*Result._fields)[:MAX_RECORDS]]


def _expired_messages() -> list[Result]:
    """Return results of passes whose message expired before a worker started them."""
    jobs = [job for job in map(find_job, PASSES) if job]
    revoked = Q(status=JobResultStatusChoices.STATUS_REVOKED)
    # Messages without an expiry may still be executed. They are excluded, because they could fill the limit of a pass.
    may_expire = Q(status=JobResultStatusChoices.STATUS_PENDING, celery_kwargs__has_key="expires")
    rows = (
        _own_results()
        .filter(revoked | may_expire, job_model__in=jobs, scheduled_job__isnull=False)
        .filter(date_created__lt=Now() - QUIET_AGE)
        .annotate(age=_age("date_created"))
        .order_by("date_created")
        .values_list(*Result._fields, "celery_kwargs")[: MAX_QUIET_PASSES * len(PASSES)]
    )
    found = [(Result(*values), options) for *values, options in rows]
    return [result for result, options in found if _is_expired(result, options)]


def _is_expired(result: Result, options: Any) -> bool:
    """Return whether the message of a result has expired."""
    expires = (options or {}).get("expires")
    if result.status == JobResultStatusChoices.STATUS_REVOKED:
        return True
    return isinstance(expires, int | float) and result.age > timedelta(seconds=expires) + QUIET_AGE


def _own_results() -> QuerySet[JobResult]:
    """Return results of this app's Jobs that belong to no run."""
    of_a_run = MaintenanceRun.objects.filter(job_result=OuterRef("pk"))
    # The result of a deleted Job has only its class path. The result of an expired message has the name of Nautobot's
    # task.
    own = Q(job_model__module_name__startswith=APP_JOBS) | Q(job_model=None, task_name__startswith=APP_JOBS)
    return JobResult.objects.filter(~Exists(of_a_run), own)


def _delete_records(hold: Hold, rows: list[Row], statuses: Iterable[str]) -> int:
    """Delete these records, and the results of their attempts with one of these statuses."""
    hold.confirm()
    if not rows:
        return 0
    ids = [row.pk for row in rows]
    with transaction.atomic():
        hold.lock()
        MaintenanceRun.objects.filter(parent__in=ids).update(parent=None)
        # Not delete(), which would load the rows. No signal receiver needs them, and their children are handled above.
        runs = MaintenanceRun.objects.filter(pk__in=ids).order_by()
        deleted = runs._raw_delete(runs.db)
        # A result may also belong to another run, which stays.
        done = _own_results().filter(pk__in=_results_of(rows), status__in=statuses)
        _delete_results(list(done.values_list("pk", flat=True)))
    return deleted


def _results_of(rows: list[Row]) -> set[str]:
    latest = {str(row.job_result) for row in rows if row.job_result}
    return latest | {each["job_result"] for row in rows for each in row.attempts if each.get("job_result")}


def _delete_job_results(hold: Hold, ids: Collection[uuid.UUID]) -> int:
    hold.confirm()
    if not ids:
        return 0
    with transaction.atomic():
        hold.lock()
        _delete_results(ids)
    return len(ids)


def _delete_results(ids: Collection[uuid.UUID]) -> None:
    # There may be thousands of lines, without references to them. delete() would load each line.
    lines = JobLogEntry.objects.filter(job_result__in=ids).order_by()
    lines._raw_delete(JobResult.objects.db)
    # Nautobot deletes the files of each result, with a query for each result.
    JobResult.objects.filter(pk__in=ids).prefetch_related("files").delete()
