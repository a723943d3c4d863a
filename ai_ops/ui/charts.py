"""Charts of the app's pages: their colours, and a panel with a text alternative to its chart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.template import Context
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from nautobot.apps.ui import EChartsPanel

# Nautobot's own green, red and grey of its status labels.
GREEN, RED, GREY = "#2f9e44", "#e03131", "#868e96"

# For the name of an axis. Nautobot's colour is not readable on a light page.
READABLE_NAME = {"nameTextStyle": {"color": GREY}}
AMBER, BLUE = "#f08c00", "#1c7ed6"


class ReadableChartPanel(EChartsPanel):
    """A chart, and its figures as a table for screen readers."""

    def __init__(self, **options: Any) -> None:
        super().__init__(body_wrapper_template_path="ai_ops/inc/chart.html", **options)

    def get_extra_context(self, context: Context) -> dict[str, Any]:
        """Add the figures."""
        figures = figures_table(self.chart.get_transform_data(context), str(self.label))
        return {**super().get_extra_context(context), "figures": figures, "chart_name": self.label}


def figures_table(data: Mapping[str, Any], caption: str) -> SafeString:
    """Return the figures of a chart as a table: a row for each point, a column for each series."""
    series = data["series"]
    heads = format_html_join("", '<th scope="col">{}</th>', ((each["name"],) for each in series))
    rows = format_html_join(
        "",
        '<tr><th scope="row">{}</th>{}</tr>',
        (
            (point, format_html_join("", "<td>{}</td>", ((_figure(each["data"], number),) for each in series)))
            for number, point in enumerate(data["x"])
        ),
    )
    return format_html(
        "<table><caption>{}</caption><thead><tr><td></td>{}</tr></thead><tbody>{}</tbody></table>", caption, heads, rows
    )


def _figure(values: list[Any], number: int) -> str:
    value = values[number] if number < len(values) else None
    return "none" if value is None else f"{value:,.10g}"
