"""Schedules of this app that are late: what should have started a run, and has not."""

from __future__ import annotations

from django.db.models.functions import Now

from ai_ops.core.runs import Hold
from ai_ops.core.supervision import Findings
from ai_ops.logs import get_logger
from ai_ops.schedule_control import app_schedules
from ai_ops.schedule_status import get_schedule_status

logger = get_logger(__name__)


def warn_of_late(_hold: Hold) -> Findings:
    """Warn, in one line, of schedules that should have started something and have not. Nothing is started here.

    Returns:
        Schedules that are enabled, and as unfixable those that are late.
    """
    enabled = app_schedules().filter(enabled=True)
    clock = enabled.annotate(clock=Now()).values_list("clock", flat=True).first()
    # Whoever runs this is a worker: asking for all of them would take a second of each minute.
    found = get_schedule_status(enabled, clock, ask_workers=False)
    late = [status for status in found if status["late"]]
    if late:
        logger.warning(
            "%d schedule(s) are late. %s",
            len(late),
            " ".join(f'"{status["name"]}": {status["why"]}' for status in late),
            extra={"grouping": "schedules"},
        )
    return Findings(len(found), 0, len(late))
