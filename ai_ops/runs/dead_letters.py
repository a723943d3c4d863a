"""Dead letters: dead runs that wait for a decision."""

from __future__ import annotations

from django.db.models import Exists, OuterRef, QuerySet

from ai_ops.choices import RunStateChoices, RunTriggerChoices
from ai_ops.models.runs import MaintenanceRun


def is_redriven() -> Exists:
    """Return an expression for whether a run was redriven, regardless of the result of the new run."""
    return Exists(MaintenanceRun.objects.filter(parent=OuterRef("pk"), trigger=RunTriggerChoices.REDRIVE))


def redrive_of(run: MaintenanceRun) -> MaintenanceRun | None:
    """Return the run by which `run` was redriven, in any state."""
    return run.children.filter(trigger=RunTriggerChoices.REDRIVE).first()


def dead_letters(runs: QuerySet[MaintenanceRun]) -> QuerySet[MaintenanceRun]:
    """Return the runs in `runs` that are dead and neither redriven nor discarded."""
    return runs.filter(~is_redriven(), state=RunStateChoices.DEAD, discarded__isnull=True)


def is_dead_letter(run: MaintenanceRun) -> bool:
    """Return whether `run` waits for a decision; one query for a dead run."""
    return run.state == RunStateChoices.DEAD and run.discarded is None and redrive_of(run) is None
