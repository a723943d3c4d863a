"""The charts on a server's page: latency and results of its checks, over a window that the user chooses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.template import Context
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe
from django.utils.text import slugify
from nautobot.apps.ui import EChartsTypeChoices, SectionChoices
from nautobot.apps.views import get_obj_from_context

from ai_ops.details.health import VIEW_CHECKS, CheckedServerPanelMixin
from ai_ops.mcp.history import WINDOWS, Bucket, buckets
from ai_ops.ui.charts import GREEN, GREY, READABLE_NAME, RED, ReadableChartPanel


@dataclass(frozen=True)
class ChartWindow:
    """A period of time that charts can show.

    Attributes:
        name: Its name on the page.
        length: Its length.
        width: The time that one point of a chart covers. More than about a hundred points are hard to distinguish.
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


SERVER_CHARTS = (
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
)
