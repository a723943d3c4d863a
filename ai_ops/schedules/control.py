"""Single runs, and changes of schedules: pause, resume, new times, removal and time limits."""

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
from ai_ops.schedules.arguments import check_arguments
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

# Seconds for which the message of a single run waits for a worker. No next run would do its work.
ONCE_EXPIRES_SECONDS = 86_400
# The period after which hour, time of day and day of the week are the same again.
WEEK = timedelta(days=7)


def app_schedules() -> Any:
    """Return the schedules of this app's Jobs."""
    return ScheduledJob.objects.filter(job_model__module_name__startswith=APP_JOBS)


def schedule_runs(kind: str, options: Mapping[str, Any] | None = None, *, user: Any = None, **when: Any) -> Any:
    """Create or update a schedule for runs of a kind with these options.

    Args:
        kind: One of `ai_ops.kinds.KINDS`.
        options: Options by name, as `request_run` takes them.
        user: The user of the schedule; None for the app's service user.
        when: `name`, `crontab`, `interval`, `time_zone`, `queue`, `time_limit` and `misfire_grace_time`, as
            `ensure_schedule` takes them.

    Raises:
        RunOptionsError: There is no such kind or option, or a value is not valid.
        ConfigurationError: As `ensure_schedule` raises it.
    """
    check_arguments(user=user)
    variables, limit = _variables(kind, options, user)
    if kind not in DEFAULT_SCHEDULES and not when.get("name"):
        raise RunOptionsError(f"A schedule of kind {kind} needs a name and a crontab: give both.")
    if when.get("time_limit") is None:
        when["time_limit"] = limit
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
    """Create a schedule for a single run. If beat is down at that time, the run starts when beat is back.

    Args:
        kind: One of `ai_ops.kinds.KINDS`.
        at: Time of the run, with a time zone.
        options: Options by name, as `request_run` takes them.
        name: Name of the schedule; by default from kind and time.
        user: The user of the run; by default the app's service user.
        queue: Name of the job queue; by default that of the Job.
        time_limit: Seconds after which the run stops; by default the limit of the settings or the Job.
        misfire_grace_time: Seconds after which the run is dropped if no worker has started it; by default a day, which
            is also the maximum.

    Raises:
        RunOptionsError: There is no such kind or option, or a value is not valid.
        ConfigurationError: The time has passed or has no time zone, the name is taken, there is no such queue, or the
            grace or the type of an argument is invalid.
    """
    check_arguments(name=name, user=user, queue=queue)
    variables, limit = _variables(kind, options, user)
    if not isinstance(at, datetime) or timezone.is_naive(at) or at <= timezone.now():
        raise ConfigurationError(
            f"The time of a single run must be in the future and have a time zone, not {shown(at)}."
        )
    name = name or f"AI Ops: {kind} once at {at:%Y-%m-%d %H:%M:%S %Z}"
    if ScheduledJob.objects.filter(name=name).exists():
        raise ConfigurationError(f'There is a schedule "{name}" already: give another name, or remove that schedule.')
    expires = checked_grace(misfire_grace_time, ONCE_EXPIRES_SECONDS)
    job = installed_job(kind)
    job_queue = queue_of(job, queue)
    with transaction.atomic():
        schedule = ScheduledJob.create_schedule(
            job,
            user or service_user(),
            name=name,
            # Nautobot stores the name of the time zone, which an offset does not have.
            start_time=at.astimezone(timezone.get_default_timezone()),
            interval=JobExecutionType.TYPE_FUTURE,
            job_kwargs=checked_job_kwargs(job, variables),
        )
        set_delivery(schedule, job_queue, expires, limit if time_limit is None else time_limit)
        with being_made(schedule):
            schedule.validated_save()
    return schedule


def pause_schedule(name: str) -> ScheduledJob:
    """Pause a schedule without deleting it. Missed runs are not started later.

    Args:
        name: Name of the schedule, or a kind for its default schedule.

    Raises:
        ScheduleNotFoundError: There is no such schedule.
        ConfigurationError: It waits for approval, or its approval was denied.
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
        name: Name of the schedule, or a kind for its default schedule.

    Raises:
        ScheduleNotFoundError: There is none.
        ConfigurationError: It waits for approval, its single run has passed, or its owner, its Job, its MCP server or
            its retention policy is gone.
    """
    with transaction.atomic():
        schedule = _found(name)
        _confirm_not_held(schedule)
        if schedule.job_model is None or not schedule.job_model.enabled:
            raise ConfigurationError(f'The Job of "{schedule.name}" is missing or disabled: enable it under Jobs.')
        if schedule.user is None:
            raise ConfigurationError(f'The owner of "{schedule.name}" is gone: assume its ownership on its page first.')
        if missing := missing_subjects([schedule]).get(schedule.pk):
            subject = missing.subject
            raise ConfigurationError(
                f'The {subject.noun} that "{schedule.name}" {subject.verb} was deleted: remove the schedule.'
            )
        if schedule.one_off and schedule.start_time <= timezone.now():
            raise ConfigurationError(f'The time of "{schedule.name}" has passed: schedule another run.')
        if not schedule.enabled:
            if not schedule.one_off:
                # Starts before now do not count as late.
                schedule.start_time = _start_from_now(schedule)
            schedule.enabled, schedule.state = True, ScheduledJobStateChoices.ACTIVE
            schedule.validated_save()
    return schedule


def retime_schedule(name: str, **times: Any) -> ScheduledJob:
    """Change the times of a recurrent schedule. Variables, owner, queue, limits and pause do not change.

    Args:
        name: Name of the schedule, or a kind for its default schedule.
        times: The values to change of `crontab`, `interval`, `time_zone` and `misfire_grace_time`, as `ensure_schedule`
            takes them. By default the grace is the time until the next run.

    Raises:
        ScheduleNotFoundError: There is no such schedule.
        ConfigurationError: It is a single run, or a value is invalid as in `ensure_schedule`.
    """
    with transaction.atomic():
        schedule = _found(name)
        if schedule.one_off or schedule.interval != JobExecutionType.TYPE_CUSTOM:
            raise ConfigurationError(f'"{schedule.name}" has no crontab: remove it, and create another.')
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
    """Delete a schedule. A provisioned schedule is not created again.

    Args:
        name: Name of the schedule, or a kind for its default schedule.

    Raises:
        ScheduleNotFoundError: There is no such schedule.
    """
    with transaction.atomic():
        _found(name).delete()


def refresh_time_limits(job: Job | None = None) -> int:
    """Update the time limits of the existing schedules of a Job, or of all Jobs of this app.

    Returns:
        The number of changed schedules.
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
                # Only these fields, since beat may write the others meanwhile. Beat reads the whole schedule after
                # this.
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
        # The Job is saved anyway, and the check of the settings reports the fault.
        logger.warning("Schedules of %s keep their time limits: %s", instance, error)


def follow_settings(**_: Any) -> None:
    """Update schedules to the settings when beat starts; receives Celery's `beat_init`."""
    refresh_time_limits()


def _variables(kind: str, options: Mapping[str, Any] | None, user: Any) -> tuple[dict[str, Any], int | None]:
    stored = checked_options(kind, options, user)
    return job_variables(kind, stored), stored.get("time_limit")


def _start_from_now(schedule: ScheduledJob) -> datetime:
    """Return a start that keeps the times of `schedule`, since Nautobot's own intervals take them from it."""
    now = timezone.now()
    if schedule.interval == JobExecutionType.TYPE_CUSTOM:
        return now.replace(second=0, microsecond=0)
    return schedule.start_time.astimezone(schedule.time_zone) + (now - schedule.start_time) // WEEK * WEEK


def _found(name: str) -> ScheduledJob:
    check_arguments(name=name)
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
            "it can only start after its approval."
        )
