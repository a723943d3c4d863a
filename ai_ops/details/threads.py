"""The page "Threads": the explanation of one thread, or the result of a search in the background."""

from __future__ import annotations

from typing import Any

from django.db.models import Q
from nautobot.apps.utils import is_uuid

from ai_ops.celery_tasks import explain_thread
from ai_ops.checkpoints.logic.erasure import hashed
from ai_ops.checkpoints.logic.search import ERASED, SHOWN_THREADS, state_of
from ai_ops.choices import MaintenanceKindChoices, RunStateChoices
from ai_ops.models import MaintenanceRun, ThreadErasure
from ai_ops.runs.permissions import may_run

ERASE = "ai_ops.add_threaderasure"
SHOWN_CHECKPOINTS = 200
SHOWN_ERASURES = 3
SHOWN_SEARCHES = 5


def permissions_of(user: Any) -> dict[str, bool]:
    """Return which of the page's buttons the user may press."""
    return {
        "may_pin": user.has_perm("ai_ops.add_pinnedthread"),
        "may_erase": user.has_perm(ERASE) and may_run(MaintenanceKindChoices.ERASURE, user),
        "may_search": may_run(MaintenanceKindChoices.SEARCH, user),
    }


def explained(user: Any, thread_id: str) -> dict[str, Any]:
    """Return the content of the page for one thread."""
    found, erasures = explain_thread(thread_id), _erasures(user, thread_id)
    return {
        "found": found,
        "checkpoint_count": sum(len(space["checkpoints"]) for space in found["namespaces"]),
        "shown_checkpoints": SHOWN_CHECKPOINTS,
        "state": _state(found, bool(erasures)),
        "erasures": erasures,
    }


def searches(user: Any) -> list[MaintenanceRun]:
    """Return the last searches of the user."""
    mine = MaintenanceRun.objects.filter(kind=MaintenanceKindChoices.SEARCH, owner=user)
    return list(mine.defer("attempts", "errors")[:SHOWN_SEARCHES])


def searched(user: Any, run_id: str) -> dict[str, Any] | None:
    """Return the content of the page for a search; None if there is no such search that the user may view."""
    visible = Q(owner=user) | Q(pk__in=MaintenanceRun.objects.restrict(user, "view").values("pk"))
    runs = MaintenanceRun.objects.filter(visible, kind=MaintenanceKindChoices.SEARCH)
    run = runs.filter(pk=run_id).first() if is_uuid(run_id) else None
    if run is None:
        return None
    context: dict[str, Any] = {"search": run, "pattern": run.options.get("pattern", ""), "shown_threads": SHOWN_THREADS}
    if not run.is_final:
        # A search that failed because Redis was unavailable is retried.
        return context | {"following": f"The search is {run.state}. {run.progress or run.error}".strip()}
    result = run.job_result.result if run.job_result else None
    if run.state != RunStateChoices.SUCCEEDED or not isinstance(result, dict) or "threads" not in result:
        gone = "The result of the search has been deleted: search again."
        return context | {"search_error": run.error or (gone if run.state == RunStateChoices.SUCCEEDED else run.state)}
    return context | {"result": result, "hidden_count": max(0, result["thread_count"] - SHOWN_THREADS)}


def _erasures(user: Any, thread_id: str) -> list[ThreadErasure]:
    """Return the last erasures that name the thread, in clear text or as SHA-256."""
    names = Q(thread_ids__contains=thread_id) | Q(thread_ids__contains=hashed(thread_id.encode(errors="replace")))
    return list(ThreadErasure.objects.restrict(user, "view").filter(names)[:SHOWN_ERASURES])


def _state(found: dict[str, Any], was_erased: bool) -> str:
    if not found["found"]:
        return ERASED if was_erased else "not found"
    return state_of(pinned=found["pinned"], waits=bool(found["waits"]))
