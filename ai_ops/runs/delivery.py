"""Delivery of runs to Celery workers: their messages, and further messages for lost ones and for retries.

A message may be lost with its broker, and may be delivered twice. So a pending run has a due time, which is postponed
when its message is sent. If the due time has passed, the supervisor sends another message. Only one of two messages
starts the run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from django.contrib.auth import get_user_model
from django.core.cache import cache
from django.db import transaction
from django_redis.exceptions import ConnectionInterrupted
from kombu.exceptions import OperationalError as BrokerError
from nautobot.apps.utils import construct_cache_key
from nautobot.extras.choices import JobQueueTypeChoices, JobResultStatusChoices
from nautobot.extras.models import Job, JobQueue, JobResult
from nautobot.extras.utils import get_celery_queues, get_worker_count
from redis.exceptions import RedisError

from ai_ops.choices import RunStateChoices
from ai_ops.config import AiOpsSettings
from ai_ops.exceptions import RunNotPermittedError, RunRefusedError
from ai_ops.kinds import KINDS
from ai_ops.models.runs import MaintenanceRun
from ai_ops.runs import transitions
from ai_ops.runs.clock import from_now
from ai_ops.runs.context import LIMIT_PROPERTY, RUN_PROPERTY
from ai_ops.runs.logs import get_logger
from ai_ops.runs.options import TIME_LIMIT, job_variables
from ai_ops.runs.permissions import runnable_job
from ai_ops.runs.service_user import service_user
from ai_ops.runs.time_limit import limit_of, message_limits

logger = get_logger(__name__)

# Time until the second message of a run is sent, longer than messages usually wait in a queue.
REDELIVERY_GRACE = timedelta(minutes=15)
# If the broker was unavailable, the supervisor's next pass retries.
RESEND_AFTER = timedelta(minutes=1)
# Asking Celery for its workers takes a second. A worker that answered a minute ago is assumed to run.
WORKER_SEEN_SECONDS = 60


def enqueue(run: MaintenanceRun, settings: AiOpsSettings | None = None) -> JobResult | None:
    """Send the message of a due pending run, such as the next attempt of a failed run.

    A run that may no longer start becomes dead, with the reason in a sentence: if its owner was deleted, is inactive or
    lacks the permission to run the Job, if its Job is disabled or missing, or if its last Job failed before it started.

    Args:
        run: The run as it was read. If it has changed since, another process handles it and this call does nothing.
        settings: The settings, if the caller has already read them.

    Returns:
        The JobResult of the new message; None if no message was sent.
    """
    # A run that waits for approval has no due time.
    if run.state != RunStateChoices.PENDING or run.next_attempt is None:
        return None
    if run.cancel_requested:
        transitions.end(run, RunStateChoices.INTERRUPTED, error="The run was cancelled.", next_attempt=None)
        return None
    try:
        job = _job_for_another_try(run)
    except RunRefusedError as refusal:
        transitions.end(run, RunStateChoices.DEAD, error=str(refusal), next_attempt=None)
        logger.error("%s is dead: %s", run, refusal, extra={"grouping": "run"})
        return None
    # Without workers messages would accumulate. The run is due again after a pause.
    listened = has_worker(job.default_job_queue)
    with messages() as sent:
        if not _claim(run) or not listened:
            return None
        sent.append(run)
        return send_message(run, job, settings or AiOpsSettings.load())


def _job_for_another_try(run: MaintenanceRun) -> Job:
    """Return the Job of `run` if its owner may still run it and Nautobot did not refuse its last message."""
    if run.kind not in KINDS:
        raise RunRefusedError(f"A run of kind {run.kind} can't be started again: the next run does its work.")
    owner = run.owner
    if owner is None:
        raise RunRefusedError("Its owner was deleted: a user who may run the Job can redrive it.")
    # The service user is inactive and has no permissions by design, and no other user may run as it.
    if owner != service_user():
        # The object that was read with the run has cached permissions.
        owner = get_user_model().objects.get(pk=owner.pk)
        if not owner.is_active:
            raise RunRefusedError(f"Its owner {owner} is inactive: a user who may run the Job can redrive it.")
    try:
        job = runnable_job(run.kind, None if owner == service_user() else owner)
    except RunNotPermittedError:
        raise RunRefusedError(f"Its owner {owner} may no longer run the Job: another user may redrive it.") from None
    if _failed_before_it_began(run):
        raise RunRefusedError(f"Its Job failed before the work started: see the log of {run.job_result}.")
    return job


def _failed_before_it_began(run: MaintenanceRun) -> bool:
    result = run.job_result
    begun = {each.get("job_result") for each in run.attempts}
    return result is not None and result.status == JobResultStatusChoices.STATUS_FAILURE and str(result.pk) not in begun


def _claim(run: MaintenanceRun) -> bool:
    """Postpone the due time of the run; return False if the run has changed since it was read."""
    seen = MaintenanceRun.objects.filter(pk=run.pk, state=run.state, next_attempt=run.next_attempt, fence=run.fence)
    return bool(seen.update(next_attempt=from_now(REDELIVERY_GRACE)))


def send_message(run: MaintenanceRun, job: Job, settings: AiOpsSettings) -> JobResult:
    """Create the JobResult of a message, which is sent after the commit."""
    run.job_result = JobResult.enqueue_job(
        job,
        run.owner,
        job_queue=job.default_job_queue,
        job_kwargs=job_kwargs(run, job),
        celery_kwargs=celery_kwargs(run, settings),
    )
    same = MaintenanceRun.objects.filter(pk=run.pk)
    same.update(job_result=run.job_result, next_attempt=from_now(REDELIVERY_GRACE))
    run.refresh_from_db(fields=["next_attempt"])
    return run.job_result


@contextmanager
def messages() -> Iterator[list[MaintenanceRun]]:
    """Open a transaction, and send the messages of the collected runs after its commit.

    If the broker is unavailable, the runs stay pending and are due again soon.
    """
    runs: list[MaintenanceRun] = []
    try:
        with transaction.atomic():
            yield runs
    except (BrokerError, RedisError) as error:
        # Only the code after the commit uses the broker.
        logger.warning("Messages of runs were not sent (%s): they will be sent later", error)
        for run in runs:
            pending = MaintenanceRun.objects.filter(pk=run.pk, state=RunStateChoices.PENDING)
            pending.update(next_attempt=from_now(RESEND_AFTER))
            run.refresh_from_db(fields=["next_attempt"])


def job_kwargs(run: MaintenanceRun, job: Job) -> dict[str, Any]:
    """Return the variables of the Job of `run` as its message has them."""
    return job.job_class.serialize_data(job_variables(run.kind, run.options))


def celery_kwargs(run: MaintenanceRun, settings: AiOpsSettings) -> dict[str, Any]:
    """Return the properties of the message of `run`: its id and its time limits."""
    own = run.options.get(TIME_LIMIT)
    properties = {RUN_PROPERTY: str(run.pk)} | ({LIMIT_PROPERTY: own} if own else {})
    return properties | message_limits(limit_of(run.kind, own, settings))


def has_worker(queue: JobQueue) -> bool:
    """Return whether a worker listens to `queue`; True if the broker is unavailable."""
    if queue.queue_type != JobQueueTypeChoices.TYPE_CELERY:
        return True
    key = f"ai_ops.worker_seen.{queue.name}"
    # If Nautobot has asked in the last seconds, its answer is newer.
    just_asked = construct_cache_key(get_celery_queues, branch_aware=False)
    try:
        if cache.get(just_asked) is None and cache.get(key):
            return True
        if not get_worker_count(queue=queue):
            return False
        cache.set(key, True, WORKER_SEEN_SECONDS)
    except (BrokerError, RedisError, ConnectionInterrupted) as error:
        logger.warning("Celery did not answer the question for its workers: %s", error)
    return True
