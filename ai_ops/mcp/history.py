"""The history of health checks: write it once per run, trim it, and read uptime and latency.

All queries have a time window on an index, and PostgreSQL computes the results.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import (
    Aggregate,
    Case,
    Count,
    F,
    FloatField,
    OuterRef,
    Q,
    QuerySet,
    Subquery,
    Sum,
    Value,
    When,
)
from django.db.models.functions import Cast, Extract, Floor, Now
from django.utils import timezone

from ai_ops.choices import MCPProtocolChoices, MCPServerStatus
from ai_ops.config import AiOpsSettings
from ai_ops.logic.durations import days_left
from ai_ops.logic.limits import MAX_NAME_CHARACTERS
from ai_ops.mcp.due import CLOCK_TOLERANCE
from ai_ops.mcp.hourly_checks import forget_hours
from ai_ops.mcp.logic.certificates import is_warning_due
from ai_ops.mcp.logic.flapping import ILL, WELL, change_percent, is_flapping, remembered
from ai_ops.mcp.logic.reports import ServerReport
from ai_ops.mcp.logic.verdicts import CHECKS_TO_FLIP, Probe, Reason, Verdict
from ai_ops.models import AgentGeneration, MCPServer
from ai_ops.models.health import MCPServerCheck, MCPServerHealth
from ai_ops.runs.logs import get_logger
from ai_ops.runs.totals import count_checks

logger = get_logger(__name__)

WINDOWS = {"24 hours": timedelta(hours=24), "7 days": timedelta(days=7), "30 days": timedelta(days=30)}

# Rows per statement, so that trimming holds locks only for milliseconds.
TRIM_BATCH = 5_000

# Batches per run: more rows than a fleet of 10,000 servers writes between two runs, and a limit for the first trim
# after the setting was lowered. The next run continues.
MAX_TRIM_BATCHES = 20

# Columns of MCPServerHealth that every check overwrites.
_LATEST = ("checked", "ok", "reason", "message", "latency_ms", "http_status", "retry_at")
IDENTITY = ("protocol_version", "server_name", "server_version")
_LASTING = (
    "last_ok",
    "last_failure",
    "last_failure_reason",
    "recent",
    "change_percent",
    "flapping",
    "alert_held",
    "certificate_ends",
    *IDENTITY,
)


class Percentile(Aggregate):
    """PostgreSQL's ``percentile_cont(fraction) WITHIN GROUP (ORDER BY expression)``, interpolated."""

    function = "PERCENTILE_CONT"
    template = "%(function)s(%(fraction)s) WITHIN GROUP (ORDER BY %(expressions)s)"

    def __init__(self, expression: Any, fraction: float, **extra: Any) -> None:
        super().__init__(expression, fraction=float(fraction), output_field=FloatField(), **extra)


@dataclass(frozen=True)
class Statistics:
    """The uptime and latency of a server in a window of time.

    Attributes:
        probes: Number of probes with a verdict.
        uptime_percent: Share of passed probes; None without probes.
        p50_ms: Median latency of passed checks in milliseconds; None without any.
        p95_ms: 95th percentile of this latency.
    """

    probes: int
    uptime_percent: float | None
    p50_ms: float | None
    p95_ms: float | None


@dataclass(frozen=True)
class Bucket:
    """The probes of a server in an interval, for a chart.

    Attributes:
        start: Start of the interval.
        passed: Number of passed probes.
        failed: Number of failed probes.
        unknown: Number of checks that could not be made.
        p50_ms: Median latency of passed checks; None without any.
        p95_ms: 95th percentile of this latency.
    """

    start: datetime
    passed: int = 0
    failed: int = 0
    unknown: int = 0
    p50_ms: float | None = None
    p95_ms: float | None = None


def record_checks(reports: Sequence[ServerReport], settings: AiOpsSettings) -> None:
    """Record the results of a run: one history row per server, and the server's current health.

    This takes six statements for any number of servers. Servers deleted meanwhile are skipped.
    """
    probed = {report.server_id: report for report in reports if report.checked_at and report.server_id}
    if not probed:
        return
    with transaction.atomic():
        # Before any row, as in every change of servers, because several servers are changed in any order.
        AgentGeneration.lock()
        # Held until the end, so that no server is deleted before the rows that refer to it are written, and runs that
        # check the same server at the same time do not overwrite each other's results.
        servers = MCPServer.objects.filter(pk__in=probed).order_by("pk").select_for_update(of=("self",), no_key=True)
        urls = {str(pk): url for pk, url in servers.values_list("pk", "url")}
        found = {server_id: probed[server_id] for server_id in urls}
        MCPServerCheck.objects.bulk_create([_as_check(report) for report in found.values()], batch_size=1_000)
        forget_hours(report.checked_at for report in found.values() if report.checked_at)
        count_checks((report.reason or "", report.latency_ms or 0.0) for report in found.values())
        known = MCPServerHealth.objects.in_bulk(list(found), field_name="server_id")
        known = {str(server_id): health for server_id, health in known.items()}
        rows = [
            _as_health(report, known.get(server_id), settings, has_tls=urls[server_id].startswith("https:"))
            for server_id, report in found.items()
        ]
        MCPServerHealth.objects.bulk_create(
            rows,
            batch_size=1_000,
            update_conflicts=True,
            unique_fields=["server"],
            update_fields=[*_LATEST, *_LASTING],
        )
    for row in rows:
        _warn_of_certificate(row, known.get(row.server_id), found[row.server_id].server)


def _warn_of_certificate(health: MCPServerHealth, before: MCPServerHealth | None, server: str) -> None:
    """Log that a certificate expires soon, once a day."""
    ends, now = health.certificate_ends, timezone.now()
    seen = before.checked if before and before.certificate_ends == ends else None
    if ends and is_warning_due(ends, now, seen):
        logger.warning(
            "The TLS certificate of %s expires in %s day(s), on %s: renew it.",
            server,
            days_left(ends, now),
            f"{ends:%Y-%m-%d %H:%M} UTC",
            extra={"grouping": "certificates"},
        )


def unconfirmed_verdicts(servers: Collection[uuid.UUID]) -> dict[uuid.UUID, list[Verdict]]:
    """Return the verdicts of the last runs on these servers since their last change or flip.

    At most the number that can replace checks that a run could not make, the oldest first. A run with all its checks
    has either flipped a server or ended with a verdict that agrees with its status, so its verdicts do not count.
    """
    checks = _checks_of_server_since_change().filter(ok__isnull=False, flipped=False)
    columns = {f"result_{age}": Subquery(checks.values("ok")[age : age + 1]) for age in range(CHECKS_TO_FLIP - 1)}
    rows = _with_last_change(servers).annotate(**columns).values_list("pk", *reversed(columns))
    return {
        pk: [Verdict.HEALTHY if ok else Verdict.UNHEALTHY for ok in results if ok is not None] for pk, *results in rows
    }


def failed_before(servers: Collection[Any]) -> set[Any]:
    """Return the servers whose latest check failed without a flip, and that no user has changed since."""
    latest = _checks_of_server_since_change()
    rows = _with_last_change(servers).annotate(
        ok=Subquery(latest.values("ok")[:1]), flipped=Subquery(latest.values("flipped")[:1])
    )
    return set(rows.filter(ok=False, flipped=False).values_list("pk", flat=True))


def _with_last_change(servers: Collection[Any]) -> QuerySet[MCPServer]:
    """Annotate these servers with `changed`, their last change; a time in the future is from a wrong clock."""
    known = When(last_updated__lte=timezone.now() + CLOCK_TOLERANCE, then=F("last_updated"))
    changed = Case(known, default=Value(_moment(0)))
    return MCPServer.objects.filter(pk__in=servers).annotate(changed=changed)


def _checks_of_server_since_change() -> QuerySet[MCPServerCheck]:
    """Return the past checks of the outer query's server since it was `changed`, the newest first."""
    return MCPServerCheck.objects.filter(
        server=OuterRef("pk"), time__gt=OuterRef("changed"), time__lte=timezone.now() + CLOCK_TOLERANCE
    ).order_by("-time")


def trim_checks(days: int) -> int:
    """Delete checks older than `days` in small batches; return their number."""
    oldest = timezone.now() - timedelta(days=days)
    deleted = 0
    for _ in range(MAX_TRIM_BATCHES):
        batch = MCPServerCheck.objects.filter(time__lt=oldest).order_by("time").values("pk")[:TRIM_BATCH]
        # Not delete(), which would load the rows. No signal receiver needs them.
        rows = MCPServerCheck.objects.filter(pk__in=batch).order_by()
        count = rows._raw_delete(rows.db)
        deleted += count
        if count < TRIM_BATCH:
            break
    return deleted


def statistics(server: MCPServer) -> dict[str, Statistics]:
    """Return the uptime and latency of a server for each of WINDOWS, with one query."""
    now = timezone.now()
    wanted: dict[str, Any] = {}
    for number, length in enumerate(WINDOWS.values()):
        inside = Q(time__gte=now - length)
        wanted |= {
            f"probes_{number}": Sum("probes", filter=inside, default=0),
            f"failures_{number}": Sum("failures", filter=inside, default=0),
            f"p50_{number}": Percentile("latency_ms", 0.5, filter=inside & Q(ok=True)),
            f"p95_{number}": Percentile("latency_ms", 0.95, filter=inside & Q(ok=True)),
        }
    row = _checks_since(server, now - max(WINDOWS.values())).aggregate(**wanted)
    return {
        name: Statistics(
            row[f"probes_{number}"],
            _uptime_percent(row[f"probes_{number}"], row[f"failures_{number}"]),
            row[f"p50_{number}"],
            row[f"p95_{number}"],
        )
        for number, name in enumerate(WINDOWS)
    }


def buckets(server: MCPServer, window: timedelta, width: timedelta) -> list[Bucket]:
    """Return the probes of `server` in the last `window`, grouped by `width` with empty groups, in one query."""
    seconds = int(width.total_seconds())
    last = int(timezone.now().timestamp()) // seconds
    first = last - int(window.total_seconds()) // seconds + 1
    rows = (
        _checks_since(server, _moment(first * seconds))
        .annotate(number=Floor(Cast(Extract("time", "epoch"), FloatField()) / Value(float(seconds))))
        .values("number")
        .annotate(
            passed=Sum(F("probes") - F("failures"), default=0),
            failed=Sum("failures", default=0),
            unknown=Count("pk", filter=Q(ok__isnull=True)),
            p50_ms=Percentile("latency_ms", 0.5, filter=Q(ok=True)),
            p95_ms=Percentile("latency_ms", 0.95, filter=Q(ok=True)),
        )
    )
    found = {int(row.pop("number")): row for row in rows}
    return [Bucket(_moment(number * seconds), **found.get(number, {})) for number in range(first, last + 1)]


def with_uptime(servers: QuerySet[MCPServer]) -> QuerySet[MCPServer]:
    """Annotate `servers` with `uptime_24h`, a percentage or None, computed only for the rows of a page."""
    checks = MCPServerCheck.objects.filter(server=OuterRef("pk"), time__gte=Now() - timedelta(hours=24), probes__gt=0)
    share = Value(100.0) * Sum(F("probes") - F("failures")) / Sum("probes")
    uptime = checks.order_by().values("server").annotate(share=share).values("share")
    return servers.annotate(uptime_24h=Subquery(uptime, output_field=FloatField()))


def problems_first(servers: QuerySet[MCPServer]) -> QuerySet[MCPServer]:
    """Sort `servers` by urgency, then by name, and annotate each with the start of its present state, `since`.

    Servers that are down come first, then flapping servers. A server without a check is neither.
    """
    asked = Q(protocol=MCPProtocolChoices.HTTP, health__isnull=False)
    is_down = asked & Q(status__name=MCPServerStatus.UNHEALTHY)
    return servers.annotate(
        since=Case(When(is_down, then=F("health__last_ok")), When(asked, then=F("health__last_failure")))
    ).order_by(Case(When(is_down, then=0), When(health__flapping=True, then=1), default=2), "name")


def _checks_since(server: MCPServer, since: datetime) -> QuerySet[MCPServerCheck]:
    # Without the default order, which would become part of every grouping.
    return MCPServerCheck.objects.filter(server=server, time__gte=since).order_by()


def _moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _uptime_percent(probes: int, failures: int) -> float | None:
    return 100 * (probes - failures) / probes if probes else None


def _as_check(report: ServerReport) -> MCPServerCheck:
    verdicts = _verdicts(report)
    check = MCPServerCheck(
        server_id=report.server_id,
        time=report.checked_at,
        ok=_verdict(report),
        reason=report.reason or "",
        latency_ms=report.latency_ms,
        http_status=report.http_status,
        flipped=report.changed,
        probes=len(verdicts),
        failures=verdicts.count(ILL),
        certificate_days=_certificate_days(report),
    )
    identify(check, report)
    return check


def _certificate_days(report: ServerReport) -> int | None:
    if not report.certificate_ends or not report.checked_at:
        return None
    return days_left(report.certificate_ends, report.checked_at)


def _as_health(
    report: ServerReport, before: MCPServerHealth | None, settings: AiOpsSettings, *, has_tls: bool
) -> MCPServerHealth:
    ok = _verdict(report)
    health = MCPServerHealth(
        server_id=report.server_id,
        checked=report.checked_at,
        ok=ok,
        reason=report.reason or "",
        message=report.message or "",
        latency_ms=report.latency_ms,
        http_status=report.http_status,
        **({name: getattr(before, name) for name in _LASTING} if before else {}),
    )
    if report.retry_after and report.checked_at:
        health.retry_at = report.checked_at + timedelta(seconds=report.retry_after)
    if ok:
        health.last_ok = report.checked_at
    elif ok is False:
        health.last_failure, health.last_failure_reason = report.checked_at, report.reason or ""
    if report.protocol_version:
        identify(health, report)
    if report.certificate_ends:
        health.certificate_ends = report.certificate_ends
    elif not has_tls:
        health.certificate_ends = None
    health.recent = remembered(health.recent, _verdicts(report))
    health.change_percent = change_percent(health.recent)
    health.flapping = is_flapping(
        health.change_percent, health.flapping, settings.flap_low_percent, settings.flap_high_percent
    )
    return health


def identify(row: MCPServerHealth | MCPServerCheck, report: Probe | ServerReport) -> None:
    """Record the name, version and revision that a server reports, cut to the columns' lengths."""
    for name in IDENTITY:
        setattr(row, name, (getattr(report, name) or "")[:MAX_NAME_CHARACTERS])


def _verdicts(report: ServerReport) -> str:
    """Return the verdicts of the probes; empty if the worker's network has caused them."""
    if report.inconclusive and not report.ok:
        return ""
    ok = _verdict(report)
    # A report without verdicts counts as one probe.
    return report.verdicts or {True: WELL, False: ILL, None: ""}[ok]


def _verdict(report: ServerReport) -> bool | None:
    """Return the verdict of the check; None if the checker itself or its network failed."""
    return None if report.reason == Reason.CHECKER or (report.inconclusive and not report.ok) else report.ok
