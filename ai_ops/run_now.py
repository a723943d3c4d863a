"""A run of one of the app's Jobs on demand: what its buttons and REST actions have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.contrib.contenttypes.models import ContentType
from django.db import transaction
from nautobot.extras.choices import JobExecutionType, JobQueueTypeChoices
from nautobot.extras.models import ApprovalWorkflowDefinition, Job, JobResult, ScheduledJob
from nautobot.extras.utils import get_worker_count

from ai_ops.exceptions import AiOpsError
from ai_ops.schedules import DEFAULT_SCHEDULES, find_job


class RunRefusedError(AiOpsError):
    """The Job is not to be run, or not with these variables."""


class RunNotPermittedError(RunRefusedError):
    """The user may not run the Job."""


class NoWorkerError(RunRefusedError):
    """Nobody is there to run the Job."""


def request_run(kind: str, user, variables: Mapping[str, Any] | None = None) -> JobResult | ScheduledJob:
    """Enqueue a run of the Job of that kind, as `user`.

    Args:
        kind: One of `ai_ops.schedules.DEFAULT_SCHEDULES`.
        user: Who asks for it, and as whom it runs.
        variables: The Job's variables by name.

    Returns:
        The JobResult of the run; where an approval workflow applies, the ScheduledJob that waits for it.

    Raises:
        RunRefusedError: There will be no run; the message says why and what to do.
    """
    job = _runnable_job(kind, user)
    queue = job.default_job_queue
    job_kwargs = job.job_class.serialize_data(dict(variables or {}))
    if pending := _schedule_awaiting_approval(job, user, job_kwargs):
        return pending
    if queue.queue_type == JobQueueTypeChoices.TYPE_CELERY and not get_worker_count(queue=queue):
        raise NoWorkerError(f'No Celery worker listens to the queue "{queue.name}": start one, and try again.')
    return JobResult.enqueue_job(job, user, job_queue=queue, job_kwargs=job_kwargs)


def may_run(kind: str, user) -> bool:
    """Tell whether `user` has the permission to run the Job of that kind."""
    job = find_job(kind)
    return job is not None and Job.objects.check_perms(user, instance=job, action="run")


def _runnable_job(kind: str, user) -> Job:
    job = find_job(kind)
    if job is None or job.job_class is None:
        raise RunRefusedError(
            f"The Job {DEFAULT_SCHEDULES[kind].class_path} is not installed: run nautobot-server post_upgrade."
        )
    if not Job.objects.check_perms(user, instance=job, action="run"):
        raise RunNotPermittedError(f'You may not run the Job "{job}": ask for the permission to run it.')
    if not job.enabled:
        raise RunRefusedError(f'The Job "{job}" is disabled: enable it on its page under Jobs.')
    return job


def _schedule_awaiting_approval(job: Job, user, job_kwargs: dict) -> ScheduledJob | None:
    """Return a one-off schedule that waits for approval, if approval is needed to run `job` like this.

    Nautobot decides that by a saved schedule alone, as an approval workflow may look at any of its fields.
    """
    schedules = ContentType.objects.get_for_model(ScheduledJob)
    if not ApprovalWorkflowDefinition.objects.filter(model_content_type=schedules).exists():
        return None
    with transaction.atomic():
        schedule = ScheduledJob.create_schedule(
            job, user, interval=JobExecutionType.TYPE_IMMEDIATELY, job_kwargs=job_kwargs
        )
        if schedule.has_approval_workflow_definition():
            return schedule
        schedule.delete()
    return None
