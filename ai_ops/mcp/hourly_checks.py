"""The checks of the fleet by hour. Sums of past hours are kept, and computed again if their checks change.

The overview draws a day, which is 144,000 checks of a thousand servers. A health run computes the sums of past hours
from the checks. So an interrupted or repeated run counts no check twice, and the page counts hours without a sum
itself. `record_checks` and the deletion of a server delete the sums that become wrong, in their transactions and after
`AgentGeneration.lock()`, which is also held when sums are computed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import connection, transaction
from django.db.models import Q
from nautobot.apps.utils import qs_filter_from_constraints

from ai_ops.models import AgentGeneration
from ai_ops.models.health import MCPServerCheck, MCPServerCheckHour
from ai_ops.runs.hold import Hold

HOUR = timedelta(hours=1)
SHOWN_HOURS = 24

COUNTS = """
    count(*) FILTER (WHERE ok) AS passed, count(*) FILTER (WHERE NOT ok) AS failed,
    count(*) FILTER (WHERE ok IS NULL) AS unknown,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY latency_ms) FILTER (WHERE ok) AS p50_ms
"""
# For all checks: an hour with a sum reads no checks, and other hours use the index of times.
ALL_SQL = f"""
SELECT hour, {
    ", ".join(
        f"CASE WHEN known.start IS NULL THEN counts.{name} ELSE known.{name} END"
        for name in ("passed", "failed", "unknown", "p50_ms")
    )
}
FROM generate_series(%s::timestamptz, %s::timestamptz, '1 hour') AS hour
LEFT JOIN ai_ops_mcpservercheckhour AS known ON known.start = hour
LEFT JOIN LATERAL (
    SELECT {COUNTS} FROM ai_ops_mcpservercheck
    WHERE known.start IS NULL AND time >= hour AND time < hour + interval '1 hour'
) AS counts ON true
ORDER BY hour
"""  # noqa: S608
# For some checks only, for which no index is ordered by time.
PART_SQL = f"SELECT date_trunc('hour', time, 'UTC') AS hour, {COUNTS} FROM ({{}}) AS checks GROUP BY hour"  # noqa: S608
PERMISSION = "ai_ops.view_mcpservercheck"


@dataclass(frozen=True)
class Hour:
    """The checks of all servers in one hour.

    Attributes:
        start: Start of the hour.
        passed: Number of passed checks.
        failed: Number of failed checks.
        unknown: Number of checks that could not be made.
        p50_ms: Median latency of passed checks; None without any.
    """

    start: datetime
    passed: int = 0
    failed: int = 0
    unknown: int = 0
    p50_ms: float | None = None

    @property
    def is_empty(self) -> bool:
        """Return whether there was no check."""
        return not self.passed + self.failed + self.unknown


def hours(user: Any | None, now: datetime) -> list[Hour]:
    """Return the checks that `user` may view in each of the last 24 hours, the oldest first, with one query.

    Args:
        user: The user. Constraints of the user's permission apply to the sums too. None for all permissions.
        now: The time; the last hour contains it.
    """
    last = start_of_hour(now)
    starts = [last - back * HOUR for back in reversed(range(SHOWN_HOURS))]
    since = MCPServerCheck.objects.filter(time__gte=starts[0]).order_by()
    visible = MCPServerCheck.objects.all() if user is None else MCPServerCheck.objects.restrict(user, "view")
    if visible.query.is_empty():
        return [Hour(start) for start in starts]
    if not visible.query.where:
        return _read(ALL_SQL, [starts[0], last])
    rows = since.filter(pk__in=since.filter(_constraints(user)).values("pk")).values("time", "ok", "latency_ms")
    inner, parameters = rows.query.sql_with_params()
    found = {hour.start: hour for hour in _read(PART_SQL.format(inner), parameters)}
    return [found.get(start, Hour(start)) for start in starts]


def _read(statement: str, parameters: Sequence[Any]) -> list[Hour]:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return [Hour(*row) for row in cursor.fetchall()]


def _constraints(user: Any) -> Q:
    """Return the condition of `user`'s permissions on checks. `restrict` would search the whole history."""
    return qs_filter_from_constraints(user._object_perm_cache[PERMISSION], {"$user": user})


def sum_up_hours(hold: Hold, now: datetime) -> None:
    """Save the missing sums of past hours, and delete sums that no page shows any more."""
    with transaction.atomic():
        hold.lock()
        # Under this lock no check is recorded and no server is deleted until the end.
        AgentGeneration.lock()
        known = set(MCPServerCheckHour.objects.values_list("start", flat=True))
        *over, _current = hours(None, now)
        # An hour without checks takes the page no time.
        missing = [hour for hour in over if not hour.is_empty and hour.start not in known]
        MCPServerCheckHour.objects.bulk_create(MCPServerCheckHour(**asdict(hour)) for hour in missing)
        MCPServerCheckHour.forget(start__lt=start_of_hour(now) - SHOWN_HOURS * HOUR)


def forget_hours(times: Iterable[datetime]) -> None:
    """Delete the sums of the hours of these checks, because a run may record a check an hour after its probe."""
    MCPServerCheckHour.forget(start__in={start_of_hour(time) for time in times})


def start_of_hour(moment: datetime) -> datetime:
    """Return the start of the hour of `moment`, in UTC."""
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
