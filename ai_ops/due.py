"""Which servers a run checks."""

from __future__ import annotations

from datetime import datetime

from django.db.models import BooleanField, Case, F, FloatField, Q, QuerySet, Value, When
from django.db.models.functions import Cast, Extract, Floor
from django.db.models.lookups import LessThan

from ai_ops.choices import MCPProtocolChoices, MCPServerStatus
from ai_ops.models import MCPServer

SECONDS_PER_MINUTE = 60.0


def due_servers(now: datetime) -> QuerySet[MCPServer]:
    """HTTP servers that are not Vulnerable, have not asked to be left alone, and whose interval says so.

    Time is divided into stretches as long as a server's interval, since 1970. A server is due if its last
    check was in an earlier stretch than now is. A run that comes some seconds early or late then neither
    leaves a stretch out nor checks twice in one, and after an outage of the scheduler there is one check,
    however many were missed. A server without an interval is due in every run.
    """
    seconds = Cast(F("check_interval"), FloatField()) * Value(SECONDS_PER_MINUTE)
    last_stretch = Floor(Cast(Extract("health__checked", "epoch"), FloatField()) / seconds)
    this_stretch = Floor(Value(now.timestamp(), output_field=FloatField()) / seconds)
    due = Case(
        When(Q(check_interval__isnull=True) | Q(health__isnull=True), then=Value(True)),
        default=LessThan(last_stretch, this_stretch),
        output_field=BooleanField(),
    )
    return (
        MCPServer.objects.filter(due, protocol=MCPProtocolChoices.HTTP)
        .exclude(status__name=MCPServerStatus.VULNERABLE)
        .exclude(health__retry_at__gt=now)
    )
