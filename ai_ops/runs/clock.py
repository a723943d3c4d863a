"""The database's clock, by which leases end and runs are due: that of a worker may be wrong."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db.models import DateTimeField, ExpressionWrapper, Value
from django.db.models.functions import Now
from django.utils import timezone

from ai_ops.models.runs import MaintenanceRun


def from_now(wait: timedelta) -> ExpressionWrapper:
    """An expression for a query: that clock plus `wait`."""
    return ExpressionWrapper(Now() + Value(wait), output_field=DateTimeField())


def database_time(record: MaintenanceRun) -> datetime:
    """Return the time of that clock. Where `record` is gone nothing is written of it, and this process's clock does."""
    return MaintenanceRun.objects.filter(pk=record.pk).values_list(Now(), flat=True).first() or timezone.now()
