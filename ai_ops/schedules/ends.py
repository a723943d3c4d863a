"""The end of schedules whose MCP server or retention policy is deleted: each of their runs would fail."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db import transaction
from django.db.models import Model
from django.utils import timezone
from nautobot.extras.models import ScheduledJob

from ai_ops.runs.findings import Findings
from ai_ops.runs.hold import Hold
from ai_ops.runs.logs import get_logger
from ai_ops.runs.supervisor_log import log_handled
from ai_ops.schedules.control import app_schedules
from ai_ops.schedules.subjects import SUBJECTS, missing_subjects

logger = get_logger(__name__)


def follow_subject(sender: Any, instance: Model, **_: Any) -> None:
    """End the schedules of an object that is deleted; receives `post_delete`."""
    _end_schedules(instance)


def end_without_subject(_hold: Hold | None = None) -> Findings:
    """End active schedules whose server or policy does not exist.

    Returns:
        Findings with the number of ended schedules as fixed.
    """
    ended = _end_schedules()
    for schedule in ended:
        age = max(timezone.now() - schedule.start_time, timedelta())
        log_handled(f'The schedule "{schedule.name}"', "active", age, "ended", grouping="schedules", about=schedule)
    return Findings(len(ended), len(ended))


def _end_schedules(deleted: Model | None = None) -> list[ScheduledJob]:
    """End active schedules of that object, or of all deleted objects; return them."""
    # One that waits for approval is not active; it ends when it becomes so.
    with_subject = app_schedules().filter(enabled=True, kwargs__has_any_keys=list(SUBJECTS))
    if not with_subject.exists():
        return []
    with transaction.atomic():
        missing = missing_subjects(with_subject)
        if deleted is not None:
            missing = {pk: each for pk, each in missing.items() if each.key == str(deleted.pk)}
        ended = list(with_subject.filter(pk__in=missing).select_for_update(of=("self",)))
        for schedule in ended:
            name = f' "{deleted}"' if deleted is not None else ""
            _end(schedule, f"its {missing[schedule.pk].subject.noun}{name} was deleted")
    return ended


def _end(schedule: ScheduledJob, reason: str) -> None:
    schedule.enabled = False
    schedule.description = f"{schedule.description}\n\nEnded: {reason}.".strip()
    schedule.save()
    logger.warning('The schedule "%s" ended: %s', schedule.name, reason, extra={"grouping": "schedules"})
