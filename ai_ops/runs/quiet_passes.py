"""Quiet passes: runs that found no work. There are hundreds a day, so lists hide them."""

from __future__ import annotations

from django.db.models import Q, QuerySet

from ai_ops.choices import MaintenanceKindChoices, RunStateChoices
from ai_ops.models.runs import MaintenanceRun

# Kinds with so many passes that only those with work are kept and shown.
PASSES = (MaintenanceKindChoices.SUPERVISOR, MaintenanceKindChoices.INCIDENTS)


def quiet_passes() -> Q:
    """Return the filter for passes of the supervisor and the incident review that found no work."""
    supervisor = Q(kind=MaintenanceKindChoices.SUPERVISOR) & (Q(counters__quiet=True) | Q(counters__fixed=0))
    counts = dict.fromkeys(("opened", "auto_closed", "escalated", "errors"), 0)
    review = Q(kind=MaintenanceKindChoices.INCIDENTS, **{f"counters__{name}": 0 for name in counts})
    nothing_done = Q(supervisor | review, state=RunStateChoices.SUCCEEDED) | Q(state=RunStateChoices.SKIPPED)
    return Q(nothing_done, kind__in=PASSES)


def without_quiet_passes(runs: QuerySet[MaintenanceRun]) -> QuerySet[MaintenanceRun]:
    """Return `runs` without quiet passes."""
    # Not the negated condition, which is NULL for a run without this counter.
    return runs.exclude(pk__in=MaintenanceRun.objects.filter(quiet_passes()).values("pk"))
