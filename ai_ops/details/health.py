"""The panels on a server's page that show its checks and incidents."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.template import Context
from django.utils import timezone
from django.utils.html import format_html
from nautobot.apps.ui import (
    ObjectsTablePanel,
    Panel,
    SectionChoices,
)
from nautobot.apps.views import get_obj_from_context

from ai_ops.mcp.history import Statistics, statistics
from ai_ops.models.health import MCPServerHealth
from ai_ops.tables import (
    MCPServerCheckTable,
    MCPServerIncidentTable,
    certificate_badge,
    milliseconds,
    percent,
)
from ai_ops.ui.panels import FactsPanel
from ai_ops.ui.time_markup import ago

VIEW_HEALTH = ("ai_ops.view_mcpserverhealth",)
VIEW_CHECKS = ("ai_ops.view_mcpservercheck",)


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
            "No requests before": ago(_if_future(health.retry_at)),
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


def _if_future(moment: datetime | None) -> datetime | None:
    return moment if moment and moment > timezone.now() else None


def _health(context: Context) -> MCPServerHealth | None:
    # The attribute caches the row, so that all panels read it once.
    return getattr(get_obj_from_context(context), "health", None)


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
