"""Time limits in the messages of schedules: they follow the Job and the settings.

Nautobot leaves a schedule those that its Job had on the day it was made.
"""

from __future__ import annotations

from typing import Any

from nautobot.extras.models import ScheduledJob

from ai_ops.config import AiOpsSettings
from ai_ops.kinds import kind_of_job
from ai_ops.runs.context import LIMIT_PROPERTY
from ai_ops.runs.time_limit import limit_of, message_limits

# Nautobot's limits in a message. A limit that the schedule has of its own is another entry.
FOLLOWING_LIMITS = ("soft_time_limit", "time_limit")


def limits_in(messages: Any) -> dict[str, Any]:
    """Return the limits in the `celery_kwargs` of a schedule."""
    return {name: messages[name] for name in FOLLOWING_LIMITS if name in messages} if isinstance(messages, dict) else {}


def limits_for(schedule: ScheduledJob, settings: AiOpsSettings) -> dict[str, Any]:
    """Return the limits that `schedule` should have: its own, else those of the settings, else the Job's."""
    of_job = {name: getattr(schedule.job_model, name, 0) for name in FOLLOWING_LIMITS}
    own = schedule.celery_kwargs.get(LIMIT_PROPERTY)
    limit = limit_of(kind_of_job(schedule.task, schedule.kwargs), own, settings)
    return {name: seconds for name, seconds in of_job.items() if seconds > 0} | message_limits(limit)


def take_over_limits(schedule: ScheduledJob, settings: AiOpsSettings) -> None:
    """Set the limits that `schedule` should have."""
    others = {name: value for name, value in schedule.celery_kwargs.items() if name not in FOLLOWING_LIMITS}
    schedule.celery_kwargs = others | limits_for(schedule, settings)
