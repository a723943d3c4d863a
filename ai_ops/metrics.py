"""Metrics for Prometheus at Nautobot's /metrics/. Each is one query that an index answers, or one a kind."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from functools import wraps

from django.db import ProgrammingError, transaction
from django.db.models import Count
from django.utils import timezone
from prometheus_client.metrics_core import GaugeMetricFamily

from ai_ops.choices import MaintenanceKindChoices, MCPServerStatus, RunStateChoices
from ai_ops.models import MaintenanceRun, MCPServer, MCPServerIncident
from ai_ops.runs.dead_letters import dead_letters

logger = logging.getLogger(__name__)

# Older runs are history: they would have the whole table counted at every scrape.
WINDOW = timedelta(hours=24)

Samples = Iterable[tuple[list[str], float]]
Metric = Callable[[], Iterator[GaugeMetricFamily]]


def gauge(name: str, what: str, *labels: str) -> Callable[[Callable[[], Samples]], Metric]:
    """Make a metric of a function that gives values with their labels.

    Nautobot asks for all metrics after every ``migrate`` too, ``migrate ai_ops zero`` included: where the tables are
    not there, there is a metric without a value.
    """

    def metric_of(measure: Callable[[], Samples]) -> Metric:
        @wraps(measure)
        def metric() -> Iterator[GaugeMetricFamily]:
            family = GaugeMetricFamily(name, what, labels=labels)
            try:
                with transaction.atomic():
                    for values, value in measure():
                        family.add_metric(values, value)
            except ProgrammingError as error:
                logger.warning("%s has no value, as the app's tables are not as it needs them: %s", name, error)
            yield family

        return metric

    return metric_of


@gauge("nautobot_ai_ops_runs", "Maintenance runs requested in the last 24 hours", "kind", "state")
def runs() -> Samples:
    """Runs of the last day; each kind and state has a value, so that none begins with an increase."""
    recent = MaintenanceRun.objects.filter(created__gt=timezone.now() - WINDOW).order_by()
    counts = recent.values_list("kind", "state").annotate(count=Count("pk"))
    found = {(kind, state): count for kind, state, count in counts}
    for kind in MaintenanceKindChoices.values():
        for state in RunStateChoices.values():
            yield [kind, state], found.get((kind, state), 0)


@gauge("nautobot_ai_ops_dead_letters", "Dead maintenance runs that wait for a decision")
def waiting_runs() -> Samples:
    """Dead runs that wait for a decision, of any age."""
    yield [], dead_letters(MaintenanceRun.objects.all()).count()


@gauge("nautobot_ai_ops_seconds_since_last_success", "Seconds since a maintenance run succeeded", "kind")
def last_success() -> Samples:
    """Seconds since the last success of each kind; a kind without one is left out."""
    now = timezone.now()
    for kind in MaintenanceKindChoices.values():
        # The newest of a kind is found by its index; grouping would read every row.
        succeeded = MaintenanceRun.objects.filter(kind=kind, state=RunStateChoices.SUCCEEDED, finished__isnull=False)
        finished = succeeded.order_by("-created").values_list("finished", flat=True).first()
        if finished is not None:
            yield [kind], max(0.0, (now - finished).total_seconds())


@gauge("nautobot_ai_ops_unhealthy_servers", "MCP servers that are down")
def unhealthy_servers() -> Samples:
    """MCP servers whose status is Unhealthy."""
    yield [], MCPServer.objects.filter(status__name=MCPServerStatus.UNHEALTHY).count()


@gauge("nautobot_ai_ops_open_incidents", "MCP server incidents that are not over")
def open_incidents() -> Samples:
    """Incidents that are not closed."""
    yield [], MCPServerIncident.objects.filter(closed__isnull=True).count()


metrics = [runs, waiting_runs, last_success, unhealthy_servers, open_incidents]
