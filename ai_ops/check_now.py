"""The check of one MCP server on demand: what the button and the REST action have in common."""

from __future__ import annotations

from django.contrib.contenttypes.models import ContentType
from django.db import transaction
from nautobot.extras.choices import JobExecutionType, JobQueueTypeChoices
from nautobot.extras.models import ApprovalWorkflowDefinition, Job, JobResult, ScheduledJob
from nautobot.extras.utils import get_worker_count

from ai_ops.choices import MCPProtocolChoices, MCPServerStatus
from ai_ops.exceptions import AiOpsError
from ai_ops.models import MCPServer
from ai_ops.schedules import find_job


class CheckRefusedError(AiOpsError):
    """This server is not checked, or the Job that would check it is not to be run."""


class CheckNotPermittedError(CheckRefusedError):
    """The user may not run the Job."""


class NoWorkerError(CheckRefusedError):
    """Nobody is there to run the Job."""


def request_check(server: MCPServer, user) -> JobResult | ScheduledJob:
    """Enqueue a check of `server` alone, to be run as `user`.

    Returns:
        The JobResult of the run; where an approval workflow applies, the ScheduledJob that waits for it.

    Raises:
        CheckRefusedError: There will be no check; the message says why and what to do.
    """
    if reason := why_not_checked(server):
        raise CheckRefusedError(reason)
    job = _runnable_job(user)
    queue = job.default_job_queue
    job_kwargs = job.job_class.serialize_data({"server": server})
    if pending := _schedule_awaiting_approval(job, user, job_kwargs):
        return pending
    if queue.queue_type == JobQueueTypeChoices.TYPE_CELERY and not get_worker_count(queue=queue):
        raise NoWorkerError(
            f'No Celery worker listens to the queue "{queue.name}": start one, and ask for the check of {server} again.'
        )
    return JobResult.enqueue_job(job, user, job_queue=queue, job_kwargs=job_kwargs)


def why_not_checked(server: MCPServer) -> str | None:
    """Return why health checks leave `server` out, as a sentence, or None if they don't."""
    if server.protocol == MCPProtocolChoices.STDIO:
        return f"{server} is not checked: a STDIO server runs inside the agent and has no address to ask."
    if server.status.name == MCPServerStatus.VULNERABLE:
        return (
            f"{server} is not checked while its status is {MCPServerStatus.VULNERABLE}: give it another status first."
        )
    return None


def may_run_check(user) -> bool:
    """Tell whether `user` has the permission to run the health check Job."""
    job = find_job("health")
    return job is not None and Job.objects.check_perms(user, instance=job, action="run")


def _runnable_job(user) -> Job:
    job = find_job("health")
    if job is None or job.job_class is None:
        raise CheckRefusedError("The health check Job is not installed: run nautobot-server post_upgrade.")
    if not Job.objects.check_perms(user, instance=job, action="run"):
        raise CheckNotPermittedError(f'You may not run the Job "{job}": ask for the permission to run it.')
    if not job.enabled:
        raise CheckRefusedError(f'The Job "{job}" is disabled: enable it on its page under Jobs.')
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
