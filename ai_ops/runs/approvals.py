"""Runs that wait for approval. Nautobot approves only ScheduledJobs, so each such run has one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.contrib.contenttypes.models import ContentType
from django.db import transaction
from nautobot.extras.choices import JobExecutionType, ScheduledJobStateChoices
from nautobot.extras.models import ApprovalWorkflowDefinition, Job, ScheduledJob

from ai_ops.choices import RunStateChoices
from ai_ops.models.runs import MaintenanceRun
from ai_ops.runs.clock import from_now
from ai_ops.runs.context import RUN_PROPERTY
from ai_ops.runs.delivery import REDELIVERY_GRACE
from ai_ops.runs.transitions import interrupt

REFUSED = (ScheduledJobStateChoices.DENIED, ScheduledJobStateChoices.CANCELED)
# An attribute of a schedule that is being created.
BEING_MADE = "_ai_ops_being_made"


@contextmanager
def being_made(schedule: ScheduledJob) -> Iterator[None]:
    """Mark a schedule that is created in several steps, so that its approval workflow covers the final state."""
    setattr(schedule, BEING_MADE, True)
    try:
        yield
    finally:
        delattr(schedule, BEING_MADE)


def await_approval(
    run: MaintenanceRun, job: Job, job_kwargs: dict[str, Any], celery_kwargs: dict[str, Any]
) -> ScheduledJob | None:
    """Create a schedule that waits for approval and then starts `run` once; None if no approval is needed.

    Nautobot decides this only for a saved schedule, since an approval workflow may use any of its fields. The run has
    no due time until it is approved.
    """
    schedules = ContentType.objects.get_for_model(ScheduledJob)
    if not ApprovalWorkflowDefinition.objects.filter(model_content_type=schedules).exists():
        return None
    with transaction.atomic():
        schedule = ScheduledJob.create_schedule(
            job, run.owner, interval=JobExecutionType.TYPE_IMMEDIATELY, job_kwargs=job_kwargs
        )
        if not schedule.has_approval_workflow_definition():
            schedule.delete()
            return None
        schedule.celery_kwargs |= celery_kwargs
        with being_made(schedule):
            schedule.save()
    return schedule


def schedule_of(run: MaintenanceRun) -> ScheduledJob | None:
    """Return the schedule with which `run` waits or waited for approval."""
    return ScheduledJob.objects.filter(**{f"celery_kwargs__{RUN_PROPERTY}": str(run.pk)}).first()


def follow_decision(sender: Any, instance: ScheduledJob, **_: Any) -> None:
    """End a run whose approval was denied, and make an approved run due; receives `post_save`."""
    kwargs = instance.celery_kwargs if isinstance(instance.celery_kwargs, dict) else {}
    waiting = MaintenanceRun.objects.filter(
        pk=kwargs.get(RUN_PROPERTY), state=RunStateChoices.PENDING, next_attempt=None
    )
    if RUN_PROPERTY not in kwargs:
        return
    if instance.state in REFUSED:
        interrupt(waiting, "Its approval was denied.")
    elif instance.state == ScheduledJobStateChoices.ACTIVE and instance.enabled:
        # The schedule sends the message. If it is lost, the supervisor sends another.
        waiting.update(next_attempt=from_now(REDELIVERY_GRACE))


def follow_deletion(sender: Any, instance: ScheduledJob, **_: Any) -> None:
    """End a run that waited for approval with this schedule; receives `post_delete`."""
    kwargs = instance.celery_kwargs if isinstance(instance.celery_kwargs, dict) else {}
    if RUN_PROPERTY in kwargs:
        waiting = MaintenanceRun.objects.filter(
            pk=kwargs[RUN_PROPERTY], state=RunStateChoices.PENDING, next_attempt=None
        )
        interrupt(waiting, "The schedule with which it waited for approval was deleted.")
