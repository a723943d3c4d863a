"""Time limits in the messages of schedules: they follow the Job and the settings.

In Nautobot itself, a schedule keeps the limits that its Job had when the schedule was created.
"""

from __future__ import annotations

from typing import Any

from nautobot.extras.models import ScheduledJob

from ai_ops.config import AiOpsSettings
from ai_ops.kinds import kind_of_job
from ai_ops.runs.context import LIMIT_PROPERTY
from ai_ops.runs.time_limit import limit_of, message_limits

# Nautobot's limits in a message. The own limit of a schedule is another entry.
FOLLOWING_LIMITS = ("soft_time_limit", "time_limit")


def limits_in(messages: Any) -> dict[str, Any]:
    """Return the limits in the `celery_kwargs` of a schedule."""
    return {name: messages[name] for name in FOLLOWING_LIMITS if name in messages} if isinstance(messages, dict) else {}


def limits_for(schedule: ScheduledJob, settings: AiOpsSettings) -> dict[str, Any]:
    """Return the limits for `schedule`: its own, otherwise those of the settings, otherwise those of the Job."""
    of_job = {name: getattr(schedule.job_model, name, 0) for name in FOLLOWING_LIMITS}
    own = schedule.celery_kwargs.get(LIMIT_PROPERTY)
    limit = limit_of(kind_of_job(schedule.task, schedule.kwargs), own, settings)
    return {name: seconds for name, seconds in of_job.items() if seconds > 0} | message_limits(limit)


def take_over_limits(schedule: ScheduledJob, settings: AiOpsSettings) -> None:
    """Set the limits of `schedule` to those of `limits_for`."""
    others = {name: value for name, value in schedule.celery_kwargs.items() if name not in FOLLOWING_LIMITS}
    schedule.celery_kwargs = others | limits_for(schedule, settings)
