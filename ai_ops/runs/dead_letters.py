"""Dead letters: dead runs that wait for a decision."""

from __future__ import annotations

from django.db.models import Exists, OuterRef, QuerySet

from ai_ops.choices import RunStateChoices, RunTriggerChoices
from ai_ops.models.runs import MaintenanceRun


def is_redriven() -> Exists:
    """An expression over runs: whether somebody has redriven it. What becomes of that is the new run's matter."""
    return Exists(MaintenanceRun.objects.filter(parent=OuterRef("pk"), trigger=RunTriggerChoices.REDRIVE))


def redrive_of(run: MaintenanceRun) -> MaintenanceRun | None:
    """The run by which `run` was redriven, whatever became of it."""
    return run.children.filter(trigger=RunTriggerChoices.REDRIVE).first()


def dead_letters(runs: QuerySet[MaintenanceRun]) -> QuerySet[MaintenanceRun]:
    """Those of `runs` that are dead, and that nobody has redriven or discarded."""
    return runs.filter(~is_redriven(), state=RunStateChoices.DEAD, discarded__isnull=True)
