"""The panels on a server's page that show its checks and incidents."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.template import Context
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe
from django.utils.text import slugify
from nautobot.apps.ui import (
    EChartsTypeChoices,
    ObjectsTablePanel,
    Panel,
    SectionChoices,
)
from nautobot.apps.views import get_obj_from_context

from ai_ops.mcp.history import WINDOWS, Bucket, Statistics, buckets, statistics
from ai_ops.models.health import MCPServerHealth
from ai_ops.tables import (
    MCPServerCheckTable,
    MCPServerIncidentTable,
    certificate_badge,
    milliseconds,
    percent,
)
from ai_ops.ui.charts import GREEN, GREY, READABLE_NAME, RED, ReadableChartPanel
from ai_ops.ui.panels import FactsPanel
from ai_ops.ui.times import ago

VIEW_HEALTH = ("ai_ops.view_mcpserverhealth",)
VIEW_CHECKS = ("ai_ops.view_mcpservercheck",)


@dataclass(frozen=True)
class ChartWindow:
    """A stretch of time that charts can show.

    Attributes:
        name: Its name on the page.
        length: Its length.
        width: The time that a point of a chart stands for. More than about a hundred points are hard to tell apart.
        time_format: Format of the time of a point.
    """

    name: str
    length: timedelta
    width: timedelta
    time_format: str


# By their names in the query string. With a check every ten minutes no point is empty, and all points of a day have the
# same number of checks.
CHART_WINDOWS = {
    "24h": ChartWindow("24 hours", WINDOWS["24 hours"], timedelta(minutes=20), "%a %H:%M"),
    "7d": ChartWindow("7 days", WINDOWS["7 days"], timedelta(hours=2), "%a %d %b %H:%M"),
    "30d": ChartWindow("30 days", WINDOWS["30 days"], timedelta(hours=6), "%d %b %H:%M"),
}

# Pixels around a chart. The default leaves a fifth of a wide panel empty.
FULL_WIDTH = {"left": 60, "right": 30, "top": 30, "bottom": 60}

# A server that is checked once an hour has no neighbouring points to join by a line, so each is drawn as a dot.
EVERY_POINT = {"showAllSymbol": True, "symbol": "circle", "symbolSize": 4}


class CheckedServerPanelMixin:
    """A panel that is shown only for a server that was checked."""

    def should_render(self, context: Context) -> bool:
        """Hide the panel for a server that was never checked, without computing its data."""
        return Panel.should_render(self, context) and _health(context) is not None


class HealthPanel(CheckedServerPanelMixin, FactsPanel):
    """The latest check in words, and the times of the last passed and failed checks."""

    def get_data(self, context: Context) -> dict[str, Any]:
        """Return the known facts, by label."""
        health = _health(context)
        return {
            "Last check": ago(health.checked),
            "Result": {True: "OK", False: health.reason, None: f"Not checked ({health.reason})"}[health.ok],
            "Answer": health.message,
            "Latency": milliseconds(health.latency_ms),
            "Last OK": ago(health.last_ok),
            "Last failure": ago(health.last_failure),
            "Reason of the last failure": health.last_failure_reason,
            "Changes": f"{health.change_percent:.0f} % of the last probes{', flapping' if health.flapping else ''}",
            "Server": " ".join(filter(None, (health.server_name, health.server_version))) or None,
            "MCP": health.protocol_version or None,
            "TLS certificate expires": _certificate(health),
            "No requests before": ago(_still_to_come(health.retry_at)),
        }


def _certificate(health: MCPServerHealth) -> str | None:
    """Return when the certificate ends, and how many days are left."""
    if not health.certificate_ends:
        return None
    return format_html("{} {}", ago(health.certificate_ends), certificate_badge(health.certificate_days))


class StatisticsPanel(CheckedServerPanelMixin, FactsPanel):
    """Uptime and latency over the three windows."""

    def get_data(self, context: Context) -> dict[str, str]:
        """Return a line for each window."""
        return {
            name.capitalize(): (
                f"{percent(found.uptime_percent)} of {found.probes:,} probes{_latency(found)}"
                if found.probes
                else "no probes"
            )
            for name, found in statistics(get_obj_from_context(context)).items()
        }


def _latency(found: Statistics) -> str:
    """Return the latency text after the uptime; empty without a passed check."""
    if found.p50_ms is None:
        return ""
    return f"; p50 {milliseconds(found.p50_ms)}, p95 {milliseconds(found.p95_ms)}"


class CheckChartPanel(CheckedServerPanelMixin, ReadableChartPanel):
    """A chart of the checks in the chosen window; its header offers the windows.

    Args:
        title: Title of the panel.
        series: Returns the series of the chart for the checks at each point.
        unit: Unit of the vertical axis.
        config: Further options of ECharts.
        options: Options of any panel.
    """

    def __init__(
        self,
        title: str,
        series: Callable[[list[Bucket]], list[dict[str, Any]]],
        *,
        chart_type: str,
        unit: str,
        config: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(
            label=title,
            section=SectionChoices.FULL_WIDTH,
            required_permissions=VIEW_CHECKS,
            chart_kwargs={
                "chart_type": chart_type,
                "data": lambda context: _chart_data(context, series),
                "x_label": "",
                "y_label": unit,
                "show_toolbox": False,
                "additional_config": {
                    "tooltip": {"trigger": "axis"},
                    "grid": FULL_WIDTH,
                    **(config or {}),
                    "yAxis": READABLE_NAME | (config or {}).get("yAxis", {}),
                },
            },
            **options,
        )

    def render_label(self, context: Context) -> str:
        """Add the name of the shown window."""
        return f"{super().render_label(context)}, LAST {_chosen(context).name.upper()}"

    def render_header_extra_content(self, context: Context) -> SafeString:
        """Offer the windows."""
        chosen = _chosen(context)
        # The reloaded page shows the same chart.
        place = slugify(self.label)
        links = format_html_join(
            "",
            '<a class="btn btn-sm btn-{}" href="?window={}#{}"{}>{}</a>',
            (
                (
                    "primary active" if window is chosen else "secondary",
                    key,
                    place,
                    mark_safe(' aria-current="true"') if window is chosen else "",
                    window.name,
                )
                for key, window in CHART_WINDOWS.items()
            ),
        )
        # Above the link that collapses the panel, which covers the whole header.
        return format_html('<div class="btn-group position-relative z-2 d-print-none" id="{}">{}</div>', place, links)


def _still_to_come(moment: datetime | None) -> datetime | None:
    return moment if moment and moment > timezone.now() else None


def _health(context: Context) -> MCPServerHealth | None:
    # The attribute caches the row, so that all panels read it once.
    return getattr(get_obj_from_context(context), "health", None)


def _chosen(context: Context) -> ChartWindow:
    """Return the window from the page's query string; a day if there is no valid one."""
    return CHART_WINDOWS.get(context["request"].GET.get("window", ""), CHART_WINDOWS["24h"])


def _chart_data(context: Context, series: Callable[[list[Bucket]], list[dict[str, Any]]]) -> dict[str, Any]:
    """Return chart data in Nautobot's format. Both charts use the same checks, read once per page."""
    server, window = get_obj_from_context(context), _chosen(context)
    kept = server.__dict__.setdefault("_chart_buckets", {})
    if window not in kept:
        kept[window] = buckets(server, window.length, window.width)
    found = kept[window]
    return {
        "x": [timezone.localtime(bucket.start).strftime(window.time_format) for bucket in found],
        "series": series(found),
    }


def _latencies(found: list[Bucket]) -> list[dict[str, Any]]:
    return [
        {"name": "p50", "data": [_rounded(bucket.p50_ms) for bucket in found]},
        {"name": "p95", "data": [_rounded(bucket.p95_ms) for bucket in found]},
    ]


def _outcomes(found: list[Bucket]) -> list[dict[str, Any]]:
    return [
        {"name": "OK", "data": [bucket.passed for bucket in found]},
        {"name": "failed", "data": [bucket.failed for bucket in found]},
        {"name": "not checked", "data": [bucket.unknown for bucket in found]},
    ]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


HEALTH_PANELS = (
    HealthPanel(
        weight=200,
        section=SectionChoices.RIGHT_HALF,
        label="Latest check",
        required_permissions=VIEW_HEALTH,
        hide_if_unset=("Server", "MCP", "TLS certificate expires", "No requests before"),
    ),
    StatisticsPanel(
        weight=100, section=SectionChoices.FULL_WIDTH, label="Uptime and latency", required_permissions=VIEW_CHECKS
    ),
    CheckChartPanel(
        "Latency",
        _latencies,
        weight=400,
        chart_type=EChartsTypeChoices.LINE,
        unit="ms",
        chart_height="16rem",
        config={"series": [EVERY_POINT, EVERY_POINT]},
    ),
    CheckChartPanel(
        "Checks",
        _outcomes,
        weight=500,
        chart_type=EChartsTypeChoices.BAR,
        unit="probes",
        chart_height="12rem",
        config={
            "yAxis": {"minInterval": 1},
            "series": [{"stack": "all", "itemStyle": {"color": color}} for color in (GREEN, RED, GREY)],
        },
    ),
    ObjectsTablePanel(
        weight=150,
        section=SectionChoices.LEFT_HALF,
        table_class=MCPServerIncidentTable,
        table_filter="servers",
        table_title="Incidents",
        exclude_columns=("reason", "closed", "escalated", "actions"),
        max_display_count=5,
        add_button_route=None,
        required_permissions=("ai_ops.view_mcpserverincident",),
    ),
    ObjectsTablePanel(
        weight=600,
        section=SectionChoices.FULL_WIDTH,
        table_class=MCPServerCheckTable,
        table_filter="server",
        table_title="Recent checks",
        exclude_columns=("server",),
        order_by_fields=("-time",),
        max_display_count=10,
        add_button_route=None,
        required_permissions=VIEW_CHECKS,
    ),
)
