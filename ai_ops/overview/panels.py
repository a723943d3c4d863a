"""The panels of the overview, as Nautobot UI components. Each reads its data when it is rendered."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from django.template import Context
from django.template.defaultfilters import filesizeformat
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from nautobot.apps.ui import (
    DataTablePanel,
    EChartsBase,
    EChartsTypeChoices,
    SectionChoices,
)

from ai_ops.choices import MaintenanceKindChoices, RunStateChoices
from ai_ops.kinds import DEFAULT_SCHEDULES
from ai_ops.overview import logic
from ai_ops.overview.page import CHANGES, CHECKS, RUNS, SCHEDULES, SERVERS, STORAGE, Overview
from ai_ops.tables import milliseconds, percent
from ai_ops.ui.charts import AMBER, BLUE, GREEN, GREY, READABLE_NAME, RED, ReadableChartPanel
from ai_ops.ui.panels import FactsPanel
from ai_ops.ui.time_markup import ago

# Nautobot's own margins around a chart leave a fifth of a panel empty.
GRID = {"left": 60, "right": 20, "top": 30, "bottom": 30}
LEGEND = {"top": 0, "right": 10}
BADGE = '<span class="badge bg-{}">{}</span>'

SERVER_COLORS = {logic.UP: GREEN, logic.DOWN: RED, logic.STALE: AMBER}
OUTCOMES = (
    (RunStateChoices.SUCCEEDED, GREEN),
    (RunStateChoices.FAILED, RED),
    (RunStateChoices.DEAD, "#7a1f1f"),
    (RunStateChoices.LOST, AMBER),
    (RunStateChoices.INTERRUPTED, BLUE),
    (RunStateChoices.SKIPPED, GREY),
)


def overview_of(context: Context) -> Overview:
    """Return the overview from the context."""
    return context["overview"]


class OverviewPanel:
    """A panel of the overview. Its body has a constant id for refreshes.

    It is rendered without the request. With the request, Nautobot would build its menu for each of the three templates
    of a panel, which takes longer than the whole panel.
    """

    # Nautobot 3.2.0 has no initially collapsed panels.
    collapsed = False

    def refreshed(self) -> Iterator[str]:
        """Return the ids of the elements to replace, with the method of replacement."""
        yield f"#{self.body_id}:innerHTML"

    def render(self, context: Context) -> str:
        """Render the panel as Nautobot does."""
        if not self.should_render(context):
            return ""
        with context.update(self.get_extra_context(context)):
            parts = {
                "component": self,
                "label": self.render_label(context),
                "css_class": self.css_class,
                "header_extra_content": self.render_header_extra_content(context),
                "body": self.render_body(context),
                "footer_content": self.render_footer_content(context),
                "body_id": self.body_id,
                "collapsed": self.collapsed,
            }
        return render_to_string(self.template_path, parts)

    def render_body(self, context: Context) -> str:
        """Render the body as Nautobot does."""
        content = self.render_body_content(context)
        parts = {"body_id": self.body_id, "body_content": content, "collapsed": self.collapsed}
        return render_to_string(self.body_wrapper_template_path, context.flatten() | parts)


class RowsPanel(OverviewPanel, DataTablePanel):
    """A table with rows from a function, or a sentence if there are no rows.

    Args:
        rows: Returns the rows for an Overview.
        nothing: The sentence if there are no rows.
        columns: Headers by column name.
        options: Options of any panel.
    """

    def __init__(
        self, rows: Callable[[Overview], list[dict[str, Any]]], nothing: str, columns: dict[str, str], **options: Any
    ) -> None:
        super().__init__(
            context_data_key="rows", columns=list(columns), column_headers=list(columns.values()), **options
        )
        self._rows, self._nothing = rows, nothing

    def get_extra_context(self, context: Context) -> dict[str, Any]:
        """Add the rows."""
        return {**super().get_extra_context(context), "data": self._rows(overview_of(context))}

    def render_body_content(self, context: Context) -> str:
        """Show a sentence if there are no rows."""
        if context["data"]:
            shown = {name: context[name] for name in ("data", "columns", "column_headers")}
            return render_to_string(self.body_content_template_path, shown)
        return format_html('<tbody><tr><td class="p-12 text-secondary">{}</td></tr></tbody>', self._nothing)


class ChartPanel(OverviewPanel, ReadableChartPanel):
    """A chart with its content as a line of text below it.

    Args:
        name: The id of the chart on the page.
        summary: Returns that line for an Overview.
        options: Options of any panel.
    """

    def __init__(self, name: str, summary: Callable[[Overview], str], **options: Any) -> None:
        super().__init__(chart_container_id=f"ai-ops-{name}", chart_height="12rem", **options)
        self._summary = summary

    def refreshed(self) -> Iterator[str]:
        """Return the ids of the data, which a script of the page gives to the chart, and of the text."""
        yield f"#echarts-config-{self.body_id}:innerHTML"
        yield f"#{self.body_id}-figures:innerHTML"
        yield f"#{self.body_id}-summary:innerHTML"

    def render_footer_content(self, context: Context) -> str:
        """Describe the chart."""
        return format_html('<small id="{}-summary">{}</small>', self.body_id, self._summary(overview_of(context)))


# --------------------------------------------------------------------------------------------
# Servers that are down, and the machinery


def outage_rows(overview: Overview) -> list[dict[str, Any]]:
    """Return the servers that are down, unacknowledged outages first."""
    rows = [_outage_row(overview, outage) for outage in overview.outages]
    if (more := len(overview.down) - len(rows)) > 0:
        address = next(line.address for line in overview.lines if line.need.key == "down")
        rows.append({"server": format_html('<a href="{}">and {} more</a>', address, f"{more:,}")})
    return rows


def _outage_row(overview: Overview, outage: logic.Outage) -> dict[str, Any]:
    _, message = overview.messages.get(outage.server, ("", ""))
    address = reverse("plugins:ai_ops:mcpserver", kwargs={"pk": outage.server})
    return {
        "server": _link(address, overview.names[outage.server]),
        "since": ago(outage.since, overview.now) or "never up",
        "why": format_html('<span style="overflow-wrap: anywhere">{}</span>', message) if message else None,
        "acknowledged": _acknowledged(outage),
    }


def _link(address: str, name: str) -> str:
    # A name has up to 255 characters and may have no spaces. A short name stays on one line.
    style = "display: inline-block; min-width: 6rem; overflow-wrap: anywhere"
    return format_html('<a href="{}" style="{}">{}</a>', address, style, name)


def _acknowledged(outage: logic.Outage) -> Any:
    if outage.incident is None:
        return None
    address = reverse("plugins:ai_ops:mcpserverincident", kwargs={"pk": outage.incident})
    return format_html('<a href="{}">{}</a>', address, outage.acknowledged_by or "Not acknowledged")


def machine_rows(overview: Overview) -> list[dict[str, Any]]:
    """Return the state of each kind of maintenance."""
    kinds = dict(MaintenanceKindChoices.CHOICES)
    runs = reverse("plugins:ai_ops:maintenancerun_list")
    rows = []
    for machine in overview.machines:
        level, word = logic.machine_state(machine, overview.now)
        rows.append(
            {
                "kind": format_html('<a href="{}?kind={}">{}</a>', runs, machine.kind, kinds[machine.kind])
                if overview.sees(RUNS)
                else kinds[machine.kind],
                "state": format_html(BADGE, level, word) if overview.sees(SCHEDULES) else None,
                "last": ago(machine.last_success, overview.now),
                "next": ago(machine.next_run, overview.now),
                "note": logic.why_no_success(machine, overview.now) if overview.sees(SCHEDULES) else None,
            }
        )
    return rows


class MachineryPanel(RowsPanel):
    """The state of each kind of maintenance, for users with permission to view runs or schedules."""

    def should_render(self, context: Context) -> bool:
        """Show the panel if the user may view one of its columns."""
        overview = overview_of(context)
        return overview.sees(RUNS) or overview.sees(SCHEDULES)


# --------------------------------------------------------------------------------------------
# Servers


class ServersChart(EChartsBase):
    """The servers by state, each in its colour."""

    def get_config(self, context: Context | None = None) -> dict[str, Any]:
        """Return the colours of the present states."""
        config = super().get_config(context)
        states = _state_counts(overview_of(context))
        config["color"] = [SERVER_COLORS.get(state, GREY) for state in states]
        config["legend"] = {"orient": "vertical", "right": 10, "top": "center"}
        return config


def _state_counts(overview: Overview) -> dict[str, int]:
    first = (logic.UP, logic.DOWN, logic.STALE, logic.NOT_CHECKED)
    order = sorted(overview.states, key=lambda state: (first.index(state) if state in first else len(first), state))
    return {state: overview.states[state] for state in order}


def _servers_data(context: Context) -> dict[str, Any]:
    counts = _state_counts(overview_of(context))
    ring = {"name": "Servers", "data": list(counts.values()), "radius": ["45%", "80%"], "center": ["30%", "50%"]}
    return {"x": [f"{state}: {count:,}" for state, count in counts.items()], "series": [ring]}


def _servers_summary(overview: Overview) -> str:
    counts = _state_counts(overview)
    return "; ".join(f"{state}: {count:,}" for state, count in counts.items()) or "No servers yet."


def _checks_data(context: Context) -> dict[str, Any]:
    hours = overview_of(context).hours
    return {
        "x": _hour_names(hours),
        "series": [
            {"name": "OK", "data": [hour.passed for hour in hours]},
            {"name": "failed", "data": [hour.failed for hour in hours]},
            {"name": "not checked", "data": [hour.unknown for hour in hours]},
        ],
    }


def _latency_data(context: Context) -> dict[str, Any]:
    hours = overview_of(context).hours
    latencies = [None if hour.p50_ms is None else round(hour.p50_ms, 1) for hour in hours]
    return {"x": _hour_names(hours), "series": [{"name": "median", "data": latencies}]}


def _hour_names(hours: list[Any]) -> list[str]:
    return [timezone.localtime(hour.start).strftime("%a %H:%M") for hour in hours]


def _checks_summary(overview: Overview) -> str:
    passed = sum(hour.passed for hour in overview.hours)
    failed = sum(hour.failed for hour in overview.hours)
    if not passed + failed:
        return "No checks in the last 24 h."
    return f"{passed + failed:,} checks in 24 h, {percent(100 * passed / (passed + failed))} OK."


def _latency_summary(overview: Overview) -> str:
    known = [hour.p50_ms for hour in overview.hours if hour.p50_ms is not None]
    if not known:
        return "No check in the last 24 h was OK."
    return (
        f"Median by hour: now {milliseconds(known[-1])}, between {milliseconds(min(known))} and "
        f"{milliseconds(max(known))} in 24 h."
    )


def uptime_rows(overview: Overview) -> list[dict[str, Any]]:
    """Return the servers with the lowest uptime, flapping servers first."""
    return [
        {
            "server": _link(reverse("plugins:ai_ops:mcpserver", kwargs={"pk": server.pk}), server.name),
            "uptime": percent(uptime),
            "flapping": format_html(BADGE, "warning", "flapping") if server.facts.flapping else "",
        }
        for server, uptime in overview.worst
    ]


# --------------------------------------------------------------------------------------------
# Runs, checkpoints, changes


def _runs_data(context: Context) -> dict[str, Any]:
    days = overview_of(context).runs_by_day
    names = dict(RunStateChoices.CHOICES)
    return {
        "x": [day.strftime("%d %b") for day in days],
        "series": [
            {"name": names[state], "data": [states[state] for states in days.values()]} for state, _ in OUTCOMES
        ],
    }


def _runs_summary(overview: Overview) -> str:
    names = dict(RunStateChoices.CHOICES)
    totals = {
        names[state].lower(): sum(states[state] for states in overview.runs_by_day.values()) for state, _ in OUTCOMES
    }
    counts = ", ".join(f"{count:,} {name}" for name, count in totals.items() if count)
    return f"In 14 days: {counts}." if counts else "No run ended in the last 14 days."


class CheckpointsPanel(OverviewPanel, FactsPanel):
    """The result of the last sampling, its trend, and the buttons for the cleanup."""

    def get_data(self, context: Context) -> dict[str, Any]:
        """Return the known facts, by label."""
        return checkpoint_facts(overview_of(context))

    def render_key(self, key: str, value: Any, context: Context) -> str:
        """Keep the capital letters of the label."""
        return key

    def render_header_extra_content(self, context: Context) -> str:
        """Add the buttons that open the form of the cleanup, for users who may run it."""
        if not overview_of(context).may_clean_up:
            return ""
        path = DEFAULT_SCHEDULES["cleanup"].class_path
        form = reverse("extras:job_run_by_class_path", kwargs={"class_path": path})
        # Above the link that collapses the panel, which covers the whole header.
        return format_html(
            '<div class="d-flex gap-8 position-relative z-2 d-print-none">'
            '<a class="btn btn-sm btn-primary" href="{0}?dryrun=True">Dry run</a>'
            '<a class="btn btn-sm btn-secondary" href="{0}">Clean up</a></div>',
            form,
        )


def checkpoint_facts(overview: Overview) -> dict[str, Any]:
    """Return facts about the last sampling, by label."""
    good = next((sample for sample in overview.samples if not sample.error), None)
    facts: dict[str, Any] = {"Sampled": _sampled(overview)}
    if good is None:
        return facts
    facts["Keys"] = f"{good.keys or 0:,}"
    if good.checkpoint_bytes is not None:
        facts["Memory"] = f"about {filesizeformat(good.checkpoint_bytes)}"
    facts["Trend"] = _trend(overview, good)
    facts["The next cleanup would delete"] = (
        f"{good.cleanup['deleted_count']:,} keys, {good.cleanup['threads_deleted']:,} whole threads"
        if good.cleanup
        else "Not known: not all keys were sampled."
    )
    return facts


def _sampled(overview: Overview) -> Any:
    page = reverse("plugins:ai_ops:checkpointstorage")
    if not overview.samples:
        return format_html('<a href="{}">Never</a>', page)
    newest = overview.samples[0]
    when = format_html('<a href="{}">{}</a>', page, ago(newest.taken, overview.now))
    if newest.error:
        return format_html("{} " + BADGE + " {}", when, "danger", "failed", newest.error)
    period = overview.all_machines[MaintenanceKindChoices.STORAGE].every
    if logic.is_stale(newest.taken, period, overview.now):
        return format_html("{} " + BADGE, when, "secondary", "out of date")
    return when


def _trend(overview: Overview, good: Any) -> str:
    if overview.first_sample is None:
        return "Not known yet."
    taken, keys = overview.first_sample
    return logic.trend(keys, good.keys, good.taken - taken) or "Not known until the next sampling."


def change_rows(overview: Overview) -> list[dict[str, Any]]:
    """Return the latest entries of the change log."""
    return [
        {
            "when": ago(change.time, overview.now),
            "what": _link(change.get_absolute_url(), change.object_repr),
            "action": change.get_action_display(),
            "user": change.user_name,
        }
        for change in overview.changes
    ]


def _chart(kind: str, data: Callable[[Context], dict[str, Any]], unit: str, **config: Any) -> dict[str, Any]:
    return {
        "chart_type": kind,
        "data": data,
        "x_label": "",
        "y_label": unit,
        "show_toolbox": False,
        "legend": LEGEND,
        "additional_config": {"grid": GRID, "yAxis": READABLE_NAME, "tooltip": {"trigger": "axis"}, **config},
    }


def _stacked(*colors: str) -> list[dict[str, Any]]:
    return [{"stack": "all", "itemStyle": {"color": color}} for color in colors]


FIRST_PANELS = (
    RowsPanel(
        outage_rows,
        "No server is known to be down.",
        {"server": "Server", "since": "Down since", "why": "Reason and advice", "acknowledged": "Acknowledged by"},
        weight=100,
        label="Down now",
        body_id="ai-ops-down-now",
        required_permissions=[SERVERS],
    ),
    MachineryPanel(
        machine_rows,
        "There are no kinds of maintenance to show.",
        {"kind": "Maintenance", "state": "State", "last": "Last success", "next": "Next run", "note": "Note"},
        weight=200,
        label="Machinery",
        body_id="ai-ops-machinery",
    ),
)
LEFT_PANELS = (
    ChartPanel(
        "servers",
        _servers_summary,
        weight=100,
        section=SectionChoices.LEFT_HALF,
        label="Servers by state",
        chart_class=ServersChart,
        chart_kwargs={"chart_type": EChartsTypeChoices.PIE, "data": _servers_data, "show_toolbox": False},
        required_permissions=[SERVERS],
    ),
    ChartPanel(
        "checks",
        _checks_summary,
        weight=200,
        section=SectionChoices.LEFT_HALF,
        label="Checks of the fleet, last 24 hours",
        chart_kwargs=_chart(EChartsTypeChoices.BAR, _checks_data, "checks", series=_stacked(GREEN, RED, GREY)),
        required_permissions=[CHECKS],
    ),
    ChartPanel(
        "latency",
        _latency_summary,
        weight=300,
        section=SectionChoices.LEFT_HALF,
        label="Median latency, last 24 hours",
        chart_kwargs=_chart(EChartsTypeChoices.LINE, _latency_data, "ms"),
        required_permissions=[CHECKS],
    ),
    RowsPanel(
        uptime_rows,
        "All servers passed all their checks.",
        {"server": "Server", "uptime": "Uptime 24 h", "flapping": ""},
        weight=400,
        section=SectionChoices.LEFT_HALF,
        label="Lowest uptime",
        body_id="ai-ops-uptime",
        required_permissions=[SERVERS, CHECKS],
    ),
)
RIGHT_PANELS = (
    ChartPanel(
        "runs",
        _runs_summary,
        weight=100,
        section=SectionChoices.RIGHT_HALF,
        label="Runs a day, last 14 days",
        chart_kwargs=_chart(EChartsTypeChoices.BAR, _runs_data, "", series=_stacked(*(color for _, color in OUTCOMES))),
        required_permissions=[RUNS],
    ),
    CheckpointsPanel(
        weight=200,
        section=SectionChoices.RIGHT_HALF,
        label="Checkpoints",
        body_id="ai-ops-checkpoints",
        required_permissions=[STORAGE],
    ),
    RowsPanel(
        change_rows,
        "The change log has no changes.",
        {"when": "When", "what": "What", "action": "Change", "user": "By"},
        weight=300,
        section=SectionChoices.RIGHT_HALF,
        label="Latest changes",
        body_id="ai-ops-changes",
        required_permissions=[CHANGES],
    ),
)
PANELS = (*FIRST_PANELS, *LEFT_PANELS, *RIGHT_PANELS)
