"""Batched writing of lines of a Job's log."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from celery import current_task
from celery.exceptions import SoftTimeLimitExceeded
from django.db import DatabaseError, InterfaceError, transaction
from nautobot.core.utils.logging import sanitize
from nautobot.extras.models import JobLogEntry, JobResult
from nautobot.extras.models import jobs as nautobot_jobs

from ai_ops.runs.database_outages import job_log_handlers


class _Gatherer(logging.Filter):
    """Collects the lines of a handler instead of writing them."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def filter(self, record: logging.LogRecord) -> bool:
        if not current_task or getattr(record, "skip_db_logging", False):
            return True
        self.records.append(record)
        return False


@contextmanager
def lines_together() -> Iterator[None]:
    """Insert the lines logged in this block with one statement at its end.

    Nautobot reads the JobResult and commits a row for each line, which takes a fifth of the time of a flip. Lines are
    not collected outside a Job, for a Job that shows its console, and while the database is unavailable.
    """
    job_result = _own_job_result()
    if job_result is None or job_result.celery_kwargs.get("nautobot_job_console_log"):
        yield
        return
    gatherers = {handler: _Gatherer() for handler in job_log_handlers()}
    try:
        # After the guard, which withholds lines that the database can't take.
        for handler, gatherer in gatherers.items():
            handler.addFilter(gatherer)
        yield
    finally:
        # Remove all collectors first. A collector left behind by the time limit would collect the lines of later Jobs.
        for handler, gatherer in gatherers.items():
            handler.removeFilter(gatherer)
        for handler, gatherer in gatherers.items():
            if gatherer.records:
                _insert(job_result, gatherer.records, handler)


def _own_job_result() -> JobResult | None:
    if not current_task or not current_task.request.id:
        return None
    try:
        return JobResult.objects.filter(pk=current_task.request.id).first()
    except (DatabaseError, InterfaceError):
        # Completed work must not fail because of its log. `LogGuard` handles the lines one by one.
        return None


def _insert(job_result: JobResult, records: Sequence[logging.LogRecord], handler: logging.Handler) -> None:
    # The same connection as Nautobot uses. Lines stay if a transaction of the run is rolled back.
    rows = JobLogEntry.objects.using(nautobot_jobs.JOB_LOGS if job_result.use_job_logs_db else None)
    try:
        with transaction.atomic(using=rows.db):
            rows.bulk_create([_entry(job_result, record) for record in records])
    except SoftTimeLimitExceeded:
        raise
    except Exception:
        # An invalid line must not stop the others or the run. Nautobot's handler writes each line separately and raises
        # no error.
        for record in records:
            handler.handle(record)


def _entry(job_result: JobResult, record: logging.LogRecord) -> JobLogEntry:
    """Return the row that Nautobot's ``JobResult.log`` would save for a line."""
    about = getattr(record, "object", None)
    entry = JobLogEntry(
        job_result=job_result,
        log_level=record.levelname.lower(),
        message=sanitize(record.getMessage()),
        created=datetime.fromtimestamp(record.created, UTC),
    )
    texts = {
        "grouping": getattr(record, "grouping", record.funcName),
        "log_object": str(about) if about else "",
        "absolute_url": about.get_absolute_url() if about is not None and hasattr(about, "get_absolute_url") else "",
    }
    for name, text in texts.items():
        setattr(entry, name, text[: JobLogEntry._meta.get_field(name).max_length])
    return entry
