"""Queries of the overview: a fixed number, only on Nautobot's database, each restricted to its user.

Each function makes one query unless its docstring names another number.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from django.contrib.contenttypes.models import ContentType
from django.db import connections
from django.db.models import Count, Q, Value
from django.utils import timezone
from nautobot.extras.models import ObjectChange, ScheduledJob

from ai_ops.checkpoints.snapshots import KEPT
from ai_ops.choices import (
    MCPIncidentKindChoices,
    MCPProtocolChoices,
    MCPServerStatus,
    MCPToolStateChoices,
    RunStateChoices,
)
from ai_ops.exceptions import ConfigurationError
from ai_ops.kinds import DEFAULT_SCHEDULES
from ai_ops.mcp.history import with_uptime
from ai_ops.mcp.logic.certificates import WARNING_DAYS
from ai_ops.models import (
    CheckpointStorageSnapshot,
    MaintenanceRun,
    MCPServer,
    MCPServerHealth,
    MCPServerIncident,
    MCPServerTool,
    PinnedThread,
)
from ai_ops.overview import logic
from ai_ops.overview.logic import Machine, Outage, ServerFacts, down_since
from ai_ops.runs.dead_letters import is_redriven
from ai_ops.schedules.control import app_schedules
from ai_ops.schedules.ensure import shortest_gap
from ai_ops.schedules.lateness import ACTIVE, ScheduleStatus
from ai_ops.schedules.status import statuses_of

DAY = timedelta(hours=24)
# Sorts schedules without a next time last.
NEVER = datetime.max.replace(tzinfo=UTC)
RUN_DAYS = 14
# Final states of runs without success; dead runs are counted as dead letters.
FAILED_STATES = (RunStateChoices.FAILED, RunStateChoices.LOST)
SHOWN_CHANGES = 8
# The number links to the full list.
SHOWN_OUTAGES = 8
SHOWN_UPTIMES = 8
# Maximum number of servers with an uptime. If more failed in 24 h, those with the most recent failures are chosen.
MEASURED_UPTIMES = 100
# Objects of this app whose changes are shown.
CHANGED_MODELS = (MCPServer, MCPServerIncident, PinnedThread)


# One day at a time, by the index of times and states. Computing the date of each of 50,000 runs would double the time.
DAYS_SQL = """
SELECT day, counts.* FROM unnest(%s::date[], %s::timestamptz[], %s::timestamptz[]) AS days(day, begins, ends),
    LATERAL (
        SELECT state, count(*) FROM ({}) AS runs WHERE created >= begins AND created < ends GROUP BY state
    ) AS counts
"""


@dataclass(frozen=True)
class Server:
    """A server on the overview."""

    pk: UUID
    name: str
    last_ok: datetime | None
    certificate_ends: datetime | None
    facts: ServerFacts


@dataclass(frozen=True)
class Fleet:
    """The servers that a user may view.

    Attributes:
        listed: Servers that the page may name.
        others: The number of other servers, which are up.
    """

    listed: list[Server]
    others: int


@dataclass(frozen=True)
class Sample:
    """The figures of one sampling of the checkpoint Redis."""

    taken: datetime
    error: str | None
    keys: int | None
    checkpoint_bytes: int | None
    memory_bytes: int | None
    cleanup: Mapping[str, Any] | None


def fleet(user: Any, fresh_since: datetime, now: datetime) -> Fleet:
    """Return the servers that `user` may view, in two queries.

    In a large fleet nearly all servers are up. They are only counted, which takes a tenth of the time of reading them.

    Args:
        user: The user.
        fresh_since: A check since then is fresh, regardless of the server's interval.
        now: The present.
    """
    visible = MCPServer.objects.restrict(user, "view").order_by()
    rows = visible.filter(_needs_a_row(fresh_since, now)).values_list(
        *("pk", "name", "health__last_ok", "health__certificate_ends"),
        *("protocol", "status__name", "health__checked", "health__ok", "check_interval", "created"),
        *("health__flapping", "health__recent", "health__last_failure"),
    )
    listed = [Server(*row[:4], _facts(*row[4:])) for row in rows]
    return Fleet(listed, max(0, visible.count() - len(listed)))


def _needs_a_row(fresh_since: datetime, now: datetime) -> Q:
    """Return the filter for servers that may not be up, or that the page may name for another reason."""
    is_not_up = (
        ~Q(protocol=MCPProtocolChoices.HTTP)
        | ~Q(status__name=MCPServerStatus.HEALTHY)
        # Without a check, or with a check that had no verdict.
        | Q(health__ok__isnull=True)
        | Q(health__checked__lt=fresh_since)
    )
    is_troubled = Q(health__flapping=True) | Q(health__last_failure__gte=now - DAY)
    return is_not_up | is_troubled | Q(health__certificate_ends__lt=now + timedelta(days=WARNING_DAYS))


def _facts(
    protocol: str,
    status: str,
    checked: datetime | None,
    ok: bool | None,
    check_interval: int | None,
    created: datetime | None,
    flapping: bool | None,
    recent: str | None,
    last_failure: datetime | None,
) -> ServerFacts:
    is_http = protocol == MCPProtocolChoices.HTTP
    return ServerFacts(
        is_http,
        status,
        checked,
        ok is not None,
        check_interval,
        created,
        bool(flapping),
        recent or "",
        last_failure,
    )


def first_outages(user: Any, down: Collection[Server]) -> list[Outage]:
    """Return the outages of servers in `down` to show, each with its open incident if `user` may view it."""
    visible = MCPServerIncident.objects.restrict(user, "view").filter(
        closed__isnull=True, kind=MCPIncidentKindChoices.OUTAGE
    )
    rows = visible.order_by("opened").values_list(
        "servers", "pk", "opened", "acknowledged", "acknowledged_by__username"
    )
    incidents = {server: rest for server, *rest in rows} if down else {}
    found = []
    for server in down:
        pk, opened, acknowledged, name = incidents.get(server.pk, (None, None, None, None))
        by = (name or "a deleted user") if acknowledged else None
        found.append(Outage(str(server.pk), down_since(opened, server.last_ok), by, str(pk) if pk else None))
    return logic.first_outages(found, SHOWN_OUTAGES)


def messages(user: Any, ids: Collection[str]) -> dict[str, tuple[str, str]]:
    """Return reason and message of the last checks of the servers with these ids, by id."""
    rows = MCPServerHealth.objects.restrict(user, "view").filter(server__in=ids)
    return {
        str(server): (reason, message) for server, reason, message in rows.values_list("server", "reason", "message")
    }


def certificate_ends(user: Any) -> list[tuple[str, datetime]]:
    """Return the names of the servers with a TLS certificate, and the time of its expiry."""
    rows = MCPServer.objects.restrict(user, "view").filter(health__certificate_ends__isnull=False)
    return list(rows.values_list("name", "health__certificate_ends"))


def unacknowledged_incidents(user: Any) -> int:
    """Return the number of open incidents that no user has acknowledged."""
    visible = MCPServerIncident.objects.restrict(user, "view")
    return visible.filter(closed__isnull=True, acknowledged__isnull=True).count()


def changed_tools(user: Any) -> int:
    """Return the number of tools that differ from the approved ones and that no user has rejected."""
    return MCPServerTool.objects.restrict(user, "view").filter(state__in=MCPToolStateChoices.UNDECIDED).count()


def waiting_runs(user: Any, now: datetime) -> dict[str, int]:
    """Return the number of dead letters, and of runs that failed in the last 24 hours."""
    dead = Q(state=RunStateChoices.DEAD, discarded__isnull=True) & ~is_redriven()
    failed = Q(state__in=FAILED_STATES, created__gte=now - DAY)
    # The indexes of dead runs and of times cover these conditions. Without this PostgreSQL would read all runs.
    rows = MaintenanceRun.objects.restrict(user, "view").filter(
        Q(state=RunStateChoices.DEAD) | Q(created__gte=now - DAY)
    )
    return rows.order_by().aggregate(dead_letters=Count("pk", filter=dead), failed_runs=Count("pk", filter=failed))


def schedules(now: datetime) -> list[ScheduleStatus]:
    """Return the status of all of the app's schedules, without asking workers, in three queries."""
    return statuses_of(now=now, ask_workers=False)


def visible_schedules(user: Any) -> set[str] | None:
    """Return the ids of the schedules that `user` may view; None, without a query, for permission to view all."""
    if not ScheduledJob.objects.restrict(user, "view").query.where:
        return None
    return {str(pk) for pk in app_schedules().restrict(user, "view").values_list("pk", flat=True)}


def last_successes(user: Any | None) -> tuple[dict[str, datetime], dict[str, datetime]]:
    """Return the end of the last successful complete run of each kind.

    Args:
        user: None for a user without permission to view runs.

    Returns:
        The times of all runs by kind, so that a stale result does not look well to a user without permission to view
        runs. And the times of the runs that `user` may view.
    """
    done = Q(state=RunStateChoices.SUCCEEDED, subject="", finished__isnull=False)
    everything = MaintenanceRun.objects.all()
    visible = everything.none() if user is None else everything.restrict(user, "view")
    # For a user with permission for all runs the result is the same, and needs no second query.
    sees_all = not visible.query.where
    querysets = {False: everything} if sees_all or user is None else {False: everything, True: visible}
    # An index finds the newest run of a kind. Grouping would read every row.
    first, *others = (
        runs.filter(done, kind=kind)
        .order_by("-created")
        .annotate(visible=Value(restricted))
        .values_list("visible", "kind", "finished")[:1]
        for restricted, runs in querysets.items()
        for kind in DEFAULT_SCHEDULES
    )
    found: dict[bool, dict[str, datetime]] = {False: {}, True: {}}
    for restricted, kind, finished in first.union(*others, all=True):
        found[restricted][kind] = finished
    if sees_all:
        found[True] = found[False]
    return found[False], found[True]


def lowest_uptimes(servers: Collection[Server], now: datetime) -> list[tuple[Server, float | None]]:
    """Return servers that flap or failed a check in 24 h with their uptimes of that time in percent, the worst first.

    Without such a server there is no query.
    """
    by_id = {server.pk: server for server in servers}
    troubled = logic.most_troubled({pk: server.facts for pk, server in by_id.items()}, now, MEASURED_UPTIMES)
    if not troubled:
        return []
    uptimes = dict(with_uptime(MCPServer.objects.filter(pk__in=troubled).order_by()).values_list("pk", "uptime_24h"))
    found = [(by_id[pk], uptimes.get(pk)) for pk in troubled]
    found.sort(key=lambda pair: (not pair[0].facts.flapping, 100.0 if pair[1] is None else pair[1], pair[0].name))
    return found[:SHOWN_UPTIMES]


def runs_by_day(user: Any, now: datetime) -> dict[date, dict[str, int]]:
    """Return the numbers of runs by day, in the user's time, and by state."""
    today = timezone.localtime(now).date()
    days = [today - timedelta(days=back) for back in reversed(range(RUN_DAYS))]
    # Midnights in local time. A change of clocks makes a day longer or shorter.
    begins = [timezone.make_aware(datetime.combine(day, time.min)) for day in [*days, today + timedelta(days=1)]]
    rows = MaintenanceRun.objects.restrict(user, "view").filter(created__gte=begins[0]).order_by()
    inner, parameters = rows.values("created", "state").query.sql_with_params()
    found: dict[date, dict[str, int]] = {day: defaultdict(int) for day in days}
    with connections[rows.db].cursor() as cursor:
        cursor.execute(DAYS_SQL.format(inner), [days, begins[:-1], begins[1:], *parameters])
        for day, state, count in cursor.fetchall():
            found[day][state] = count
    return found


def samples(user: Any) -> list[Sample]:
    """Return the latest samplings, the newest first, including a successful one if there is any."""
    names = ("error", "checkpoint_keys", "checkpoint_bytes", "memory_bytes", "cleanup")
    rows = CheckpointStorageSnapshot.objects.restrict(user, "view").order_by("-taken")[: 2 * KEPT]
    return [Sample(*row) for row in rows.values_list("taken", *(f"data__{name}" for name in names))]


def first_sample(user: Any, now: datetime) -> tuple[datetime, int | None] | None:
    """Return the time and checkpoint keys of the first successful sampling of the last two weeks."""
    rows = CheckpointStorageSnapshot.objects.restrict(user, "view")
    rows = rows.filter(data__success=True, taken__gte=now - timedelta(days=RUN_DAYS)).order_by("taken")
    return rows.values_list("taken", "data__checkpoint_keys").first()


def latest_changes(user: Any) -> list[ObjectChange]:
    """Return the latest entries of the change log about servers, incidents and pins."""
    types = [each.pk for each in ContentType.objects.get_for_models(*CHANGED_MODELS).values()]
    visible = ObjectChange.objects.restrict(user, "view").filter(changed_object_type__in=types)
    return list(visible.defer("object_data", "object_data_v2").order_by("-time")[:SHOWN_CHANGES])


def machines(statuses: Collection[ScheduleStatus], successes: Mapping[str, datetime]) -> list[Machine]:
    """Return the state of each kind of maintenance with a default schedule, without a query."""
    found = []
    for kind in DEFAULT_SCHEDULES:
        ours = [status for status in statuses if status.kind == kind]
        # Of several schedules of a kind, choose one with a problem, otherwise the next one.
        ours.sort(key=lambda status: (not status.late, status.next_run or NEVER))
        found.append(_machine(kind, ours, successes.get(kind)))
    return found


def _machine(kind: str, statuses: list[ScheduleStatus], last_success: datetime | None) -> Machine:
    if not statuses:
        return Machine(kind, last_success)
    first = statuses[0]
    periods = [period for status in statuses if (period := _period(status))]
    return Machine(
        kind,
        last_success,
        min(periods, default=None),
        first.next_run,
        first.standing,
        first.late,
        first.why,
    )


def _period(status: ScheduleStatus) -> timedelta | None:
    """Return the period of a schedule; None if it starts no runs or its crontab is not readable."""
    if status.standing != ACTIVE or not status.crontab:
        return None
    try:
        start = timezone.now().astimezone(ZoneInfo(status.time_zone))
        return timedelta(seconds=shortest_gap(status.crontab, start))
    except ConfigurationError:
        return None
