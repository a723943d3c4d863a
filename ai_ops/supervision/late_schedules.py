"""Late schedules of this app, which have not started a due run."""

from __future__ import annotations

from django.core.cache import cache
from django.db.models.functions import Now
from django_redis.exceptions import ConnectionInterrupted
from redis.exceptions import RedisError

from ai_ops.runs.events import TOPIC_SCHEDULE_LATE, publish
from ai_ops.runs.findings import Findings
from ai_ops.runs.hold import Hold
from ai_ops.runs.logs import get_logger
from ai_ops.schedules.control import app_schedules
from ai_ops.schedules.lateness import ScheduleStatus
from ai_ops.schedules.status import statuses_of

logger = get_logger(__name__)

# A schedule that stays late causes another event after a day.
TOLD_SECONDS = 86_400


def warn_of_late(_hold: Hold) -> Findings:
    """Log one warning about late schedules, without starting them.

    Returns:
        Findings with the number of enabled schedules as checked, and of late schedules as unfixable.
    """
    enabled = app_schedules().filter(enabled=True)
    clock = enabled.annotate(clock=Now()).values_list("clock", flat=True).first()
    # This process is itself a worker. Asking for all workers would take a second of each minute.
    found = statuses_of(enabled, clock, ask_workers=False)
    late = [status for status in found if status.late]
    if late:
        logger.warning(
            "%d schedule(s) are late. %s",
            len(late),
            " ".join(f'"{status.name}": {status.why}' for status in late),
            extra={"grouping": "schedules"},
        )
        _publish_late_starts(late)
    return Findings(len(found), 0, len(late))


def _publish_late_starts(late: list[ScheduleStatus]) -> None:
    """Publish an event for each late start, once a day; none while the cache is unavailable."""
    for status in map(ScheduleStatus.as_dict, late):
        key = f"ai_ops.schedule_late.{status['id']}.{status['next_run']}"
        try:
            is_new = cache.add(key, True, TOLD_SECONDS)
        except (RedisError, ConnectionInterrupted) as error:
            logger.warning("Events about late schedules were not published: the cache is unavailable (%s)", error)
            return
        if is_new:
            names = ("id", "name", "kind", "next_run", "last_run", "last_outcome", "why", "queue", "owner")
            publish(TOPIC_SCHEDULE_LATE, {"schedule": {name: status[name] for name in names}})
