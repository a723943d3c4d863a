"""Single runs, and changes of schedules: pause, resume, other times, removal, time limits."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.utils import timezone
from nautobot.extras.choices import JobExecutionType, ScheduledJobStateChoices
from nautobot.extras.models import Job, ScheduledJob

from ai_ops.config import AiOpsSettings
from ai_ops.exceptions import ConfigurationError, RunOptionsError, ScheduleNotFoundError
from ai_ops.kinds import DEFAULT_SCHEDULES
from ai_ops.logic.foreign_text import shown
from ai_ops.runs.approvals import being_made
from ai_ops.runs.context import LIMIT_PROPERTY
from ai_ops.runs.installed_jobs import installed_job
from ai_ops.runs.options import checked_options, job_variables
from ai_ops.runs.service_user import service_user
from ai_ops.schedules.approval import APP_JOBS, HELD_BY_APPROVAL
from ai_ops.schedules.ensure import (
    checked_grace,
    checked_job_kwargs,
    ensure_schedule,
    queue_of,
    set_delivery,
)
from ai_ops.schedules.limits import take_over_limits
from ai_ops.schedules.subjects import missing_subjects

logger = logging.getLogger(__name__)

# Seconds that the message of a single run waits for a worker. It has no next run that would do the same.
ONCE_EXPIRES_SECONDS = 86_400
# After which hour, time of day and day of the week are the same again.
WEEK = timedelta(days=7)


def app_schedules() -> Any:
    """Return the schedules of this app's Jobs."""
    return ScheduledJob.objects.filter(job_model__module_name__startswith=APP_JOBS)


def schedule_runs(kind: str, options: Mapping[str, Any] | None = None, *, user: Any = None, **when: Any) -> Any:
    """Create or update the schedule of that name for runs of that kind with these options.

    Args:
        kind: One of `ai_ops.kinds.KINDS`.
        options: By name, as `request_run` takes them.
        user: The user who asks; None for the app's service user.
        when: `name`, `crontab`, `interval`, `time_zone`, `queue`, `time_limit` and `misfire_grace_time`, as
            `ensure_schedule` takes them.

    Raises:
        RunOptionsError: There is no such kind or option, or a value is not valid.
        ConfigurationError: As `ensure_schedule` raises it.
    """
    variables, limit = _variables(kind, options, user)
    if kind not in DEFAULT_SCHEDULES and not when.get("name"):
        raise RunOptionsError(f"A schedule of kind {kind} needs a name and a crontab: give both.")
    when["time_limit"] = when.get("time_limit") or limit
    return ensure_schedule(kind, job_kwargs=variables, user=user, **when)


def schedule_once(
    kind: str,
    at: datetime,
    *,
    options: Mapping[str, Any] | None = None,
    name: str | None = None,
    user: Any = None,
    queue: str | None = None,
    time_limit: int | None = None,
    misfire_grace_time: int | None = None,
) -> ScheduledJob:
    """Create a schedule for one run. If beat is down at that time, the run starts once when beat is back.

    Args:
        kind: One of `ai_ops.kinds.KINDS`.
        at: When, with a time zone.
        options: By name, as `request_run` takes them.
        name: Of the schedule; made from kind and time unless given.
        user: The user as whom it runs; the app's service user unless given.
        queue: Name of the job queue; the Job's default queue unless given.
        time_limit: Seconds after which the run stops; what the settings or the Job say unless given.
        misfire_grace_time: Seconds after which the run is dropped if no worker has begun it; a day, and at most that,
            unless given.

    Raises:
        RunOptionsError: There is no such kind or option, or a value is not valid.
        ConfigurationError: The time is past or has no time zone, the name is taken, there is no such queue, or the
            grace is not valid.
    """
    variables, limit = _variables(kind, options, user)
    if not isinstance(at, datetime) or timezone.is_naive(at) or at <= timezone.now():
        raise ConfigurationError(f"The time of a single run must be to come, and have a time zone, not {shown(at)}.")
    name = name or f"AI Ops: {kind} once at {at:%Y-%m-%d %H:%M:%S %Z}"
    if ScheduledJob.objects.filter(name=name).exists():
        raise ConfigurationError(f'There is a schedule "{name}" already: give another name, or remove it.')
    expires = checked_grace(misfire_grace_time, ONCE_EXPIRES_SECONDS)
    job = installed_job(kind)
    job_queue = queue_of(job, queue)
    with transaction.atomic():
        schedule = ScheduledJob.create_schedule(
            job,
            user or service_user(),
            name=name,
            # Nautobot keeps the name of the zone, which a mere offset does not have.
            start_time=at.astimezone(timezone.get_default_timezone()),
            interval=JobExecutionType.TYPE_FUTURE,
            job_kwargs=checked_job_kwargs(job, variables),
        )
        set_delivery(schedule, job_queue, expires, time_limit or limit)
        with being_made(schedule):
            schedule.validated_save()
    return schedule


def pause_schedule(name: str) -> ScheduledJob:
    """Pause a schedule without deleting it. Missed runs are not made up for.

    Args:
        name: Of the schedule, or a kind for its default schedule.

    Raises:
        ScheduleNotFoundError: There is none.
        ConfigurationError: It waits for approval, or was denied it.
    """
    with transaction.atomic():
        schedule = _found(name)
        _confirm_not_held(schedule)
        schedule.enabled = False
        schedule.save()
    return schedule


def resume_schedule(name: str) -> ScheduledJob:
    """Resume a paused schedule; its next run starts at its next time.

    Args:
        name: Of the schedule, or a kind for its default schedule.

    Raises:
        ScheduleNotFoundError: There is none.
        ConfigurationError: It waits for approval, its single run is past, or its owner, its Job, its MCP server or
            its retention policy is gone.
    """
    with transaction.atomic():
        schedule = _found(name)
        _confirm_not_held(schedule)
        if schedule.job_model is None or not schedule.job_model.enabled:
            raise ConfigurationError(f'The Job of "{schedule.name}" is gone or disabled: enable it under Jobs first.')
        if schedule.user is None:
            raise ConfigurationError(f'The owner of "{schedule.name}" is gone: assume its ownership on its page first.')
        if missing := missing_subjects([schedule]).get(schedule.pk):
            subject = missing.subject
            raise ConfigurationError(
                f'The {subject.noun} that "{schedule.name}" {subject.verb} was deleted: remove the schedule.'
            )
        if schedule.one_off and schedule.start_time <= timezone.now():
            raise ConfigurationError(f'The time of "{schedule.name}" is past: schedule another run.')
        if not schedule.enabled:
            if not schedule.one_off:
                # A start that is past by now is not late.
                schedule.start_time = _start_from_now(schedule)
            schedule.enabled, schedule.state = True, ScheduledJobStateChoices.ACTIVE
            schedule.validated_save()
    return schedule


def retime_schedule(name: str, **times: Any) -> ScheduledJob:
    """Change the times of a recurrent schedule. Variables, owner, queue, limits and pause stay.

    Args:
        name: Of the schedule, or a kind for its default schedule.
        times: Of `crontab`, `interval`, `time_zone` and `misfire_grace_time`, as `ensure_schedule` takes them, those
            that change. A grace that is left out is the time until the next run.

    Raises:
        ScheduleNotFoundError: There is none.
        ConfigurationError: It is a single run, or as `ensure_schedule` raises it.
    """
    with transaction.atomic():
        schedule = _found(name)
        if schedule.one_off or schedule.interval != JobExecutionType.TYPE_CUSTOM:
            raise ConfigurationError(f'"{schedule.name}" has no crontab: remove it, and make another.')
        if "interval" not in times:
            times.setdefault("crontab", schedule.crontab)
        times.setdefault("time_zone", str(schedule.time_zone))
        return ensure_schedule(
            schedule.task,
            name=schedule.name,
            job_kwargs=schedule.kwargs,
            enabled=schedule.enabled,
            queue=schedule.job_queue.name if schedule.job_queue else None,
            time_limit=schedule.celery_kwargs.get(LIMIT_PROPERTY),
            **times,
        )


def remove_schedule(name: str) -> None:
    """Delete a schedule. A provisioned one is not created again.

    Args:
        name: Of the schedule, or a kind for its default schedule.

    Raises:
        ScheduleNotFoundError: There is none.
    """
    with transaction.atomic():
        _found(name).delete()


def refresh_time_limits(job: Job | None = None) -> int:
    """Update the time limits of existing schedules, of one Job or of all of this app's.

    Returns:
        How many had others.
    """
    changed = 0
    schedules = app_schedules().filter(job_model=job) if job else app_schedules()
    with transaction.atomic():
        locked = list(schedules.select_related("job_model").select_for_update(of=("self",)))
        settings = AiOpsSettings.load() if locked else AiOpsSettings()
        for schedule in locked:
            before = dict(schedule.celery_kwargs)
            take_over_limits(schedule, settings)
            if schedule.celery_kwargs != before:
                # Beat writes the other fields meanwhile, and reads all of it again after this.
                schedule.save(update_fields=["celery_kwargs"])
                changed += 1
    return changed


def follow_job(sender: Any, instance: Job, raw: bool = False, **_: Any) -> None:
    """Update schedules to the time limits on their Job's page; receives `post_save`."""
    if raw or not instance.module_name.startswith(APP_JOBS):
        return
    try:
        refresh_time_limits(instance)
    except ConfigurationError as error:
        # A Job can be saved all the same, and the check of the settings says what is wrong with them.
        logger.warning("Schedules of %s keep their time limits: %s", instance, error)


def follow_settings(**_: Any) -> None:
    """Update schedules to the settings when beat starts; receives Celery's `beat_init`."""
    refresh_time_limits()


def _variables(kind: str, options: Mapping[str, Any] | None, user: Any) -> tuple[dict[str, Any], int | None]:
    stored = checked_options(kind, options, user)
    return job_variables(kind, stored), stored.get("time_limit")


def _start_from_now(schedule: ScheduledJob) -> datetime:
    """Return a start that leaves `schedule` its times: Nautobot's own intervals take them from it."""
    now = timezone.now()
    if schedule.interval == JobExecutionType.TYPE_CUSTOM:
        return now.replace(second=0, microsecond=0)
    return schedule.start_time.astimezone(schedule.time_zone) + (now - schedule.start_time) // WEEK * WEEK


def _found(name: str) -> ScheduledJob:
    name = DEFAULT_SCHEDULES[name].name if name in DEFAULT_SCHEDULES else name
    schedule = ScheduledJob.objects.select_for_update().filter(name=name).first()
    if schedule is None:
        names = ", ".join(f'"{each}"' for each in app_schedules().values_list("name", flat=True)) or "none"
        raise ScheduleNotFoundError(f'There is no schedule "{name}": there are {names}.')
    return schedule


def _confirm_not_held(schedule: ScheduledJob) -> None:
    if schedule.state in HELD_BY_APPROVAL:
        raise ConfigurationError(
            f'"{schedule.name}" is held by an approval workflow ({schedule.get_state_display()}): '
            "it starts when it is approved, and not otherwise."
        )
