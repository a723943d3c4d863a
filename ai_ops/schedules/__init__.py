"""Schedules of the maintenance Jobs: create, change, pause, remove and inspect them.

Scripts import the functions from here. They are loaded at their first use, so that `lateness` and `intervals`, which do
not use Django, can be imported without it.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "ai_ops.kinds": ("DEFAULT_SCHEDULES", "DefaultSchedule"),
    "ai_ops.runs.installed_jobs": ("find_job", "installed_job"),
    "ai_ops.runs.service_user": ("SERVICE_USER", "service_user"),
    "ai_ops.schedules.control": (
        "pause_schedule",
        "refresh_time_limits",
        "remove_schedule",
        "resume_schedule",
        "retime_schedule",
        "schedule_once",
        "schedule_runs",
    ),
    "ai_ops.schedules.ensure": ("ensure_schedule", "kind_of", "next_start", "shortest_gap"),
    "ai_ops.schedules.status": ("get_schedule_status", "get_scheduler_status", "is_scheduler_running"),
}


def __getattr__(name: str) -> Any:
    """Return a function or a constant of one of the modules."""
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(home), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
