"""Requests for runs by button, REST or shell, and retries. The record is saved before the message is sent.

A message may be lost with its broker, and may be delivered twice. So a pending run has a due time, which is postponed
when its message is sent. If the due time has passed, the supervisor sends another message. Only one of two messages
starts the run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from django.contrib.auth import get_user_model
from django.core.cache import cache
from django.db import IntegrityError, transaction
from django.db.models.functions import Now
from django_redis.exceptions import ConnectionInterrupted
from kombu.exceptions import OperationalError as BrokerError
from nautobot.apps.utils import construct_cache_key
from nautobot.extras.choices import JobQueueTypeChoices, JobResultStatusChoices
from nautobot.extras.models import Job, JobQueue, JobResult
from nautobot.extras.utils import get_celery_queues, get_worker_count
from redis.exceptions import RedisError

from ai_ops.choices import RunStateChoices, RunTriggerChoices
from ai_ops.config import AiOpsSettings
from ai_ops.exceptions import NoWorkerError, RunConflictError, RunNotPermittedError, RunOptionsError, RunRefusedError
from ai_ops.kinds import KINDS, class_path_of
from ai_ops.models.runs import MaintenanceRun
from ai_ops.runs import approvals, records, transitions
from ai_ops.runs.clock import from_now
from ai_ops.runs.context import LIMIT_PROPERTY, RUN_PROPERTY, RunRequest
from ai_ops.runs.dead_letters import is_dead_letter, redrive_of
from ai_ops.runs.installed_jobs import find_job
from ai_ops.runs.logs import get_logger
from ai_ops.runs.options import TIME_LIMIT, checked_options, job_variables
from ai_ops.runs.retries import REDELIVERY_GRACE_SECONDS
from ai_ops.runs.service_user import service_user
from ai_ops.runs.time_limit import limit_of, message_limits

logger = get_logger(__name__)

REDELIVERY_GRACE = timedelta(seconds=REDELIVERY_GRACE_SECONDS)
# If the broker was unavailable, the supervisor's next pass retries.
RESEND_AFTER = timedelta(minutes=1)
# Asking Celery for its workers takes a second. A worker that answered a minute ago is assumed to run.
WORKER_SEEN_SECONDS = 60
# The name in the record of a run that was cancelled or discarded without a login.
A_SHELL = "a user of a shell"
SHARD = "shard"
KEY_LENGTH = MaintenanceRun._meta.get_field("idempotency_key").max_length


def request_run(
    kind: str,
    options: Mapping[str, Any] | None = None,
    user: Any = None,
    *,
    idempotency_key: str | None = None,
    trigger: str = RunTriggerChoices.REST,
    parent: MaintenanceRun | None = None,
) -> MaintenanceRun:
    """Record a run and send its message to a Celery worker.

    Args:
        kind: One of `ai_ops.kinds.KINDS`.
        options: Options by name; the run uses the configured values of omitted options.
        user: The user of the request and of the run; None for the app's service user, which has permission for all
            runs.
        idempotency_key: Repeated requests of a user with the same key return the same run.
        trigger: One of `RunTriggerChoices`.
        parent: The run of which this run is a redrive.

    Returns:
        The run. If an approval workflow applies, it has no `job_result` and waits for approval; see
        `approvals.schedule_of`.

    Raises:
        RunOptionsError: There is no such kind or option, or a value is not valid.
        RunConflictError: The key belongs to a run of another kind or with other options.
        RunRefusedError: The run was refused; the message has the reason and the advice.
    """
    stored = checked_options(kind, options, user)
    key = _checked_key(idempotency_key)
    owner = user or service_user()
    if known := _run_of_key(owner, key, kind, stored):
        return known
    job = runnable_job(kind, user)
    if not _has_worker(job.default_job_queue):
        raise NoWorkerError(
            f'No Celery worker listens to the queue "{job.default_job_queue.name}": start a worker, and try again.'
        )
    settings = AiOpsSettings.load()
    # Without a due time until its message is created or it is approved, so that no other process starts it.
    run = records.new_record(
        kind,
        stored.get("server", ""),
        stored,
        RunRequest(trigger, owner, parent_id=parent and parent.pk),
        idempotency_key=key,
        max_attempts=settings.max_attempts,
    )
    with _messages() as sent:
        try:
            with transaction.atomic():
                run.save(force_insert=True)
        except IntegrityError:
            if known := _run_of_key(owner, key, kind, stored):
                return known
            raise
        if not approvals.await_approval(run, job, _job_kwargs(run, job), _celery_kwargs(run, settings)):
            _send(run, job, settings)
            sent.append(run)
    return run


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
    listened = _has_worker(job.default_job_queue)
    with _messages() as sent:
        if not _claim(run) or not listened:
            return None
        sent.append(run)
        return _send(run, job, settings or AiOpsSettings.load())


def cancel_run(run: MaintenanceRun, user: Any = None) -> MaintenanceRun:
    """Cancel a run. A pending run ends; a running run stops within a third of its lease.

    Args:
        run: A run; its current state is read.
        user: The user of the cancellation, for its record; None from a shell.

    Raises:
        RunConflictError: The run has already ended.
    """
    sentence = f"The run was cancelled by {user or A_SHELL}."
    same = MaintenanceRun.objects.filter(pk=run.pk)
    with transaction.atomic():
        # Request the stop first, so that the run stops if it starts in between.
        told = same.exclude(state__in=RunStateChoices.FINAL).update(cancel_requested=True)
        ended = transitions.interrupt(same, sentence)
        if ended and (schedule := approvals.schedule_of(run)):
            schedule.delete()
    run.refresh_from_db()
    if not told:
        raise RunConflictError(f"{run} is {run.state} already, so there is nothing to cancel.")
    return run


def redrive_run(run: MaintenanceRun, user: Any = None) -> MaintenanceRun:
    """Request the work of a dead run again, as a new run with the same options.

    Args:
        run: A dead run.
        user: The user of the request and of the new run; None for the app's service user.

    Returns:
        The new run, whose parent is `run`.

    Raises:
        RunConflictError: The run is not dead, or was already discarded or redriven.
        RunRefusedError: The run was refused; the message has the reason and the advice.
    """
    with _messages() as sent:
        # If two users press the button at the same time, the second gets the error with the run of the first.
        dead = MaintenanceRun.objects.select_for_update().get(pk=run.pk)
        _confirm_dead_letter(dead)
        child = request_run(dead.kind, dead.options, user, trigger=RunTriggerChoices.REDRIVE, parent=dead)
        if child.job_result:
            sent.append(child)
        return child


def repeat_run(run: MaintenanceRun, user: Any = None, **changes: Any) -> MaintenanceRun:
    """Request the same work again, as a new run with the same options.

    Args:
        run: A run that has ended.
        user: The user of the request and of the new run; None for the app's service user.
        **changes: Options that differ from those of `run`, such as ``dryrun=False``.

    Returns:
        The new run, whose parent is `run`.

    Raises:
        RunConflictError: The run has not ended, or is a dead letter, which can only be redriven or discarded.
        RunRefusedError: The run was refused; the message has the reason and the advice.
    """
    run.refresh_from_db()
    if not run.is_final:
        raise RunConflictError(f"{run} is {run.state}: only a run that has ended can be run again.")
    if is_dead_letter(run):
        raise RunConflictError(f"{run} is a dead letter: redrive it, or discard it.")
    # A shard has the servers that were due when the fleet was divided. They need not be due now.
    options = {name: value for name, value in run.options.items() if name != SHARD} | changes
    return request_run(run.kind, options, user, trigger=RunTriggerChoices.JOB, parent=run)


def discard_run(run: MaintenanceRun, user: Any = None) -> MaintenanceRun:
    """Discard a dead run: it stays dead, but is no longer a dead letter.

    Args:
        run: A dead run.
        user: The user of the decision, for its record; None from a shell.

    Raises:
        RunConflictError: The run is not dead, or was already discarded or redriven.
    """
    sentence = f"It was discarded by {user or A_SHELL}."
    same = MaintenanceRun.objects.filter(pk=run.pk)
    with transaction.atomic():
        dead = same.select_for_update().get()
        _confirm_dead_letter(dead)
        same.update(discarded=Now(), error=f"{dead.error} {sentence}".strip())
    run.refresh_from_db()
    logger.info("%s: %s", run, sentence)
    return run


def _confirm_dead_letter(run: MaintenanceRun) -> None:
    if run.state != RunStateChoices.DEAD:
        raise RunConflictError(f"{run} is {run.state}: only a dead run can be redriven or discarded.")
    if run.discarded:
        raise RunConflictError(f"{run} was discarded on {run.discarded:%Y-%m-%d %H:%M} UTC.")
    if child := redrive_of(run):
        raise RunConflictError(f"{run} was already redriven: see {child}, which is {child.state}.")


def may_run(kind: str, user: Any) -> bool:
    """Return whether `user` may run the Job of a kind."""
    job = find_job(kind)
    return job is not None and Job.objects.check_perms(user, instance=job, action="run")


def runnable_kinds(user: Any) -> set[str]:
    """Return the kinds whose Jobs `user` may run, from one query for all."""
    permitted = Job.objects.restrict(user, "run").filter(installed=True).order_by()
    paths = {f"{module}.{name}" for module, name in permitted.values_list("module_name", "job_class_name")}
    return {kind for kind in KINDS if class_path_of(kind) in paths}


def runnable_job(kind: str, user: Any) -> Job:
    """Return the Job of a kind if it can be run, by `user` if given.

    Raises:
        RunRefusedError: It can't be run; the message has the reason and the advice.
    """
    job = find_job(kind)
    if job is None or job.job_class is None:
        raise RunRefusedError(f"The Job {class_path_of(kind)} is not installed: run nautobot-server post_upgrade.")
    if user is not None and not Job.objects.check_perms(user, instance=job, action="run"):
        raise RunNotPermittedError(f'You may not run the Job "{job}": ask for the permission to run it.')
    if not job.enabled:
        raise RunRefusedError(f'The Job "{job}" is disabled: enable it on its page under Jobs.')
    return job


def _checked_key(key: str | None) -> str | None:
    if key is None:
        return None
    if not key.strip() or len(key) > KEY_LENGTH or not key.isprintable():
        raise RunOptionsError(f"An idempotency key must have 1 to {KEY_LENGTH} printable characters, such as a UUID.")
    return key


def _run_of_key(owner: Any, key: str | None, kind: str, options: Mapping[str, Any]) -> MaintenanceRun | None:
    """Return the run that was requested with an idempotency key.

    Raises:
        RunConflictError: The run is of another kind or has other options.
    """
    run = key and MaintenanceRun.objects.filter(owner=owner, idempotency_key=key).first()
    if not run:
        return None
    if (run.kind, run.options) != (kind, dict(options)):
        raise RunConflictError(
            f"This idempotency key belongs to {run}, which has another kind or other options: give a new key."
        )
    return run


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


def _send(run: MaintenanceRun, job: Job, settings: AiOpsSettings) -> JobResult:
    """Create the JobResult of a message, which is sent after the commit."""
    run.job_result = JobResult.enqueue_job(
        job,
        run.owner,
        job_queue=job.default_job_queue,
        job_kwargs=_job_kwargs(run, job),
        celery_kwargs=_celery_kwargs(run, settings),
    )
    same = MaintenanceRun.objects.filter(pk=run.pk)
    same.update(job_result=run.job_result, next_attempt=from_now(REDELIVERY_GRACE))
    run.refresh_from_db(fields=["next_attempt"])
    return run.job_result


@contextmanager
def _messages() -> Iterator[list[MaintenanceRun]]:
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


def _job_kwargs(run: MaintenanceRun, job: Job) -> dict[str, Any]:
    return job.job_class.serialize_data(job_variables(run.kind, run.options))


def _celery_kwargs(run: MaintenanceRun, settings: AiOpsSettings) -> dict[str, Any]:
    own = run.options.get(TIME_LIMIT)
    properties = {RUN_PROPERTY: str(run.pk)} | ({LIMIT_PROPERTY: own} if own else {})
    return properties | message_limits(limit_of(run.kind, own, settings))


def _has_worker(queue: JobQueue) -> bool:
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
