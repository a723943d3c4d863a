"""An old import path for users' scripts; the functions are in `ai_ops.schedules.status`."""

from ai_ops.schedules.status import get_schedule_status, get_scheduler_status, is_scheduler_running

__all__ = ["get_schedule_status", "get_scheduler_status", "is_scheduler_running"]
