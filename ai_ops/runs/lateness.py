"""Schedules of this app that are late: beat should have started them, and has not."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from celery.utils.log import get_task_logger
from django.db.models import Max
from django.db.models.functions import Now
from nautobot.extras.models import JobResult, ScheduledJob

from ai_ops.core.runs import Hold
from ai_ops.core.supervision import Findings
from ai_ops.runs.rescue import JOBS_MODULE
from ai_ops.schedules import next_start

logger = get_task_logger(__name__)

# Beat writes down every three minutes what it has started, and may be restarted in between.
GRACE = timedelta(minutes=5)


def warn_of_late(_hold: Hold) -> Findings:
    """Warn, in one line, of schedules that should have started something and have not. Nothing is started here.

    Returns:
        Schedules that are enabled, and as unfixable those that are late.
    """
    schedules = ScheduledJob.objects.filter(enabled=True, job_model__module_name__startswith=JOBS_MODULE)
    enabled = list(schedules.annotate(clock=Now()))
    late = _late(enabled)
    if late:
        logger.warning(
            "%d schedule(s) are late: %s. See whether Celery beat is running.",
            len(late),
            ", ".join(f'"{schedule.name}" was due at {due:%Y-%m-%d %H:%M} UTC' for schedule, due in late),
            extra={"grouping": "schedules"},
        )
    return Findings(len(enabled), 0, len(late))


def _late(schedules: Iterable[ScheduledJob]) -> list[tuple[ScheduledJob, datetime]]:
    """Those of the schedules, which have the database's time as `clock`, that are late, each with when it was due."""
    candidates = [(each, due) for each in schedules if (due := _overdue(each, each.last_run_at))]
    if not candidates:
        return []
    # What was started a moment ago may not be written down with the schedule yet.
    results = JobResult.objects.filter(scheduled_job__in=[each.pk for each, _ in candidates])
    newest = dict(results.order_by().values_list("scheduled_job").annotate(Max("date_created")))
    return [(each, due) for each, _ in candidates if (due := _overdue(each, newest.get(each.pk) or each.last_run_at))]


def _overdue(schedule: ScheduledJob, last: datetime | None) -> datetime | None:
    """When a schedule that was last started at `last` was due; None if it is not late."""
    due = next_start(schedule, last)
    return due.astimezone(UTC) if due is not None and schedule.clock > due + GRACE else None
