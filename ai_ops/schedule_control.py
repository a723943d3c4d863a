"""An old import path for users' scripts; the functions are in `ai_ops.schedules.control`."""

from ai_ops.schedules.control import (
    pause_schedule,
    refresh_time_limits,
    remove_schedule,
    resume_schedule,
    retime_schedule,
    schedule_once,
    schedule_runs,
)

__all__ = [
    "pause_schedule",
    "refresh_time_limits",
    "remove_schedule",
    "resume_schedule",
    "retime_schedule",
    "schedule_once",
    "schedule_runs",
]
