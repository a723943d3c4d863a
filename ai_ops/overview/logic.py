"""Decisions of the overview: problems that need the operator, stale results, and the first sentence.

This module does not use a database. A count of None is one that the user may not view.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TypeVar

from ai_ops.logic.durations import duration
from ai_ops.logic.relative_times import age
from ai_ops.schedules.lateness import ACTIVE, BROKEN, HELD, PAUSED

# A run takes some time and starts some seconds late, so a result that is due every minute is not stale after one
# minute.
LEAST_SLACK = timedelta(minutes=5)
# The result of a daily run is not fresh for two days.
MOST_SLACK = timedelta(hours=1)
# The period of work without a schedule, started by users or by a scheduler outside of Nautobot.
UNSCHEDULED = timedelta(hours=1)


class Level(StrEnum):
    """The urgency of an item, in Bootstrap's names."""

    DANGER = "danger"
    WARNING = "warning"
    UNKNOWN = "secondary"
    SUCCESS = "success"


# In the order of the page: problems for agents, then items that wait for a decision, then items that may fail later.
NEEDS = {
    "down": ("server down", "servers down"),
    "incidents": ("open incident not acknowledged", "open incidents not acknowledged"),
    "dead_letters": ("dead letter", "dead letters"),
    "failed_runs": ("run failed in 24 h", "runs failed in 24 h"),
    "tools": ("tool changed", "tools changed"),
    "schedules": ("schedule late, paused or broken", "schedules late, paused or broken"),
    "certificates": ("certificate ends soon", "certificates end soon"),
}

# Items that wait for a decision, and cause no failure until then.
LESS_URGENT = frozenset({"certificates"})


@dataclass(frozen=True)
class Need:
    """The number of objects of one kind that may need the operator.

    Attributes:
        key: One of NEEDS.
        count: The number of objects.
        level: The urgency. A count of 0 is good only if it is known to be current.
    """

    key: str
    count: int
    level: Level

    @property
    def name(self) -> str:
        """Return the noun, singular or plural depending on `count`."""
        singular, plural = NEEDS[self.key]
        return singular if self.count == 1 else plural


@dataclass(frozen=True)
class Headline:
    """The first line of the page."""

    level: Level
    sentence: str


@dataclass(frozen=True)
class Health:
    """Facts about the last health check of the fleet.

    Attributes:
        wanted: Whether there is a server to check.
        ended: End of the last successful health check; None if there is none.
        every: Its period; None without a schedule.
    """

    wanted: bool
    ended: datetime | None = None
    every: timedelta | None = None


@dataclass(frozen=True)
class Machine:
    """The state of one kind of maintenance.

    Attributes:
        kind: One of `ai_ops.choices.MaintenanceKindChoices`.
        last_success: End of the last successful run.
        every: Its period; None without a schedule.
        next_run: Time of the next run.
        standing: State of its schedule, one of `ai_ops.schedules.lateness.STANDINGS`; None without a schedule.
        late: Whether one of its schedules is late.
        why: Reason why it is late or does not run, as a sentence.
    """

    kind: str
    last_success: datetime | None = None
    every: timedelta | None = None
    next_run: datetime | None = None
    standing: str | None = None
    late: bool = False
    why: str | None = None


def expires_after(every: timedelta | None) -> timedelta:
    """Return how long a result with the period `every` is fresh: until the second run after it is due."""
    every = every or UNSCHEDULED
    return every + min(max(every, LEAST_SLACK), MOST_SLACK)


def fresh_since(every: timedelta | None, now: datetime) -> datetime:
    """Return the time since which every check is fresh. Checks of servers with longer intervals stay fresh longer."""
    return now - expires_after(every)


def is_stale(at: datetime | None, every: timedelta | None, now: datetime) -> bool:
    """Return whether a result of the time `at` is stale; None, for no result, is stale too."""
    return at is None or now - at > expires_after(every)


def needs(counts: Mapping[str, int | None], *, stale: Iterable[str] = ()) -> list[Need]:
    """Return the items that may need the operator, in the order of the page.

    Args:
        counts: Counts by the keys of NEEDS; None or missing if the user may not view them.
        stale: Keys of the counts that are stale: for these a count of 0 is not good.
    """
    old = set(stale)
    found = []
    for key in NEEDS:
        if (count := counts.get(key)) is not None:
            urgent = Level.WARNING if key in LESS_URGENT else Level.DANGER
            level = urgent if count else Level.UNKNOWN if key in old else Level.SUCCESS
            found.append(Need(key, count, level))
    return found


def headline(found: Iterable[Need], health: Health | None, now: datetime, *, unchecked: int = 0) -> Headline:
    """Return the first line: unknown results come first, then items that need the operator, then "all is well".

    Args:
        found: The result of `needs`.
        health: None for a user without permission to view servers.
        now: The present.
        unchecked: Number of servers whose last check is too old or could not be made, although others were checked.
    """
    waiting = [need for need in found if need.count]
    things = f"{len(waiting)} thing{'s need' if len(waiting) != 1 else ' needs'} you"
    if unknown := _why_unknown(health, unchecked, now):
        also = f". {things}" if waiting else ""
        return Headline(Level.WARNING if waiting else Level.UNKNOWN, f"Not known: {unknown}{also}")
    if waiting:
        urgent = any(need.level == Level.DANGER for need in waiting)
        return Headline(Level.DANGER if urgent else Level.WARNING, things)
    if health is None:
        return Headline(Level.UNKNOWN, "Nothing needs you; you may not view the servers")
    return Headline(Level.SUCCESS, "All well")


def _why_unknown(health: Health | None, unchecked: int, now: datetime) -> str | None:
    if health is None or not health.wanted:
        return None
    if health.ended is None:
        return "no health check has finished yet"
    if is_stale(health.ended, health.every, now):
        return f"the last health check ended {age(health.ended, now)}"
    if unchecked:
        return f"{unchecked:,} server{'s were' if unchecked != 1 else ' was'} not checked in time"
    return None


def machine_state(machine: Machine, now: datetime) -> tuple[Level, str]:
    """Return the urgency and the state of a kind of maintenance, in a word or two."""
    if machine.late:
        return Level.DANGER, "Late"
    if machine.standing == BROKEN:
        return Level.DANGER, "Broken"
    if machine.standing == PAUSED:
        return Level.WARNING, "Paused"
    if machine.standing == HELD:
        return Level.WARNING, "Waits for approval"
    if machine.standing != ACTIVE:
        return Level.UNKNOWN, "No schedule"
    if machine.last_success is None:
        return Level.UNKNOWN, "Not run yet"
    if is_stale(machine.last_success, machine.every, now):
        return Level.WARNING, "No success in time"
    return Level.SUCCESS, "On time"


def why_no_success(machine: Machine, now: datetime) -> str | None:
    """Return a sentence for the operator about `machine`; None if it is well."""
    level, _ = machine_state(machine, now)
    if level == Level.SUCCESS:
        return None
    if machine.why:
        return machine.why
    if machine.standing == ACTIVE and machine.last_success is not None and machine.every is not None:
        return f"It is due every {duration(machine.every.total_seconds())}: see why its last runs did not succeed."
    return None


# States of servers, in the order of the page. A server that was never checked is neither up nor down.
UP, DOWN, STALE, NOT_CHECKED, NEVER_CHECKED = "Up", "Down", "Not checked in time", "Not checked yet", "Never checked"


@dataclass(frozen=True)
class ServerFacts:
    """The facts that decide a server's state.

    Attributes:
        is_http: Whether health checks can probe it.
        status: The name of its status.
        checked: Time of its last check; None if it was never checked.
        known: Whether that check had a verdict.
        check_interval: Minutes between two of its checks; None for a check in every run.
        created: Time at which it was added; None if unknown.
        flapping: Whether it changes its state too often.
        recent: Its last checks, in the format of `MCPServerHealth.recent`.
        last_failure: Time of the last failed check.
    """

    is_http: bool
    status: str
    checked: datetime | None = None
    known: bool = True
    check_interval: int | None = None
    created: datetime | None = None
    flapping: bool = False
    recent: str = ""
    last_failure: datetime | None = None


def server_state(server: ServerFacts, every: timedelta | None, now: datetime) -> str:
    """Return the state of a server: one of the states above, or its status if health checks do not set it."""
    if not server.is_http:
        return f"{NEVER_CHECKED} (STDIO)"
    if server.status not in ("Healthy", "Unhealthy"):
        return server.status
    # A server with an interval longer than the period of runs is checked by the run after it is due.
    due_every = max(timedelta(minutes=server.check_interval or 0), every or UNSCHEDULED)
    if server.checked is None:
        return NOT_CHECKED if server.created and not is_stale(server.created, due_every, now) else STALE
    if server.status == "Unhealthy":
        # Down until a check passes, however old the last check is.
        return DOWN
    return UP if server.known and not is_stale(server.checked, due_every, now) else STALE


@dataclass(frozen=True)
class Outage:
    """A server that is down.

    Attributes:
        server: Its id.
        since: Start of the outage; None if no check has ever passed.
        acknowledged_by: Name of the user that acknowledged its incident; None if it is not acknowledged.
        incident: Address of its open incident.
    """

    server: str
    since: datetime | None = None
    acknowledged_by: str | None = None
    incident: str | None = None


def first_outages(outages: Iterable[Outage], limit: int) -> list[Outage]:
    """Return the first outages to show: unacknowledged ones first, then the newest."""
    return sorted(
        outages,
        key=lambda outage: (
            outage.acknowledged_by is not None,
            -outage.since.timestamp() if outage.since else 0.0,
            outage.server,
        ),
    )[:limit]


Key = TypeVar("Key")


def most_troubled(servers: Mapping[Key, ServerFacts], now: datetime, limit: int) -> list[Key]:
    """Return the servers that flap or failed a check within a day: flapping servers first, then by recent failures."""
    found = [
        key
        for key, server in servers.items()
        if server.flapping or (server.last_failure is not None and now - server.last_failure <= timedelta(hours=24))
    ]
    found.sort(
        key=lambda key: (
            not servers[key].flapping,
            -servers[key].recent.count("0"),
            -last.timestamp() if (last := servers[key].last_failure) else 0.0,
        )
    )
    return found[:limit]


def down_since(opened: datetime | None, last_ok: datetime | None) -> datetime | None:
    """Return the start of a server's outage, which may be later than the start of its open incident."""
    known = [moment for moment in (opened, last_ok) if moment]
    return max(known, default=None)


def trend(first: float | None, last: float | None, length: timedelta) -> str | None:
    """Return the growth over `length` in words; None if it is unknown."""
    if first is None or last is None or length <= timedelta(0):
        return None
    over = duration(length.total_seconds())
    if first == last:
        return f"the same as {over} ago"
    more = f"{abs(last - first):,.0f} {'more' if last > first else 'less'} than {over} ago"
    return f"{more} ({100 * (last - first) / first:+.0f} %)" if first else more
