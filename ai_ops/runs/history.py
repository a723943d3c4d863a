"""How long the records of runs are kept.

Finished runs go after `run_history_days`. A dead letter waits for a person: it stays three times as long, unless it was
discarded or redriven. It goes before its redrive then, without which it would be a dead letter again. A pass of the
supervisor that had nothing to do goes after ten minutes, together with its JobResult: there is one each minute, and the
others are looked for among them.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection
from datetime import timedelta

from django.db import transaction
from django.db.models import Q
from django.db.models.functions import Now
from nautobot.extras.choices import JobResultStatusChoices
from nautobot.extras.models import JobResult

from ai_ops.choices import MaintenanceKindChoices, RunStateChoices
from ai_ops.config import AiOpsSettings
from ai_ops.core.runs import Hold
from ai_ops.core.supervision import Findings
from ai_ops.run_models import MaintenanceRun
from ai_ops.runs.dead_letters import is_redriven

# In one pass, so that it stays short. That is 700,000 records a day, and twenty times the passes there are.
MAX_RECORDS = 500
MAX_QUIET_PASSES = 20

DEAD_LETTER_FACTOR = 3
QUIET_PASS_AGE = timedelta(minutes=10)


def trim(hold: Hold) -> Findings:
    """Delete what is older than it is kept, the oldest first, up to a limit; a fixed number of queries.

    Returns:
        Records that were due, and those deleted; as many as one pass may.
    """
    old = list(_expired().order_by("created").values_list("pk", flat=True)[:MAX_RECORDS])
    deleted = _delete_records(hold, old)
    quiet = list(_quiet_passes().order_by("created").values_list("pk", "job_result")[:MAX_QUIET_PASSES])
    deleted += _delete_records(hold, [run for run, _ in quiet])
    _delete_job_results(hold, [job_result for _, job_result in quiet if job_result])
    return Findings(len(old) + len(quiet), deleted)


def _expired():
    days = timedelta(days=AiOpsSettings.load().run_history_days)
    finished = Q(state__in=[state for state in RunStateChoices.FINAL if state != RunStateChoices.DEAD])
    dead = Q(state=RunStateChoices.DEAD)
    dealt_with = Q(discarded__isnull=False) | Q(is_redriven())
    may_go = finished | (dead & (dealt_with | Q(created__lt=Now() - DEAD_LETTER_FACTOR * days)))
    return MaintenanceRun.objects.filter(may_go, created__lt=Now() - days)


def _quiet_passes():
    nothing_done = Q(state=RunStateChoices.SUCCEEDED, counters__fixed=0) | Q(state=RunStateChoices.SKIPPED)
    return MaintenanceRun.objects.filter(
        nothing_done, kind=MaintenanceKindChoices.SUPERVISOR, created__lt=Now() - QUIET_PASS_AGE
    )


def _delete_records(hold: Hold, ids: Collection[uuid.UUID]) -> int:
    hold.confirm()
    if not ids:
        return 0
    with transaction.atomic():
        hold.lock()
        MaintenanceRun.objects.filter(parent__in=ids).update(parent=None)
        # Not delete(), which would load the rows: nobody listens for them, and their children are seen to.
        rows = MaintenanceRun.objects.filter(pk__in=ids).order_by()
        return rows._raw_delete(rows.db)


def _delete_job_results(hold: Hold, ids: Collection[uuid.UUID]) -> None:
    hold.confirm()
    if ids:
        JobResult.objects.filter(pk__in=ids, status=JobResultStatusChoices.STATUS_SUCCESS).delete()
