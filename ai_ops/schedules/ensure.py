"""Schedules of the maintenance Jobs: Nautobot's own ScheduledJobs, set up to work unattended."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from celery.schedules import ParseException
from django.core.exceptions import ObjectDoesNotExist, ValidationError
from django.db import transaction
from django.utils import timezone
from django_celery_beat.tzcrontab import TzAwareCrontab
from nautobot.extras.choices import JobExecutionType, ScheduledJobStateChoices
from nautobot.extras.models import Job, JobQueue, ScheduledJob

from ai_ops.config import AiOpsSettings, validated_time_limit
from ai_ops.exceptions import ConfigurationError
from ai_ops.kinds import KINDS, kind_of_job
from ai_ops.logic.foreign_text import printable, shown
from ai_ops.runs.approvals import being_made
from ai_ops.runs.context import LIMIT_PROPERTY
from ai_ops.runs.installed_jobs import installed_job
from ai_ops.runs.service_user import service_user
from ai_ops.schedules.approval import HELD_BY_APPROVAL
from ai_ops.schedules.arguments import check_arguments
from ai_ops.schedules.intervals import crontab_of
from ai_ops.schedules.limits import take_over_limits

# Number of runs to inspect for the shortest time between two: 8:00 and 9:00 daily are an hour apart, not 23.
RUNS_LOOKED_AT = 6


def ensure_schedule(
    job: str,
    *,
    name: str | None = None,
    crontab: str | None = None,
    interval: int | None = None,
    time_zone: str | None = None,
    job_kwargs: Mapping[str, Any] | None = None,
    user=None,
    enabled: bool = True,
    queue: str | None = None,
    time_limit: int | None = None,
    misfire_grace_time: int | None = None,
) -> ScheduledJob:
    """Create or update the schedule called `name`.

    The Job is enabled too, unless `enabled` is False, since a schedule of a disabled Job only produces failures. A run
    that has not started when the next run is due is dropped, so that no queue of repeated work builds up while workers
    are down. If an approval workflow applies to schedules, a new schedule is pending until it is approved. So is a
    schedule after a change of its variables, times, queue, owner or limits.

    Args:
        job: A kind in `ai_ops.kinds.KINDS`, such as "cleanup", or the class path of a Job ("package.module.ClassName").
        name: Name of the schedule; kinds in DEFAULT_SCHEDULES have a default name.
        crontab: Five fields, minute to day of week; kinds in DEFAULT_SCHEDULES have a default.
        interval: Seconds between two runs, instead of a crontab; only intervals that a crontab can express.
        time_zone: Time zone of the crontab, such as "Europe/Berlin"; by default Nautobot's TIME_ZONE.
        job_kwargs: Variables of the Job by name; each run uses the Job's defaults for omitted variables.
        user: The user of the runs; by default the app's inactive service user, or the owner of an existing schedule.
        enabled: Whether the schedule runs. False stops a schedule without deleting it.
        queue: Name of the job queue; by default that of the Job.
        time_limit: Seconds after which a run stops; by default the limit of the settings or the Job.
        misfire_grace_time: Seconds after which a run is dropped if no worker has started it; by default the time until
            the next run.

    Returns:
        The saved ScheduledJob.

    Raises:
        ConfigurationError: The Job is not installed, another Job's schedule has the name, or the crontab, the interval,
            the time zone, the queue, the time limit, a variable or the type of an argument is invalid. Nothing was
            changed.
    """
    texts = {"job": job, "name": name, "crontab": crontab, "time_zone": time_zone, "queue": queue}
    check_arguments(**texts, job_kwargs=job_kwargs, user=user, enabled=enabled)
    defaults = KINDS.get(job)
    name = name or (defaults and defaults.schedule)
    crontab = _crontab_of(crontab, interval) or (defaults and defaults.crontab)
    if not name or not crontab:
        raise ConfigurationError(f"A schedule of {job} needs a name and a crontab: give both.")
    zone = _time_zone(time_zone)
    crontab = " ".join(crontab.split())
    # Not the first match, as in create_schedule: beat would search for a match after this start, and skip one run.
    start = timezone.now().astimezone(zone).replace(second=0, microsecond=0)
    expires = checked_grace(misfire_grace_time, shortest_gap(crontab, start))
    job_model = installed_job(job)
    job_queue = queue_of(job_model, queue)
    with transaction.atomic():
        schedule = ScheduledJob.objects.select_for_update().filter(name=name).first()
        created = schedule is None
        if schedule is None:
            schedule = _create(job_model, name, crontab, start, user or service_user())
        _bring_to(schedule, job_model, crontab, start)
        schedule.kwargs = checked_job_kwargs(job_model, job_kwargs or {})
        set_delivery(schedule, job_queue, expires, time_limit)
        schedule.user = user or schedule.user or service_user()
        with being_made(schedule) if created else nullcontext():
            _save(schedule, enabled)
        if enabled and not job_model.enabled:
            job_model.enabled = True
            job_model.validated_save()
    return schedule


def next_start(schedule: ScheduledJob, last: datetime | None) -> datetime | None:
    """Return the next start of the schedule's Job after a start at `last`; None for never."""
    if schedule.one_off:
        return None if last else schedule.start_time
    # As in beat, a match at the start itself counts.
    after = last or schedule.start_time - timedelta(minutes=1)
    return _next_run(schedule.to_cron(), after.astimezone(schedule.time_zone))


def kind_of(schedule: ScheduledJob) -> str | None:
    """Return the kind of runs that `schedule` starts; None if it does not belong to this app."""
    return kind_of_job(schedule.task, schedule.kwargs)


def queue_of(job_model: Job, name: str | None) -> JobQueue:
    """Return the job queue called `name`, or the Job's default queue.

    Raises:
        ConfigurationError: There is no such queue, or the Job may not use the queue.
    """
    if name is None:
        return job_model.default_job_queue
    allowed = {queue.name: queue for queue in (job_model.default_job_queue, *job_model.job_queues.all())}
    if name not in allowed:
        raise ConfigurationError(
            f'"{job_model}" may not use a job queue {shown(name)}, but {", ".join(sorted(allowed))}: '
            "add it under Job Queues on the Job's page."
        )
    return allowed[name]


def _time_zone(name: str | None):
    try:
        return ZoneInfo(name) if name else timezone.get_default_timezone()
    # Names are looked up as files. A name that is too long, or that of a folder, raises an OSError.
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ConfigurationError(
            f'There is no time zone {shown(name)}: give a name such as "Europe/Berlin" or "UTC".'
        ) from error


def _crontab_of(crontab: str | None, interval: int | None) -> str | None:
    """Return the crontab, given directly or as an interval; None without either."""
    if interval is None:
        return crontab
    if crontab is not None:
        raise ConfigurationError("Give a crontab or an interval in seconds, not both.")
    try:
        return crontab_of(interval)
    except ValueError as error:
        raise ConfigurationError(str(error)) from error


def checked_grace(seconds: int | None, longest: int) -> int:
    """Return the seconds for which a message waits for a worker: `seconds`, or by default `longest`.

    Raises:
        ConfigurationError: It is not a number of seconds, or is longer than `longest`.
    """
    if seconds is None:
        return longest
    if isinstance(seconds, bool) or not isinstance(seconds, int) or not 0 < seconds <= longest:
        raise ConfigurationError(
            f"misfire_grace_time must be a whole number of seconds from 1 to {longest}, not {shown(seconds)}, the "
            "longest time for which a run waits."
        )
    return seconds


def shortest_gap(crontab: str, start: datetime) -> int:
    """Return the shortest time between two of the next runs, in seconds; `crontab` uses the time zone of `start`."""
    try:
        schedule = ScheduledJob.get_crontab(crontab, tz=start.tzinfo)
        runs = [_next_run(schedule, start)]
        for _ in range(RUNS_LOOKED_AT - 1):
            runs.append(_next_run(schedule, runs[-1]))
    except (ParseException, ValueError, RuntimeError) as error:
        reason = printable(str(error)).replace("'", '"')
        raise ConfigurationError(
            f"{shown(crontab)} is not a crontab that Nautobot can run: give five fields, minute hour day-of-month "
            "month "
            f'day-of-week, such as "*/10 * * * *". ({reason})'
        ) from error
    return int(min(later.timestamp() - earlier.timestamp() for earlier, later in pairwise(runs)))


def _next_run(schedule: TzAwareCrontab, after: datetime) -> datetime:
    # Celery compares with the current time, which does not matter for future runs.
    schedule.nowfun = lambda: after
    start, wait, _ = schedule.remaining_delta(after)
    # A time in the hour that summer time skips does not exist on the clock.
    return (start + wait).astimezone(UTC).astimezone(start.tzinfo)


def _create(job_model: Job, name: str, crontab: str, start: datetime, user) -> ScheduledJob:
    return ScheduledJob.create_schedule(
        job_model,
        user,
        name=name,
        start_time=start,
        interval=JobExecutionType.TYPE_CUSTOM,
        crontab=crontab,
        job_kwargs={},
    )


def _bring_to(schedule: ScheduledJob, job_model: Job, crontab: str, start: datetime) -> None:
    """Set the times of `schedule`. A changed or disabled schedule does not start missed runs."""
    if schedule.job_model not in (job_model, None):
        raise ConfigurationError(
            f'The schedule "{schedule.name}" belongs to the Job {schedule.job_model}: give another name.'
        )
    schedule.job_model = job_model
    schedule.task = job_model.class_path
    unchanged = (schedule.crontab, str(schedule.time_zone)) == (crontab, str(start.tzinfo))
    if unchanged and schedule.enabled and schedule.interval == JobExecutionType.TYPE_CUSTOM:
        return
    schedule.interval = JobExecutionType.TYPE_CUSTOM
    schedule.one_off = False
    schedule.crontab = crontab
    schedule.time_zone = start.tzinfo
    schedule.start_time = start
    schedule.last_run_at = None


def set_delivery(schedule: ScheduledJob, queue: JobQueue, expires: int, time_limit: int | None) -> None:
    """Set the queue of `schedule`, the longest wait of its messages and the time limit of its runs, in seconds."""
    schedule.job_queue = queue
    schedule.celery_kwargs |= {"queue": queue.name, "nautobot_job_queue_type": queue.queue_type, "expires": expires}
    schedule.celery_kwargs.pop(LIMIT_PROPERTY, None)
    if time_limit is not None:
        schedule.celery_kwargs[LIMIT_PROPERTY] = validated_time_limit(time_limit)
    take_over_limits(schedule, AiOpsSettings.load())


def _save(schedule: ScheduledJob, enabled: bool) -> None:
    _enable(schedule, enabled)
    schedule.validated_save()
    # After the change another approval workflow may apply, or none.
    if schedule.state not in HELD_BY_APPROVAL and schedule.enabled is not enabled:
        _enable(schedule, enabled)
        schedule.save()


def _enable(schedule: ScheduledJob, enabled: bool) -> None:
    if schedule.state not in HELD_BY_APPROVAL:
        schedule.enabled = enabled
        # Nautobot sets a disabled schedule to the state completed.
        schedule.state = ScheduledJobStateChoices.ACTIVE


def checked_job_kwargs(job_model: Job, job_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Validate `job_kwargs` with the Job's form; return them as a schedule stores them.

    An omitted variable is not missing: each run uses the Job's default.
    """
    job_class = job_model.job_class
    stored = job_class.serialize_data(dict(job_kwargs))
    try:
        job_class.validate_data(stored)
    except ValidationError as error:
        if refusals := _refusals(error, stored):
            raise ConfigurationError(f"{job_model} does not accept these variables. {refusals}") from error
    except ObjectDoesNotExist as error:
        raise ConfigurationError(f"{job_model} does not accept these variables. {error}") from error
    return stored


def _refusals(error: ValidationError, given: Mapping[str, Any]) -> str:
    if not hasattr(error, "error_dict"):
        return " ".join(error.messages)
    return "; ".join(f"{name}: {' '.join(texts)}" for name, texts in error.message_dict.items() if name in given)
