"""Query for servers due for a health check."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db.models import BooleanField, Case, F, FloatField, Q, QuerySet, Value, When
from django.db.models.functions import Cast, Extract, Floor
from django.db.models.lookups import GreaterThan, LessThan

from ai_ops.choices import MCPProtocolChoices, MCPServerStatus
from ai_ops.mcp.logic.verdicts import MAX_RETRY_AFTER_SECONDS
from ai_ops.models import MCPServer

SECONDS_PER_MINUTE = 60.0

# With NTP the clocks of workers differ by less. A time further in the future is from a wrong clock.
CLOCK_TOLERANCE = timedelta(minutes=1)

# Maximum pause for a server. A time further in the future is from a wrong clock.
LONGEST_RETRY = timedelta(seconds=MAX_RETRY_AFTER_SECONDS) + CLOCK_TOLERANCE


def due_servers(now: datetime) -> QuerySet[MCPServer]:
    """Return the due HTTP servers: not Vulnerable, past their Retry-After, and past their interval.

    Time since 1970 is divided into intervals of a server. A server is due if its last check was in an earlier interval.
    So a run that starts some seconds early or late neither skips an interval nor checks twice in one, and after an
    outage of the scheduler there is one check. A server without an interval is due in every run.

    If the last check is in the future by more than the interval, its clock was wrong, and the server is due.
    """
    seconds = Cast(F("check_interval"), FloatField()) * Value(SECONDS_PER_MINUTE)
    last, this = Cast(Extract("health__checked", "epoch"), FloatField()), Value(now.timestamp(), FloatField())
    due = Case(
        When(Q(check_interval__isnull=True) | Q(health__isnull=True), then=Value(True)),
        When(GreaterThan(last, this + seconds), then=Value(True)),
        default=LessThan(Floor(last / seconds), Floor(this / seconds)),
        output_field=BooleanField(),
    )
    return (
        MCPServer.objects.filter(due, protocol=MCPProtocolChoices.HTTP)
        .exclude(status__name=MCPServerStatus.VULNERABLE)
        .exclude(
            health__retry_at__gt=now,
            health__retry_at__lte=now + LONGEST_RETRY,
            # A pause starts with the check that was asked for it.
            health__checked__lte=now + CLOCK_TOLERANCE,
        )
    )
