"""Shards: the due servers of a large fleet, divided among the workers of a queue, with a run of the Job for each."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Q, QuerySet
from nautobot.extras.choices import JobQueueTypeChoices, JobResultStatusChoices
from nautobot.extras.models import Job, JobQueue, JobResult
from nautobot.extras.utils import get_worker_count

from ai_ops.logic.shards import Shard, divided
from ai_ops.mcp.due import CLOCK_TOLERANCE, due_servers
from ai_ops.models import MCPServer

# The Job's variable for a shard as text.
VARIABLE = "shard"

# A shard that no worker has started by then is dropped, and the next run checks its servers, because messages may have
# been lost with the queue.
QUEUED_SECONDS = 3600


def shard_servers(shard: Shard, now: datetime) -> QuerySet[MCPServer]:
    """Return the servers of `shard` that are due now and were not checked since the division."""
    of_shard = due_servers(now).filter(pk__range=(shard.first, shard.last))
    return of_shard.exclude(health__checked__gt=shard.as_of, health__checked__lte=now + CLOCK_TOLERANCE)


def queue_to_share(job_result: JobResult, size: int, now: datetime) -> JobQueue | None:
    """Return the queue among whose workers to divide a run; None to check all servers in this run.

    Args:
        job_result: The run.
        size: Maximum number of servers of a shard; 0 to never divide runs.
        now: The time.
    """
    if not size or job_result.user is None or due_servers(now)[: size + 1].count() <= size:
        return None
    queue = JobQueue.objects.filter(name=job_result.celery_kwargs.get("queue")).first()
    # On Kubernetes each run is a pod, which starts before the commit of this transaction.
    if queue is None or queue.queue_type != JobQueueTypeChoices.TYPE_CELERY:
        return None
    # Without workers this is a run on a command line, without other processes.
    return queue if get_worker_count(queue=queue) else None


@transaction.atomic
def enqueue_shards(job_result: JobResult, queue: JobQueue, size: int, now: datetime) -> list[dict[str, Any]]:
    """Enqueue a run of the same Job for each shard of the due servers, by the same user.

    Queued and running shards of earlier runs keep their servers. Two runs can't divide at the same time.

    Returns:
        For each shard `job_result`, the id of its run, and `server_count`.
    """
    # Held until all shards exist, so that the next division sees them. Not FOR UPDATE, which would block other
    # JobResults.
    job = Job.objects.select_for_update(no_key=True).get(pk=job_result.job_model_id)
    due = due_servers(now)
    for shard in _unfinished(job, now):
        due = due.exclude(pk__range=(shard.first, shard.last))
    shards = []
    for shard, server_count in divided(list(due.values_list("pk", flat=True)), size, now):
        variables = {VARIABLE: str(shard)}
        run = JobResult.enqueue_job(
            job, job_result.user, job_queue=queue, job_kwargs=variables, celery_kwargs={"expires": QUEUED_SECONDS}
        )
        # A worker sets them at its start. Until then they have the queued shard.
        JobResult.objects.filter(pk=run.pk).update(task_kwargs=variables)
        shards.append({"job_result": str(run.pk), "server_count": server_count})
    return shards


def _unfinished(job: Job, now: datetime) -> Iterator[Shard]:
    """Return the queued and running shards. A run of a killed worker stays STARTED and counts for a limited time."""
    time_limit = job.time_limit or settings.CELERY_TASK_TIME_LIMIT
    latest = now + CLOCK_TOLERANCE
    queued = Q(date_started=None, date_created__range=(now - timedelta(seconds=QUEUED_SECONDS), latest))
    running = Q(date_started__range=(now - timedelta(seconds=time_limit), latest))
    runs = JobResult.objects.filter(queued | running, job_model=job, status__in=JobResultStatusChoices.UNREADY_STATES)
    for text in runs.filter(task_kwargs__has_key=VARIABLE).values_list(f"task_kwargs__{VARIABLE}", flat=True):
        if text:
            yield Shard.parse(text)
