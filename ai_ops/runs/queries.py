"""The latest runs, for shells, and the runs that a user may see."""

from __future__ import annotations

from typing import Any

from django.db.models import Prefetch, Q, QuerySet
from nautobot.extras.models import JobResult

from ai_ops.logic.foreign_text import shown
from ai_ops.models.runs import MaintenanceRun

MAX_LIMIT = 1000


def get_recent_runs(limit: int = 10, runs: QuerySet | None = None) -> list[dict[str, Any]]:
    """Return the latest runs, newest first.

    Args:
        limit: Maximum number of runs, 1 to 1000.
        runs: The runs to choose from; all runs by default.

    Returns:
        For each run `id`, `name`, `kind`, `subject`, `trigger`, `state`, `owner` (user name or None), `attempt`,
        `max_attempts`, `created`, `started`, `finished` and `next_attempt` (ISO 8601, UTC, or None),
        `execution_time_ms`, `counters`, `error` (None or a sentence) and `job_result` (id, or None, also if
        Nautobot has deleted it).

    Raises:
        ValueError: The limit is out of its range.
    """
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MAX_LIMIT:
        raise ValueError(f"limit must be a whole number from 1 to {MAX_LIMIT}, not {shown(limit)}.")
    chosen = MaintenanceRun.objects.all() if runs is None else runs
    # Not joined, because a result may have megabytes and only its existence matters.
    results = Prefetch("job_result", JobResult.objects.only("pk"))
    return [_as_dict(run) for run in chosen.select_related("owner").prefetch_related(results)[:limit]]


def visible_to(user: Any, runs: QuerySet | None = None) -> QuerySet:
    """Return the runs in `runs` (all runs by default) that `user` owns or may view."""
    runs = MaintenanceRun.objects.all() if runs is None else runs
    if not user.is_authenticated or user.is_superuser:
        return runs.restrict(user, "view")
    viewed = MaintenanceRun.objects.restrict(user, "view").order_by()
    return runs.filter(Q(pk__in=viewed.values("pk")) | Q(owner=user))


def summary(run: MaintenanceRun) -> dict[str, Any]:
    """Return the fields of a run for shells and events. Its `owner` must be loaded."""
    return {
        "id": str(run.pk),
        "name": run.name,
        "kind": run.kind,
        "subject": run.subject,
        "trigger": run.trigger,
        "state": run.state,
        "owner": run.owner.username if run.owner else None,
        "attempt": run.attempt,
        "max_attempts": run.max_attempts,
        "error": run.error or None,
        "job_result": str(run.job_result.pk) if run.job_result else None,
    }


def _as_dict(run: MaintenanceRun) -> dict[str, Any]:
    times = {name: getattr(run, name) for name in ("created", "started", "finished", "next_attempt")}
    return summary(run) | {
        **{name: at.isoformat() if at else None for name, at in times.items()},
        "execution_time_ms": run.execution_time_ms,
        "counters": run.counters,
    }
