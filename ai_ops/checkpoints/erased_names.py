"""Names of erased threads in Nautobot's database: look-up in the records, and concealment elsewhere."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

from django.db import Error as DatabaseError
from nautobot.extras.models import JobResult, ScheduledJob

from ai_ops.checkpoints.logic.erasure import concealed
from ai_ops.choices import MaintenanceKindChoices
from ai_ops.logic.globs import compiled
from ai_ops.models import ThreadErasure
from ai_ops.models.runs import MaintenanceRun
from ai_ops.runs.approvals import schedule_of
from ai_ops.runs.logs import get_logger

logger = get_logger(__name__)

# Number of records that a search reads for erased threads.
SEARCHED_RECORDS = 200


def erased_names(pattern: str) -> list[str]:
    """Return the ids of recently erased threads that match a glob, except concealed ones."""
    matches = compiled(pattern).match
    records = ThreadErasure.objects.filter(is_hashed=False, finished__isnull=False)[:SEARCHED_RECORDS]
    names = (str(name) for record in records for name in record.thread_ids)
    return list(dict.fromkeys(name for name in names if matches(name)))


def conceal_options(run_id: uuid.UUID | None) -> None:
    """Conceal the names in the options of a run and of the runs that it redrives.

    The names are needed until the run has ended, since it may be retried.
    """
    with _failures_logged():
        _conceal_runs(run_id)


def _conceal_runs(run_id: uuid.UUID | None) -> None:
    while run_id is not None:
        run = MaintenanceRun.objects.filter(pk=run_id, kind=MaintenanceKindChoices.ERASURE).first()
        if run is None:
            return
        MaintenanceRun.objects.filter(pk=run.pk).update(options=concealed(run.options))
        # A killed worker left its arguments unchanged.
        for result in JobResult.objects.filter(
            pk__in=[each["job_result"] for each in run.attempts if each.get("job_result")]
        ):
            JobResult.objects.filter(pk=result.pk).update(task_kwargs=concealed(result.task_kwargs))
        # The schedule of its approval, even if the supervisor sent the message.
        if (schedule := schedule_of(run)) is not None:
            _conceal_schedule(schedule)
        run_id = run.parent_id


def conceal_arguments(job_result: JobResult, arguments: MutableMapping[str, Any]) -> None:
    """Conceal the names in the arguments of a Job, and in the schedule of its approval.

    Args:
        job_result: The Job's result.
        arguments: The arguments of the current message. Celery writes them into the result again at its end.
    """
    arguments.update(concealed(arguments))
    with _failures_logged():
        _conceal_result(job_result)


def _conceal_result(job_result: JobResult) -> None:
    JobResult.objects.filter(pk=job_result.pk).update(task_kwargs=concealed(job_result.task_kwargs))
    # A schedule with further runs needs the names.
    for schedule in ScheduledJob.objects.filter(pk=job_result.scheduled_job_id, one_off=True):
        _conceal_schedule(schedule)


def _conceal_schedule(schedule: ScheduledJob) -> None:
    # An update instead of a save, which would add the names to Nautobot's change log.
    ScheduledJob.objects.filter(pk=schedule.pk).update(kwargs=concealed(schedule.kwargs))


@contextmanager
def _failures_logged() -> Iterator[None]:
    """Log a failure of the database without raising it, because the erasure itself is done."""
    try:
        yield
    except DatabaseError as error:
        # Its text may contain the row with the names.
        logger.warning(
            "The names in a run or a Job result could not be replaced by their SHA-256: the database failed (%s)",
            type(error).__name__,
        )
