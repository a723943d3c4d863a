"""The database's clock, which decides when leases end and runs are due. The clock of a worker may be wrong."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db.models import DateTimeField, ExpressionWrapper, Value
from django.db.models.functions import Now
from django.utils import timezone

from ai_ops.models.runs import MaintenanceRun


def from_now(wait: timedelta) -> ExpressionWrapper:
    """Return an expression for a query: the database's time plus `wait`."""
    return ExpressionWrapper(Now() + Value(wait), output_field=DateTimeField())


def database_time(record: MaintenanceRun) -> datetime:
    """Return the database's time. If `record` is deleted, return this process's time, which is then never saved."""
    return MaintenanceRun.objects.filter(pk=record.pk).values_list(Now(), flat=True).first() or timezone.now()
