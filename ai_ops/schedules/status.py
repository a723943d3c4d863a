"""The status of the app's schedules: next run, last run with its outcome, and lateness with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.db.models import OuterRef, QuerySet, Subquery
from django.utils import timezone
from kombu.exceptions import OperationalError as BrokerError
from nautobot.extras.choices import JobQueueTypeChoices, JobResultStatusChoices, ScheduledJobStateChoices
from nautobot.extras.models import JobResult, ScheduledJob
from nautobot.extras.utils import get_celery_queues
from redis.exceptions import RedisError

from ai_ops.models.runs import MaintenanceRun
from ai_ops.runs.logs import get_logger
from ai_ops.schedules.approval import HELD_BY_APPROVAL
from ai_ops.schedules.beat import Sign, last_sign
from ai_ops.schedules.control import app_schedules
from ai_ops.schedules.ensure import kind_of, next_start
from ai_ops.schedules.lateness import (
    ACTIVE,
    BROKEN,
    FINISHED,
    HELD,
    PAUSED,
    ScheduleFacts,
    ScheduleStatus,
    iso,
    lateness,
    scheduler_runs,
)
from ai_ops.schedules.subjects import Missing, missing_subjects

logger = get_logger(__name__)

# Only these columns of a schedule's Job, queue and owner are read. A Job has thirty columns.
SHOWN_OF_OTHERS = (
    *(f"job_model__{name}" for name in ("module_name", "job_class_name", "enabled")),
    *(f"job_queue__{name}" for name in ("name", "queue_type")),
    "user__username",
)


def get_schedule_status(
    schedules: QuerySet | None = None, now: datetime | None = None, *, ask_workers: bool = True
) -> list[dict[str, Any]]:
    """Return the status of schedules, ordered by name, with a constant number of queries.

    Args:
        schedules: ScheduledJobs; by default all schedules of this app.
        now: The time of the status; by default the present.
        ask_workers: Whether to ask Celery which queues have workers, which takes a second.

    Returns:
        For each `id`, `name`, `kind`, `options` (variables of the Job), `crontab` (None for a single run), `time_zone`,
        `enabled`, `standing` ("active", "paused", "finished", "held", "broken"), `next_run` and `last_run` (ISO 8601 in
        UTC, or None), `last_outcome` (state of the run, or status of its JobResult if there is no run), `last_error`
        (None or a sentence), `last_run_id`, `last_job_result`, `late`, `why` (None or a sentence), `queue`,
        `time_limit` (seconds, or None for Nautobot's own), `misfire_grace_time` (seconds after which a run is dropped
        if no worker has started it, or None) and `owner`.
    """
    return [each.as_dict() for each in statuses_of(schedules, now, ask_workers=ask_workers)]


def statuses_of(
    schedules: QuerySet | None = None, now: datetime | None = None, *, ask_workers: bool = True
) -> list[ScheduleStatus]:
    """Return the status of schedules; arguments and order as those of `get_schedule_status`."""
    now = now or timezone.now()
    # A new query for each call, because results of these schedules are added and deleted.
    newest = JobResult.objects.filter(scheduled_job=OuterRef("pk")).order_by("-date_created").values("pk")[:1]
    found = app_schedules() if schedules is None else schedules
    found = found.select_related("job_model", "job_queue", "user").only(*_own_columns(), *SHOWN_OF_OTHERS)
    rows = list(found.annotate(newest=Subquery(newest)).order_by("name"))
    # Without the return value of its Job, which may be long.
    results = JobResult.objects.only("status", "date_created").in_bulk([row.newest for row in rows if row.newest])
    runs = {run.job_result_id: run for run in _runs_of(results)}
    queues = listened_queues() if ask_workers else None
    missing = missing_subjects(rows)
    return [
        _status(row, results.get(row.newest), runs.get(row.newest), queues, now, missing.get(row.pk)) for row in rows
    ]


def get_scheduler_status(now: datetime | None = None) -> dict[str, Any]:
    """Return the state of Celery beat, from its heartbeat or otherwise from the started schedules.

    Returns:
        `running`, `last_sign` (time of beat's last heartbeat in ISO 8601 and UTC, or None), `last_start` (time of its
        last start of a schedule, in the same format), `last_schedule` (name of that schedule, or None), `next_due` (the
        first due time after its last starts, or None), `active_count` (number of active schedules) and `why` (None, or
        a sentence if beat is not running).
    """
    now = now or timezone.now()
    schedules = [each for each in app_schedules().select_related("user") if _standing(each) == ACTIVE]
    # Nautobot erases the last start of a paused schedule.
    newest = app_schedules().exclude(last_run_at=None).order_by("-last_run_at").first()
    last = newest and newest.last_run_at
    due = min(filter(None, (next_start(each, _last_start(each)) for each in schedules)), default=None)
    sign = last_sign()
    # The last start says less, because Nautobot erases it when a schedule is paused.
    running = sign.fresh if sign else scheduler_runs(last, due, now)
    return {
        "running": running,
        "last_sign": iso(sign and sign.given),
        "last_start": iso(last),
        "last_schedule": newest and newest.name,
        "next_due": iso(due),
        "active_count": len(schedules),
        "why": None if running else _why_not_running(sign, last, due),
    }


def is_scheduler_running() -> bool:
    """Return whether Celery beat is alive; also False without any heartbeat and any due schedule."""
    return get_scheduler_status()["running"]


def _last_start(schedule: ScheduledJob) -> datetime | None:
    """Return the last start by beat since the schedule was changed or resumed."""
    last = schedule.last_run_at
    return last if last and last >= schedule.start_time else None


def _why_not_running(sign: Sign | None, last: datetime | None, due: datetime | None) -> str:
    if sign is not None:
        return f"Beat's last heartbeat was at {iso(sign.given)}: check that `nautobot-server celery beat` is running."
    if due is None:
        return "No schedule of this app is active, so beat has nothing to start."
    if last is None:
        return "Beat has not started any active schedule: check that `nautobot-server celery beat` is running."
    return f"Beat has not started a schedule that was due at {iso(due)}: check that `nautobot-server celery beat` runs."


def _own_columns() -> list[str]:
    return [field.name for field in ScheduledJob._meta.concrete_fields]


def _runs_of(results: Mapping[Any, JobResult]) -> QuerySet:
    # If a Job had several runs, the first is its main work.
    runs = MaintenanceRun.objects.filter(job_result__in=list(results), parent=None).order_by("-created")
    return runs.only("job_result", "state", "error")


def listened_queues() -> Mapping[str, int] | None:
    """Return the number of workers by queue; None if Celery does not answer."""
    try:
        return get_celery_queues()
    except (BrokerError, RedisError, OSError) as error:
        logger.warning("Celery did not answer the question for its workers: %s", error)
        return None


def _status(
    schedule: ScheduledJob,
    result: JobResult | None,
    run: MaintenanceRun | None,
    queues: Mapping[str, int] | None,
    now: datetime,
    missing: Missing | None,
) -> ScheduleStatus:
    standing = _standing(schedule, has_subject=missing is None)
    started = [at for at in (schedule.last_run_at, result and result.date_created) if at]
    last = max(started) if started else None
    # An earlier last run says nothing about a schedule that was paused since.
    due = next_start(schedule, last if last and last >= schedule.start_time else None) if standing == ACTIVE else None
    waiting = result is not None and result.status == JobResultStatusChoices.STATUS_PENDING and run is None
    queue = schedule.job_queue
    is_celery = queue is not None and queue.queue_type == JobQueueTypeChoices.TYPE_CELERY
    late, why = lateness(
        ScheduleFacts(
            standing,
            due,
            result.date_created if result and waiting else None,
            schedule.job_model.enabled,
            queue.name if queue else "",
            bool(queues.get(queue.name)) if is_celery and queues is not None else None,
            f"{missing.subject.noun} that it {missing.subject.verb}" if missing else "",
        ),
        now,
    )
    return ScheduleStatus(
        id=str(schedule.pk),
        name=schedule.name,
        kind=kind_of(schedule),
        options=schedule.kwargs,
        crontab=None if schedule.one_off else schedule.crontab,
        time_zone=str(schedule.time_zone),
        enabled=schedule.enabled,
        standing=standing,
        next_run=due,
        last_run=last,
        last_outcome=run.state if run else result and result.status,
        last_error=(run.error or None) if run else None,
        last_run_id=str(run.pk) if run else None,
        last_job_result=str(result.pk) if result else None,
        late=late,
        why=why,
        queue=queue.name if queue else None,
        time_limit=schedule.celery_kwargs.get("soft_time_limit"),
        misfire_grace_time=schedule.celery_kwargs.get("expires"),
        owner=schedule.user.username if schedule.user else None,
    )


def _standing(schedule: ScheduledJob, *, has_subject: bool = True) -> str:
    if schedule.state in HELD_BY_APPROVAL:
        return HELD
    if schedule.state == ScheduledJobStateChoices.ERRORED or schedule.user_id is None:
        return BROKEN
    if schedule.enabled:
        return ACTIVE
    is_past = schedule.one_off and schedule.start_time <= timezone.now()
    return FINISHED if is_past or not has_subject else PAUSED
