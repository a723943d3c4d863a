"""The data of one request to the overview: each part is read once, when a visible panel needs it."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, NamedTuple
from urllib.parse import urlencode

from django.contrib.auth import get_user_model
from django.urls import reverse
from nautobot.extras.models import ObjectChange

from ai_ops.choices import MaintenanceKindChoices, MCPProtocolChoices, MCPServerStatus, MCPToolStateChoices
from ai_ops.mcp.hourly_checks import Hour, hours
from ai_ops.mcp.logic.certificates import WARNING_DAYS, is_worth_a_warning
from ai_ops.overview import logic, queries
from ai_ops.runs.permissions import may_run
from ai_ops.schedules.lateness import ScheduleStatus

SERVERS = "ai_ops.view_mcpserver"
HEALTH = "ai_ops.view_mcpserverhealth"
CHECKS = "ai_ops.view_mcpservercheck"
INCIDENTS = "ai_ops.view_mcpserverincident"
TOOLS = "ai_ops.view_mcpservertool"
RUNS = "ai_ops.view_maintenancerun"
STORAGE = "ai_ops.view_checkpointstoragesnapshot"
SCHEDULES = "extras.view_scheduledjob"
CHANGES = "extras.view_objectchange"

# A user with one of these permissions may open the page. The permission for the change log does not count.
PERMISSIONS = (SERVERS, CHECKS, INCIDENTS, TOOLS, RUNS, STORAGE, SCHEDULES)


def unrestricted_user() -> Any:
    """Return an unsaved user with all permissions, for a shell on the host and for metrics."""
    return get_user_model()(username="AI Ops", is_superuser=True, is_active=True)


class Line(NamedTuple):
    """An item that may need the operator, with a link to its list."""

    need: logic.Need
    address: str


class Overview:
    """The parts of the page.

    Args:
        user: The user of the request. Values that this user may not view are None or omitted.
        now: The present time, the same for all parts.
    """

    def __init__(self, user: Any, now: datetime) -> None:
        self.user = user
        self.now = now

    def sees(self, *permissions: str) -> bool:
        """Return whether the user has all the given permissions."""
        return bool(self.user.has_perms(permissions))

    @cached_property
    def fleet(self) -> queries.Fleet:
        """Return the servers that the user may view."""
        if not self.sees(SERVERS):
            return queries.Fleet([], 0)
        return queries.fleet(self.user, logic.fresh_since(self.check_period, self.now), self.now)

    @cached_property
    def names(self) -> dict[str, str]:
        """Return the names of the servers that are down, by their ids as text."""
        return {str(server.pk): server.name for server in self.down}

    @cached_property
    def states(self) -> dict[str, int]:
        """Return the number of servers by state."""
        found = {state: len(servers) for state, servers in self._listed.items()}
        if self.fleet.others:
            found[logic.UP] = found.get(logic.UP, 0) + self.fleet.others
        return found

    @cached_property
    def _listed(self) -> dict[str, list[queries.Server]]:
        found: dict[str, list[queries.Server]] = {}
        for server in self.fleet.listed:
            state = logic.server_state(server.facts, self.check_period, self.now)
            found.setdefault(state, []).append(server)
        return found

    @cached_property
    def down(self) -> list[queries.Server]:
        """Return the servers that are down."""
        return self._listed.get(logic.DOWN, [])

    @cached_property
    def outages(self) -> list[logic.Outage]:
        """Return the outages to show."""
        if not self.down:
            return []
        return queries.first_outages(self.user, self.down)

    @cached_property
    def messages(self) -> dict[str, tuple[str, str]]:
        """Return reason and message of the servers in `outages`."""
        ids = [outage.server for outage in self.outages]
        return queries.messages(self.user, ids) if ids and self.sees(HEALTH) else {}

    @cached_property
    def all_statuses(self) -> list[ScheduleStatus]:
        """Return the state of all schedules. They decide when the user's data is stale."""
        return queries.schedules(self.now)

    @cached_property
    def statuses(self) -> list[ScheduleStatus]:
        """Return the state of the schedules that the user may view."""
        if not self.sees(SCHEDULES):
            return []
        visible = queries.visible_schedules(self.user)
        return [status for status in self.all_statuses if visible is None or status.id in visible]

    @cached_property
    def successes(self) -> tuple[dict[str, datetime], dict[str, datetime]]:
        """Return the last success of each kind of maintenance: of all runs, and of the runs that the user may view."""
        return queries.last_successes(self.user if self.sees(RUNS) else None)

    @cached_property
    def all_machines(self) -> dict[str, logic.Machine]:
        """Return the state of each kind of maintenance, which also decides when the user's data is stale."""
        return {each.kind: each for each in queries.machines(self.all_statuses, self.successes[0])}

    @cached_property
    def machines(self) -> list[logic.Machine]:
        """Return the state of each kind of maintenance, as far as the user may view it."""
        if (self.statuses, self.successes[1]) == (self.all_statuses, self.successes[0]):
            return list(self.all_machines.values())
        return queries.machines(self.statuses, self.successes[1])

    @cached_property
    def health(self) -> logic.Health | None:
        """Return the age of the data on servers; None for a user without permission to view servers."""
        if not self.sees(SERVERS):
            return None
        machine = self.all_machines[MaintenanceKindChoices.HEALTH]
        watched = (logic.UP, logic.DOWN, logic.STALE, logic.NOT_CHECKED)
        wanted = any(self.states.get(state) for state in watched)
        return logic.Health(wanted, machine.last_success, machine.every)

    @property
    def check_period(self) -> timedelta | None:
        """Return the interval between two checks of the fleet."""
        return self.all_machines[MaintenanceKindChoices.HEALTH].every

    @cached_property
    def counts(self) -> dict[str, int]:
        """Return the numbers of items that may need the operator, by the keys of `logic.NEEDS`, for this user."""
        found: dict[str, int] = {}
        if self.sees(SERVERS):
            found["down"] = len(self.down)
            ends = [server.certificate_ends for server in self.fleet.listed if server.certificate_ends]
            found["certificates"] = sum(is_worth_a_warning(each, self.now) for each in ends)
        if self.sees(INCIDENTS):
            found["incidents"] = queries.unacknowledged_incidents(self.user)
        if self.sees(RUNS):
            found |= queries.waiting_runs(self.user, self.now)
        if self.sees(TOOLS):
            found["tools"] = queries.changed_tools(self.user)
        if self.sees(SCHEDULES):
            found["schedules"] = sum(status.needs_attention for status in self.statuses)
        return found

    @cached_property
    def needs(self) -> list[logic.Need]:
        """Return the items that may need the operator with their urgency, in the order of the page."""
        health = self.health
        old = health is None or (health.wanted and logic.is_stale(health.ended, health.every, self.now))
        return logic.needs(self.counts, stale=("down", "incidents") if old else ())

    @cached_property
    def lines(self) -> list[Line]:
        """Return these items with the addresses of their lists."""
        return [Line(need, self._address(need.key)) for need in self.needs]

    @property
    def headline(self) -> logic.Headline:
        """Return the first line."""
        return logic.headline(self.needs, self.health, self.now, unchecked=self.states.get(logic.STALE, 0))

    @cached_property
    def hours(self) -> list[Hour]:
        """Return the checks of the fleet by hour."""
        return hours(self.user, self.now)

    @cached_property
    def worst(self) -> list[tuple[queries.Server, float | None]]:
        """Return servers that flap or failed a check in 24 h, the worst first."""
        return queries.lowest_uptimes(self.fleet.listed, self.now)

    @cached_property
    def runs_by_day(self) -> dict[Any, dict[str, int]]:
        """Return the numbers of runs of the last two weeks by day and state."""
        return queries.runs_by_day(self.user, self.now)

    @cached_property
    def samples(self) -> list[queries.Sample]:
        """Return the kept samplings of the checkpoint Redis, the newest first."""
        return queries.samples(self.user)

    @cached_property
    def first_sample(self) -> tuple[datetime, int | None] | None:
        """Return the time and the checkpoint keys of the first successful sampling of the last two weeks."""
        return queries.first_sample(self.user, self.now)

    @cached_property
    def changes(self) -> list[ObjectChange]:
        """Return the latest entries of the change log."""
        return queries.latest_changes(self.user)

    @cached_property
    def may_clean_up(self) -> bool:
        """Return whether the user may run the cleanup."""
        return may_run(MaintenanceKindChoices.CLEANUP, self.user)

    def _address(self, key: str) -> str:
        name, query = ADDRESSES[key]
        values = query | ({"created__gte": (self.now - queries.DAY).isoformat()} if key == "failed_runs" else {})
        return reverse(f"plugins:ai_ops:{name}") + (f"?{urlencode(values, doseq=True)}" if values else "")


# The list for each of `logic.NEEDS`, with filters for the counted rows.
ADDRESSES: dict[str, tuple[str, dict[str, Any]]] = {
    "down": (
        "mcpserver_list",
        {"protocol": MCPProtocolChoices.HTTP, "status": MCPServerStatus.UNHEALTHY, "is_checked": "true"},
    ),
    "incidents": ("mcpserverincident_list", {"is_open": "true", "is_acknowledged": "false"}),
    "dead_letters": ("deadletters", {}),
    "failed_runs": ("maintenancerun_list", {"state": queries.FAILED_STATES}),
    "tools": (
        "mcpservertool_list",
        {"state": MCPToolStateChoices.UNDECIDED},
    ),
    "schedules": ("schedules", {"needs_you": "true"}),
    "certificates": ("mcpserver_list", {"certificate_days": WARNING_DAYS}),
}
