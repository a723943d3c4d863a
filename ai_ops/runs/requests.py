"""Requests for runs by button, REST or shell. The record is saved before `ai_ops.runs.delivery` sends the message."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models.functions import Now

from ai_ops.choices import RunStateChoices, RunTriggerChoices
from ai_ops.config import AiOpsSettings
from ai_ops.exceptions import NoWorkerError, RunConflictError, RunOptionsError
from ai_ops.models.runs import MaintenanceRun
from ai_ops.runs import approvals, records, transitions
from ai_ops.runs.context import RunRequest
from ai_ops.runs.dead_letters import is_dead_letter, redrive_of
from ai_ops.runs.delivery import celery_kwargs, has_worker, job_kwargs, messages, send_message
from ai_ops.runs.logs import get_logger
from ai_ops.runs.options import checked_options
from ai_ops.runs.permissions import runnable_job
from ai_ops.runs.service_user import service_user

logger = get_logger(__name__)

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
    if not has_worker(job.default_job_queue):
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
    with messages() as sent:
        try:
            with transaction.atomic():
                run.save(force_insert=True)
        except IntegrityError:
            if known := _run_of_key(owner, key, kind, stored):
                return known
            raise
        if not approvals.await_approval(run, job, job_kwargs(run, job), celery_kwargs(run, settings)):
            send_message(run, job, settings)
            sent.append(run)
    return run


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
        is_stopping = same.exclude(state__in=RunStateChoices.FINAL).update(cancel_requested=True)
        ended = transitions.interrupt(same, sentence)
        if ended and (schedule := approvals.schedule_of(run)):
            schedule.delete()
    run.refresh_from_db()
    if not is_stopping:
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
    with messages() as sent:
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
