"""Schedules of the maintenance Jobs: made, changed, paused, removed, and looked at."""

from ai_ops.kinds import DEFAULT_SCHEDULES, DefaultSchedule, find_job
from ai_ops.runs.service_user import SERVICE_USER, service_user
from ai_ops.schedules.control import (
    pause_schedule,
    refresh_time_limits,
    remove_schedule,
    resume_schedule,
    retime_schedule,
    schedule_once,
    schedule_runs,
)
from ai_ops.schedules.ensure import ensure_schedule, kind_of, next_start, shortest_gap
from ai_ops.schedules.status import get_schedule_status, get_scheduler_status, is_scheduler_running

__all__ = [
    "DEFAULT_SCHEDULES",
    "SERVICE_USER",
    "DefaultSchedule",
    "ensure_schedule",
    "find_job",
    "get_schedule_status",
    "get_scheduler_status",
    "is_scheduler_running",
    "kind_of",
    "next_start",
    "pause_schedule",
    "refresh_time_limits",
    "remove_schedule",
    "resume_schedule",
    "retime_schedule",
    "schedule_once",
    "schedule_runs",
    "service_user",
    "shortest_gap",
]
