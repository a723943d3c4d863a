"""The panel "AI Ops" of Nautobot's home page: pending work, and the state of the cleanup."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from django.db.models import QuerySet
from django.urls import reverse
from nautobot.apps.ui import HomePagePanel

from ai_ops.choices import MaintenanceKindChoices, MCPServerStatus, RunStateChoices
from ai_ops.models import MaintenanceRun, MCPServer, MCPServerIncident
from ai_ops.runs.dead_letters import dead_letters
from ai_ops.tables import STATE_COLORS
from ai_ops.ui.time_markup import plain_ago


class Line(NamedTuple):
    """A line of the panel: its link, and a badge with a Bootstrap colour."""

    name: str
    address: str
    badge: str
    color: str
    description: str


def lines(request: Any) -> list[Line]:
    """Return the lines that this user may view, one query each."""
    return list(_lines(request.user))


def _lines(user: Any) -> Iterator[Line]:
    servers = MCPServer.objects.restrict(user, "view").filter(status__name=MCPServerStatus.UNHEALTHY)
    incidents = MCPServerIncident.objects.restrict(user, "view").filter(closed__isnull=True)
    runs = MaintenanceRun.objects.restrict(user, "view")
    if user.has_perm("ai_ops.view_mcpserver"):
        address = reverse("plugins:ai_ops:mcpserver_list") + f"?status={MCPServerStatus.UNHEALTHY}"
        yield _count("Unhealthy MCP servers", address, servers, "Servers from which agents get no tools")
    if user.has_perm("ai_ops.view_mcpserverincident"):
        address = reverse("plugins:ai_ops:mcpserverincident_list") + "?is_open=true"
        yield _count("Open incidents", address, incidents, "Outages, changed tools and failed maintenance")
    if user.has_perm("ai_ops.view_maintenancerun"):
        dead = dead_letters(runs)
        yield _count("Dead letters", reverse("plugins:ai_ops:deadletters"), dead, "Runs to redrive or discard")
        yield _last_cleanup(runs)


def _count(name: str, address: str, found: QuerySet[Any], description: str) -> Line:
    count = found.count()
    return Line(name, address, f"{count:,}", "danger" if count else "success", description)


def _last_cleanup(runs: QuerySet[MaintenanceRun]) -> Line:
    """Return the last cleanup that was not skipped."""
    cleanups = runs.filter(kind=MaintenanceKindChoices.CLEANUP, subject="", finished__isnull=False)
    run = cleanups.exclude(state=RunStateChoices.SKIPPED).order_by("-created").first()
    if run is None:
        address = reverse("plugins:ai_ops:maintenancerun_list") + f"?kind={MaintenanceKindChoices.CLEANUP}"
        return Line("Last cleanup", address, "none", "secondary", "No checkpoint cleanup has finished yet")
    deleted = run.counters.get("deleted_count")
    would = " would be" if run.counters.get("dryrun") else ""
    keys = f", {deleted:,} keys{would} deleted" if deleted is not None else ""
    description = f"{plain_ago(run.finished)}{keys}"
    return Line("Last cleanup", run.get_absolute_url(), run.get_state_display(), STATE_COLORS[run.state], description)


layout = (
    HomePagePanel(
        name="AI Ops",
        weight=650,
        permissions=["ai_ops.view_mcpserver", "ai_ops.view_mcpserverincident", "ai_ops.view_maintenancerun"],
        custom_data={"ai_ops_lines": lines},
        custom_template="panel_ai_ops.html",
    ),
)
