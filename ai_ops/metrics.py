"""Metrics for Prometheus at Nautobot's /metrics/.

Names and units follow Prometheus' conventions; a test runs `promtool check metrics`. Counters and histograms are kept
in the database (`ai_ops.runs.totals`), so that they survive restarts and are the same in every process. A scrape reads
only Nautobot's database, with a fixed number of indexed queries.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from django.db import ProgrammingError, transaction
from django.db.models import Count
from django.utils import timezone
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.utils import floatToGoString

from ai_ops.choices import MaintenanceKindChoices, MCPIncidentKindChoices, RunStateChoices
from ai_ops.logic.histogram_buckets import CHECK_BUCKETS, RUN_BUCKETS
from ai_ops.mcp.logic.verdicts import Reason
from ai_ops.models import CheckpointStorageSnapshot, MaintenanceRun, MCPServerIncident
from ai_ops.overview import logic, queries
from ai_ops.overview.page import Overview, unrestricted_user
from ai_ops.runs import totals
from ai_ops.runs.dead_letters import dead_letters

logger = logging.getLogger(__name__)

PREFIX = "nautobot_ai_ops_"
FAMILIES = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily, "histogram": HistogramMetricFamily}
UNFINISHED = (RunStateChoices.PENDING, RunStateChoices.RUNNING)


@dataclass(frozen=True)
class Kind:
    """The definition of a metric for Prometheus.

    Attributes:
        type: One of FAMILIES.
        what: The help text.
        labels: The names of its labels.
    """

    type: str
    what: str
    labels: tuple[str, ...] = ()


# Without the prefix, and without the suffix "_total" of counters.
KINDS = {
    "runs": Kind("counter", "Maintenance runs that ended, by outcome.", ("kind", "outcome")),
    "run_duration_seconds": Kind("histogram", "Time for which maintenance runs worked.", ("kind",)),
    "active_runs": Kind("gauge", "Maintenance runs that have not ended.", ("kind", "state")),
    "seconds_since_last_success": Kind("gauge", "Seconds since a complete maintenance run last succeeded.", ("kind",)),
    "dead_letters": Kind("gauge", "Dead maintenance runs that were neither redriven nor discarded."),
    "late_schedules": Kind("gauge", "Schedules that have not started a run that is due."),
    "mcp_servers": Kind("gauge", "MCP servers by their state.", ("state",)),
    "mcp_flapping_servers": Kind("gauge", "MCP servers that change their state too often."),
    "mcp_checks": Kind("counter", "Health checks of MCP servers by their result.", ("reason",)),
    "mcp_check_latency_seconds": Kind("histogram", "Time in which MCP servers answered health checks."),
    "mcp_certificate_expiry_timestamp_seconds": Kind(
        "gauge", "Expiry of the TLS certificate of an MCP server, as Unix time.", ("server",)
    ),
    "open_incidents": Kind("gauge", "Incidents that are not closed.", ("kind",)),
    "changed_tools": Kind("gauge", "Tools that differ from the approved ones."),
    "deleted_keys": Kind("counter", "Keys deleted in the checkpoint Redis by maintenance.", ("kind",)),
    "deleted_threads": Kind("counter", "Whole threads deleted by maintenance.", ("kind",)),
    "checkpoint_keys": Kind("gauge", "Checkpoint keys at the last sampling."),
    "checkpoint_bytes": Kind("gauge", "Memory of the checkpoint keys, estimated at the last sampling."),
    "checkpoint_threads": Kind("gauge", "Threads at the last sampling."),
    "redis_memory_bytes": Kind("gauge", "Memory of the checkpoint Redis at the last sampling."),
    "redis_evicted_keys": Kind("counter", "Keys evicted by the checkpoint Redis up to the last sampling."),
    "storage_sampled_timestamp_seconds": Kind(
        "gauge", "Time of the last sampling of the checkpoint Redis, as Unix time."
    ),
}

# States of servers by their names on the overview. Any other status is written in lower case.
STATES = {
    logic.UP: "up",
    logic.DOWN: "down",
    logic.STALE: "not_checked_in_time",
    logic.NOT_CHECKED: "not_checked_yet",
    f"{logic.NEVER_CHECKED} (STDIO)": "never_checked",
}
# Values of a sampling, by the names above.
SAMPLED = {
    "checkpoint_keys": "checkpoint_keys",
    "checkpoint_bytes": "checkpoint_bytes",
    "checkpoint_threads": "thread_count",
    "redis_memory_bytes": "memory_bytes",
    "redis_evicted_keys": "evicted_keys",
}

# Name, labels and value.
Sample = tuple[str, list[str], float]


def collect() -> Iterator[Metric]:
    """Yield all metrics.

    Nautobot also reads them after every ``migrate``, ``migrate ai_ops zero`` included. If the tables are not those of
    this version, the metrics have no values.
    """
    families = _families()
    try:
        with transaction.atomic():
            for reading in READINGS:
                reading(families)
    except ProgrammingError as error:
        logger.warning("The metrics have no values, because the app's tables are not migrated: %s", error)
        families = _families()
    yield from families.values()


def _families() -> dict[str, Any]:
    return {name: FAMILIES[kind.type](PREFIX + name, kind.what, labels=kind.labels) for name, kind in KINDS.items()}


def _reading(samples: Callable[[], Iterable[Sample]]) -> Callable[[dict[str, Any]], None]:
    def read(families: dict[str, Any]) -> None:
        for name, labels, value in samples():
            families[name].add_metric(labels, value)

    return read


def _read_totals(families: dict[str, Any]) -> None:
    """Return counters and histograms. Absent events count as 0, so that no series starts with an increase."""
    found = {(each.name, each.labels): each for each in totals.totals()}
    for kind in MaintenanceKindChoices.values():
        ended = [found.get((totals.RUNS, (kind, state))) for state in RunStateChoices.FINAL]
        for state, total in zip(RunStateChoices.FINAL, ended, strict=True):
            families["runs"].add_metric([kind, state], total.count if total else 0)
        worked = [each for each in ended if each and each.labels[1] != RunStateChoices.SKIPPED]
        _add_histogram(families["run_duration_seconds"], [kind], worked, RUN_BUCKETS)
        for name, prefix in (("deleted_keys", totals.KEYS), ("deleted_threads", totals.THREADS)):
            total = found.get((prefix, (kind,)))
            families[name].add_metric([kind], total.count if total else 0)
    reasons = (totals.WELL, *Reason)
    checks = [found.get((totals.CHECKS, (reason,))) for reason in reasons]
    for reason, total in zip(reasons, checks, strict=True):
        families["mcp_checks"].add_metric([reason], total.count if total else 0)
    answered = [each for each in checks if each and each.labels == (totals.WELL,)]
    _add_histogram(families["mcp_check_latency_seconds"], [], answered, CHECK_BUCKETS)


def _add_histogram(family: Any, labels: list[str], found: Iterable[totals.Counted], ends: tuple[float, ...]) -> None:
    found = list(found)
    counts = accumulate(sum(each.buckets[place] for each in found) for place in range(len(ends)))
    buckets = [(floatToGoString(end), float(count)) for end, count in zip(ends, counts, strict=True)]
    buckets.append(("+Inf", float(sum(each.count for each in found))))
    family.add_metric(labels, buckets, sum(each.size for each in found))


@_reading
def _read_runs() -> Iterator[Sample]:
    """Return gauges of the runs that have not ended, read by an index."""
    rows = MaintenanceRun.objects.filter(state__in=UNFINISHED).order_by().values_list("kind", "state")
    found = {(kind, state): count for kind, state, count in rows.annotate(count=Count("pk"))}
    for kind in MaintenanceKindChoices.values():
        for state in UNFINISHED:
            yield "active_runs", [kind, state], found.get((kind, state), 0)
    yield "dead_letters", [], dead_letters(MaintenanceRun.objects.all()).count()


@_reading
def _read_overview() -> Iterator[Sample]:
    """Return gauges of the facts on the overview."""
    page = Overview(unrestricted_user(), timezone.now())
    for kind, ended in page.successes[0].items():
        yield "seconds_since_last_success", [kind], max(0.0, (page.now - ended).total_seconds())
    yield "late_schedules", [], sum(status.late for status in page.all_statuses)
    states = {STATES.get(state, state.lower()): count for state, count in page.states.items()}
    for state in (*STATES.values(), *sorted(set(states) - set(STATES.values()))):
        yield "mcp_servers", [state], states.get(state, 0)
    yield "mcp_flapping_servers", [], sum(server.facts.flapping for server in page.fleet.listed)
    for name, ends in queries.certificate_ends(page.user):
        yield "mcp_certificate_expiry_timestamp_seconds", [name], ends.timestamp()
    yield "changed_tools", [], queries.changed_tools(page.user)


@_reading
def _read_incidents() -> Iterator[Sample]:
    rows = MCPServerIncident.objects.filter(closed__isnull=True).order_by().values_list("kind")
    found = dict(rows.annotate(count=Count("pk")))
    for kind in MCPIncidentKindChoices.values():
        yield "open_incidents", [kind], found.get(kind, 0)


@_reading
def _read_storage() -> Iterator[Sample]:
    snapshot = CheckpointStorageSnapshot.objects.filter(data__success=True).order_by("-taken").first()
    if snapshot is None:
        return
    for name, key in SAMPLED.items():
        if (value := snapshot.data.get(key)) is not None:
            yield name, [], value
    yield "storage_sampled_timestamp_seconds", [], snapshot.taken.timestamp()


READINGS: tuple[Callable[[dict[str, Any]], None], ...] = (
    _read_totals,
    _read_runs,
    _read_overview,
    _read_incidents,
    _read_storage,
)
metrics = [collect]
