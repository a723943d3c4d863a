"""Approval of changed schedules: an approval covers the reviewed schedule, so a change needs a new one.

Nautobot requests approval once, when a schedule is created. This module handles each save of a schedule, and so covers
this app's functions, pages and REST, Nautobot's own pages, other apps and shells.
"""

from __future__ import annotations

from typing import Any

from celery.schedules import ParseException
from nautobot.extras.choices import ApprovalWorkflowStateChoices, JobExecutionType, ScheduledJobStateChoices
from nautobot.extras.models import ApprovalWorkflowDefinition, ScheduledJob

from ai_ops.config import AiOpsSettings
from ai_ops.exceptions import ConfigurationError
from ai_ops.runs.approvals import BEING_MADE
from ai_ops.runs.logs import get_logger
from ai_ops.schedules.limits import FOLLOWING_LIMITS, limits_for, limits_in

logger = get_logger(__name__)

# Prefix of the modules with this app's Jobs.
APP_JOBS = "ai_ops.jobs."

# States in which an approval workflow holds a schedule. Enabling such a schedule would bypass the approvers.
HELD_BY_APPROVAL = (
    ScheduledJobStateChoices.PENDING,
    ScheduledJobStateChoices.DENIED,
    ScheduledJobStateChoices.CANCELED,
)

# An attribute of a schedule that is being saved.
_BEFORE = "_ai_ops_before"


def note_before(sender: Any, instance: ScheduledJob, raw: bool = False, **_: Any) -> None:
    """Remember the state of a schedule of this app before it is saved; receives `pre_save`."""
    before = None if raw or not instance.present_in_database else ScheduledJob.objects.filter(pk=instance.pk).first()
    if before is not None and (before.task.startswith(APP_JOBS) or instance.task.startswith(APP_JOBS)):
        setattr(instance, _BEFORE, before)


def follow_change(sender: Any, instance: ScheduledJob, update_fields: frozenset[str] | None = None, **_: Any) -> None:
    """Request approval again if the approved parts have changed; receives `post_save`."""
    before = instance.__dict__.pop(_BEFORE, None)
    if before is None:
        return
    # If only some fields are saved, the other fields of the instance may differ from the row.
    after = ScheduledJob.objects.get(pk=instance.pk) if update_fields else instance
    if _approved_content(after) != _approved_content(before) or _has_other_limits(after, before):
        _ask_again(instance)


def _approved_content(schedule: ScheduledJob) -> dict[str, Any]:
    """Return the parts of a schedule that an approval covers: task, times, user, limits."""
    recurrent = not schedule.one_off and schedule.interval != JobExecutionType.TYPE_FUTURE
    messages = schedule.celery_kwargs if isinstance(schedule.celery_kwargs, dict) else {}
    return {
        "name": schedule.name,
        "task": schedule.task,
        "job": schedule.job_model_id,
        "variables": (schedule.args, schedule.kwargs),
        # The minute and hour of Nautobot's own intervals come from the start.
        "times": _times(schedule) if recurrent else schedule.start_time,
        "time zone": str(schedule.time_zone),
        "queue": schedule.job_queue_id,
        "owner": schedule.user_id,
        "messages": {name: value for name, value in messages.items() if name not in FOLLOWING_LIMITS},
    }


def _has_other_limits(after: ScheduledJob, before: ScheduledJob) -> bool:
    """Return whether the limits were changed to others than those of the Job and the settings."""
    limits = limits_in(after.celery_kwargs)
    if limits == limits_in(before.celery_kwargs):
        return False
    try:
        return limits != limits_for(after, AiOpsSettings.load())
    except ConfigurationError:
        return True


def _times(schedule: ScheduledJob) -> Any:
    try:
        return repr(schedule.to_cron())
    except (ParseException, ValueError):
        # Beat skips this interval or crontab.
        return schedule.interval, schedule.crontab


def _ask_again(schedule: ScheduledJob) -> None:
    """Set a changed schedule to the state of a new schedule, which waits for approval."""
    definition = ApprovalWorkflowDefinition.objects.find_for_model(schedule)
    workflows = schedule.associated_approval_workflows.all()
    begun = workflows.filter(
        approval_workflow_definition=definition, current_state=ApprovalWorkflowStateChoices.PENDING
    )
    if definition and hasattr(schedule, BEING_MADE) and begun.exists():
        return
    # Nautobot keeps one workflow per schedule and definition. A decided workflow would prevent a new one, and in a
    # running workflow an approver may have approved an old version.
    workflows.delete()
    if definition:
        schedule.begin_approval_workflow()
        logger.warning('The schedule "%s" was changed, and waits for approval', schedule.name)
    elif schedule.state in HELD_BY_APPROVAL:
        schedule.state, schedule.enabled = ScheduledJobStateChoices.ACTIVE, True
        schedule.save()
