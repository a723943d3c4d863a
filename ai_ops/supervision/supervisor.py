"""The supervisor's pass: sub-checks that fail independently, and stop when the pass must stop."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from django.db.models import DurationField, ExpressionWrapper, F
from django.db.models.functions import Now

from ai_ops.checkpoints import orphans
from ai_ops.choices import RunStateChoices
from ai_ops.models.runs import MaintenanceRun
from ai_ops.runs.delivery import enqueue
from ai_ops.runs.findings import Findings, summary
from ai_ops.runs.hold import Hold
from ai_ops.runs.logs import get_logger
from ai_ops.runs.supervisor_log import log_handled
from ai_ops.runs.tracing import phase
from ai_ops.schedules.ends import end_without_subject
from ai_ops.supervision import history, late_schedules
from ai_ops.supervision.isolation import STOPPING, isolate
from ai_ops.supervision.rescue import repair, rescue

logger = get_logger(__name__)

# Maximum number of runs to start in one pass, the longest due first. Workers would not start more within a minute.
MAX_RETRIES = 50

SubCheck = Callable[[Hold], Findings]


def start_due(hold: Hold) -> Findings:
    """Send the messages of due pending runs: retries, and runs whose message was lost.

    Returns:
        Findings with the numbers of due runs, of sent messages, and of runs that can't be started: they are dead, or
        the log has a programming error.
    """
    due = MaintenanceRun.objects.filter(state=RunStateChoices.PENDING, next_attempt__lte=Now()).annotate(
        age=ExpressionWrapper(Now() - F("created"), output_field=DurationField())
    )
    runs = list(due.select_related("owner", "job_result").order_by("next_attempt")[:MAX_RETRIES])
    fixed = unfixable = 0
    for run in runs:
        hold.confirm()
        sent = isolate(f"starting {run}", lambda run=run: enqueue(run, hold.settings) is not None)
        log_handled(run, "pending", run.age, _outcome(run, sent), grouping="retries")
        fixed += sent is True
        unfixable += sent is None or run.state == RunStateChoices.DEAD
    return Findings(len(runs), fixed, unfixable)


def _outcome(run: MaintenanceRun, sent: bool | None) -> str:
    """Return the result of starting a due run, as a clause."""
    if sent:
        return "its message was sent"
    if run.state == RunStateChoices.DEAD:
        return "it can't be started, and is dead"
    if run.state == RunStateChoices.INTERRUPTED:
        return "it was cancelled"
    return "its message could not be sent; it is due again later" if sent is False else "it failed, see the log"


# In this order: the results of rescued runs are repaired before their next attempt, and the slowest sub-checks come
# last.
SUB_CHECKS: Mapping[str, SubCheck] = {
    "rescue": lambda hold: rescue(hold, hold.run_id),
    "repair": lambda hold: repair(hold, hold.job_result),
    "retries": start_due,
    "schedules": lambda hold: end_without_subject(hold) + late_schedules.warn_of_late(hold),
    "history": history.trim,
    "orphans": orphans.collect,
}


def supervise_once(hold: Hold, sub_checks: Mapping[str, SubCheck] = SUB_CHECKS) -> dict[str, Any]:
    """Make one pass.

    Args:
        hold: The hold of this run. A sub-check starts only under it.
        sub_checks: The sub-checks by name.

    Returns:
        `checked`, `fixed` and `unfixable` for each sub-check by its name, and for all together; `quiet`, whether there
        was no work besides history; `summary`, a line; `success`; `error`, None or a sentence with the sub-checks that
        failed by a programming error; `execution_time_ms`.

    Raises:
        LeaseLostError: The supervisor may not write any more.
        RunStoppedError: The supervisor was stopped.
        SoftTimeLimitExceeded: The Job reached its time limit.
    """
    started = time.monotonic()
    findings: dict[str, Findings] = {}
    broken = []
    for name, sub_check in sub_checks.items():
        hold.confirm()
        hold.progress(f"Sub-check: {name}")
        with phase(f"sub-check {name}"):
            found = isolate(f"the supervisor's sub-check {name}", partial(sub_check, hold), STOPPING)
        findings[name] = found or Findings(unfixable=1)
        if found is None:
            broken.append(name)
    report = _report(findings, broken)
    report["execution_time_ms"] = round((time.monotonic() - started) * 1000)
    _log(report)
    return report


def no_supervision(error: str | None) -> dict[str, Any]:
    """Return the report of a pass that did not run."""
    return {
        **dict.fromkeys(("checked", "fixed", "unfixable", "execution_time_ms"), 0),
        "success": error is None,
        "error": error,
    }


def _report(findings: Mapping[str, Findings], broken: list[str]) -> dict[str, Any]:
    total = sum(findings.values(), Findings())
    # A pass deletes the records of earlier passes. If this counted as work, every second pass would be kept.
    fixed = sum(found.fixed for name, found in findings.items() if name != "history")
    return {
        "success": not broken,
        "quiet": not broken and not fixed,
        **{name: found.as_dict() for name, found in findings.items()},
        **total.as_dict(),
        "summary": summary(findings),
        "error": f"Failed: {', '.join(broken)}; the log has the reason." if broken else None,
        "errors": [f"The sub-check {name} failed; the log has the reason." for name in broken],
    }


def _log(report: Mapping[str, Any]) -> None:
    if report["error"]:
        logger.error("❌ Supervision failed in part. %s %s", report["error"], report["summary"])
    elif report["unfixable"]:
        logger.warning("⚠️ Supervision completed: %s", report["summary"])
    else:
        logger.info("✅ Supervision completed: %s", report["summary"])
