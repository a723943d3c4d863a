"""Schedules of the maintenance Jobs: Nautobot's own ScheduledJobs, made so that they work unattended."""

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
from ai_ops.schedules.intervals import crontab_of
from ai_ops.schedules.limits import take_over_limits

# Runs looked at to find the shortest time between two: 8:00 and 9:00 daily are an hour apart, not 23.
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

    The Job is enabled too, unless `enabled` is False: a schedule of a disabled Job only produces failures.
    A run that has not started by the time the next one is due is dropped, so that workers that were away
    do not come back to a queue full of the same work. Where an approval workflow applies to schedules,
    a new one is pending until it is approved, and so is one whose variables, times, queue, owner or limits change.

    Args:
        job: A kind in `ai_ops.kinds.KINDS`, such as "cleanup", or the class path of a Job ("package.module.ClassName").
        name: Name of the schedule; kinds in DEFAULT_SCHEDULES have one of their own.
        crontab: Five fields, minute to day of week; those in DEFAULT_SCHEDULES have one of their own.
        interval: Seconds between two runs, in place of a crontab; those that a crontab can say.
        time_zone: In which the crontab is meant, such as "Europe/Berlin"; Nautobot's TIME_ZONE unless given.
        job_kwargs: Variables of the Job by name; what is left out takes the Job's default at each run.
        user: The user as whom the Job runs; the app's inactive service user unless given. An existing schedule keeps
            its owner unless one is given.
        enabled: Whether it runs. False stops a schedule without deleting it.
        queue: Name of the job queue; the Job's default queue unless given.
        time_limit: Seconds after which a run stops; what the settings or the Job say unless given.
        misfire_grace_time: Seconds after which a run that no worker has begun is dropped; until the next is due
            unless given.

    Returns:
        The ScheduledJob as it is in the database.

    Raises:
        ConfigurationError: The Job is not installed, the name is another Job's, or the crontab, the interval, the time
            zone, the queue, the time limit or a variable is not valid. Nothing was changed then.
    """
    defaults = KINDS.get(job)
    name = name or (defaults and defaults.schedule)
    crontab = _crontab_of(crontab, interval) or (defaults and defaults.crontab)
    if not name or not crontab:
        raise ConfigurationError(f"A schedule of {job} needs a name and a crontab: give both.")
    zone = _time_zone(time_zone)
    crontab = " ".join(crontab.split())
    # Not the first match, as create_schedule has it: beat looks for a match after the start then, and skips one.
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
    # As beat has it: a match at the start itself is one.
    after = last or schedule.start_time - timedelta(minutes=1)
    return _next_run(schedule.to_cron(), after.astimezone(schedule.time_zone))


def kind_of(schedule: ScheduledJob) -> str | None:
    """Return the kind of runs that `schedule` starts; None if it is not this app's."""
    return kind_of_job(schedule.task, schedule.kwargs)


def queue_of(job_model: Job, name: str | None) -> JobQueue:
    """Return the job queue called `name`, or the Job's default queue.

    Raises:
        ConfigurationError: There is no such queue, or the Job may not use it.
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
    # A name is looked for as a file: one that is too long, or is a folder's, is an error of the system.
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ConfigurationError(
            f'There is no time zone {shown(name)}: give one such as "Europe/Berlin" or "UTC".'
        ) from error


def _crontab_of(crontab: str | None, interval: int | None) -> str | None:
    """Return the crontab, given as such or as an interval; None without either."""
    if interval is None:
        return crontab
    if crontab is not None:
        raise ConfigurationError("Give a crontab or an interval in seconds, not both.")
    try:
        return crontab_of(interval)
    except ValueError as error:
        raise ConfigurationError(str(error)) from error


def checked_grace(seconds: int | None, longest: int) -> int:
    """Return the seconds that a message waits for a worker: as given, or `longest`, until the next is due.

    Raises:
        ConfigurationError: It is no number of seconds, or is longer.
    """
    if seconds is None:
        return longest
    if isinstance(seconds, bool) or not isinstance(seconds, int) or not 0 < seconds <= longest:
        raise ConfigurationError(
            f"misfire_grace_time must be a whole number of seconds from 1 to {longest}, not {shown(seconds)}: no run "
            "waits for longer."
        )
    return seconds


def shortest_gap(crontab: str, start: datetime) -> int:
    """Return the shortest time between two of the next runs, in seconds; `crontab` is meant in start's zone."""
    try:
        schedule = ScheduledJob.get_crontab(crontab, tz=start.tzinfo)
        runs = [_next_run(schedule, start)]
        for _ in range(RUNS_LOOKED_AT - 1):
            runs.append(_next_run(schedule, runs[-1]))
    except (ParseException, ValueError, RuntimeError) as error:
        reason = printable(str(error)).replace("'", '"')
        raise ConfigurationError(
            f"{shown(crontab)} is no crontab that Nautobot can run: give five fields, minute hour day-of-month month "
            f'day-of-week, such as "*/10 * * * *". ({reason})'
        ) from error
    return int(min(later.timestamp() - earlier.timestamp() for earlier, later in pairwise(runs)))


def _next_run(schedule: TzAwareCrontab, after: datetime) -> datetime:
    # Celery compares with the current time on the way, which is not ours to ask about when looking ahead.
    schedule.nowfun = lambda: after
    start, wait, _ = schedule.remaining_delta(after)
    # A time in the hour that summer time skips is another one on the clock.
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
    """Set the times of `schedule`. A changed or disabled schedule does not make up for past times."""
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
    """Set the queue of `schedule`, the longest wait of its messages, and the time limit of its runs, in seconds."""
    schedule.job_queue = queue
    schedule.celery_kwargs |= {"queue": queue.name, "nautobot_job_queue_type": queue.queue_type, "expires": expires}
    schedule.celery_kwargs.pop(LIMIT_PROPERTY, None)
    if time_limit is not None:
        schedule.celery_kwargs[LIMIT_PROPERTY] = validated_time_limit(time_limit)
    take_over_limits(schedule, AiOpsSettings.load())


def _save(schedule: ScheduledJob, enabled: bool) -> None:
    _enable(schedule, enabled)
    schedule.validated_save()
    # A change may have let an approval workflow take hold of it, or go.
    if schedule.state not in HELD_BY_APPROVAL and schedule.enabled is not enabled:
        _enable(schedule, enabled)
        schedule.save()


def _enable(schedule: ScheduledJob, enabled: bool) -> None:
    if schedule.state not in HELD_BY_APPROVAL:
        schedule.enabled = enabled
        # Nautobot calls a schedule completed when it was disabled.
        schedule.state = ScheduledJobStateChoices.ACTIVE


def checked_job_kwargs(job_model: Job, job_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Validate `job_kwargs` with the Job's form; return them as a schedule stores them.

    A variable that was left out is not missing: it is the Job's to decide at each run.
    """
    job_class = job_model.job_class
    stored = job_class.serialize_data(dict(job_kwargs))
    try:
        job_class.validate_data(stored)
    except ValidationError as error:
        if refusals := _refusals(error, stored):
            raise ConfigurationError(f"{job_model} does not take these variables. {refusals}") from error
    except ObjectDoesNotExist as error:
        raise ConfigurationError(f"{job_model} does not take these variables. {error}") from error
    return stored


def _refusals(error: ValidationError, given: Mapping[str, Any]) -> str:
    if not hasattr(error, "error_dict"):
        return " ".join(error.messages)
    return "; ".join(f"{name}: {' '.join(texts)}" for name, texts in error.message_dict.items() if name in given)
