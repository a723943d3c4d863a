"""The banner at the top of a server's page: state, since when, reason, advice, and the open incident."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.template import Context
from django.template.loader import render_to_string
from django.utils import timezone
from nautobot.apps.ui import Panel
from nautobot.apps.views import get_obj_from_context

from ai_ops.choices import MaintenanceKindChoices, MCPIncidentKindChoices, MCPProtocolChoices
from ai_ops.mcp.on_demand import is_being_checked
from ai_ops.models import MCPServer, MCPServerHealth, MCPServerIncident
from ai_ops.overview import queries
from ai_ops.overview.logic import DOWN, NOT_CHECKED, STALE, UP, Level, ServerFacts, down_since, server_state
from ai_ops.ui.probes_bar import probes_bar
from ai_ops.ui.time_markup import ago

LEVELS = {UP: Level.SUCCESS, DOWN: Level.DANGER, STALE: Level.WARNING, NOT_CHECKED: Level.UNKNOWN}


@dataclass(frozen=True)
class OpenIncident:
    """An open incident of the server.

    Attributes:
        incident: The incident, which the user may view.
        may_acknowledge: Whether the user may acknowledge it, and no user has done so.
    """

    incident: MCPServerIncident
    may_acknowledge: bool


@dataclass(frozen=True)
class Banner:
    """The content of the banner.

    Attributes:
        level: The urgency.
        state: One of the states of `ai_ops.overview.logic.server_state`.
        since: Start of the state up or down, or time of the last check, as HTML; None if unknown.
        last_failure: Time of the last failed check of a server that is up, as HTML; None if no check has failed.
        why: The answer and the advice, or the reason why there is no answer.
        flapping: Whether the server changes its state too often.
        incidents: Its open incidents that the user may view, the outage first.
    """

    level: Level
    state: str
    since: str | None = None
    last_failure: str | None = None
    why: str | None = None
    flapping: bool = False
    incidents: tuple[OpenIncident, ...] = ()

    @property
    def acknowledgeable(self) -> list[MCPServerIncident]:
        """Return the incidents that the user may acknowledge."""
        return [each.incident for each in self.incidents if each.may_acknowledge]


def banner_of(server: MCPServer, user: Any, now: datetime) -> Banner:
    """Return the banner of `server` for `user`, who may view it; seven queries."""
    health = getattr(server, "health", None)
    state = _state(server, health, now)
    why = server.why_not_checked()
    if state == NOT_CHECKED:
        why = "The next health check probes it."
    incidents = _open_incidents(server, user)
    if why or health is None:
        return Banner(LEVELS.get(state, Level.UNKNOWN), state, why=why or _why_stale(None), incidents=incidents)
    outage = next((each.incident for each in incidents if each.incident.kind == MCPIncidentKindChoices.OUTAGE), None)
    sees = user.has_perm("ai_ops.view_mcpserverhealth")
    return Banner(
        LEVELS.get(state, Level.UNKNOWN),
        state,
        ago(_since(state, server, health, outage), now),
        ago(health.last_failure, now) if state == UP else None,
        _why(state, health if sees else None),
        health.flapping,
        incidents,
    )


def _state(server: MCPServer, health: MCPServerHealth | None, now: datetime) -> str:
    machines = {machine.kind: machine for machine in queries.machines(queries.schedules(now), {})}
    facts = ServerFacts(
        is_http=server.protocol == MCPProtocolChoices.HTTP,
        status=server.status.name,
        checked=health.checked if health else None,
        known=health is None or health.ok is not None,
        check_interval=server.check_interval,
        created=server.created,
    )
    return server_state(facts, machines[MaintenanceKindChoices.HEALTH].every, now)


def _since(
    state: str, server: MCPServer, health: MCPServerHealth, incident: MCPServerIncident | None
) -> datetime | None:
    if state == DOWN:
        return down_since(incident.opened if incident else None, health.last_ok)
    return _up_since(server) if state == UP else health.checked


def _up_since(server: MCPServer) -> datetime | None:
    """Return the time at which a check last made the server Healthy; None if it is not in the history."""
    flips = server.checks.filter(flipped=True).order_by("-time").values_list("time", "ok")
    at, ok = flips.first() or (None, None)
    return at if ok else None


def _why(state: str, health: MCPServerHealth | None) -> str | None:
    """Return the reason in words. Without `health`, which the user may not view, it is a general sentence."""
    if state == STALE:
        return _why_stale(health)
    return health.message if health and state != UP else None


def _why_stale(health: MCPServerHealth | None) -> str:
    if health is not None and health.ok is None:
        return f"The last check could not be made. {health.message}"
    return "No check has ended in time: see on the page Schedules whether health checks run."


def _open_incidents(server: MCPServer, user: Any) -> tuple[OpenIncident, ...]:
    visible = MCPServerIncident.objects.restrict(user, "view").select_related("acknowledged_by")
    found = visible.filter(servers=server, closed__isnull=True).distinct()
    permitted = set(found.restrict(user, "acknowledge").values_list("pk", flat=True))
    rows = sorted(found, key=lambda each: each.kind != MCPIncidentKindChoices.OUTAGE)
    return tuple(OpenIncident(each, each.acknowledged is None and each.pk in permitted) for each in rows)


class ServerBannerPanel(Panel):
    """The banner, a panel without a header."""

    def get_extra_context(self, context: Context) -> Mapping[str, Any]:
        """Add the banner."""
        server = get_obj_from_context(context)
        return {
            "banner": banner_of(server, context["request"].user, timezone.now()),
            "bar": bar_of(server),
            "following": "A check of this server is running." if is_being_checked(server) else None,
        }

    def render(self, context: Context) -> str:
        """Render the banner without the frame of a panel."""
        if not self.should_render(context):
            return ""
        with context.update(self.get_extra_context(context)):
            return render_to_string("ai_ops/inc/server_banner.html", context.flatten(), request=context["request"])


def bar_of(server: MCPServer) -> str | None:
    """Return the server's last probes as a bar, the newest at its right end; None without probes."""
    return probes_bar(getattr(getattr(server, "health", None), "recent", None))
