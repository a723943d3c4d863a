"""Decisions of the overview: needs of the operator, staleness, and the first sentence.

Nothing here asks a database. A count of None is one that the user may not see.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TypeVar

from ai_ops.logic.durations import age, duration
from ai_ops.schedules.lateness import ACTIVE, BROKEN, HELD, PAUSED

# A run takes some time and starts some seconds late: what is due every minute is not stale after one.
LEAST_SLACK = timedelta(minutes=5)
# A result that is due once a day is not fresh for two days.
MOST_SLACK = timedelta(hours=1)
# The period of work that no schedule starts: by hand, or by a clock outside of Nautobot.
UNSCHEDULED = timedelta(hours=1)


class Level(StrEnum):
    """The urgency of an item, in Bootstrap's names."""

    DANGER = "danger"
    WARNING = "warning"
    UNKNOWN = "secondary"
    SUCCESS = "success"


# In this order on the page: what agents miss first, then what waits for a decision, then what may fail later.
NEEDS = {
    "down": ("server down", "servers down"),
    "incidents": ("open incident not acknowledged", "open incidents not acknowledged"),
    "dead_letters": ("dead letter", "dead letters"),
    "failed_runs": ("run failed in 24 h", "runs failed in 24 h"),
    "tools": ("tool changed", "tools changed"),
    "schedules": ("schedule late, paused or broken", "schedules late, paused or broken"),
    "certificates": ("certificate ends soon", "certificates end soon"),
}

# Work that waits for a decision, and breaks nothing until then.
LESS_URGENT = frozenset({"certificates"})


@dataclass(frozen=True)
class Need:
    """A number of objects of one kind that may need the operator.

    Attributes:
        key: One of NEEDS.
        count: How many.
        level: How urgent they are. None of them is good news only where that is known.
    """

    key: str
    count: int
    level: Level

    @property
    def name(self) -> str:
        """The noun, singular or plural by `count`."""
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
        wanted: Whether there is a server that health checks are for.
        ended: When the last one that succeeded ended; None where there is none.
        every: How often it is due; None where no schedule starts it.
    """

    wanted: bool
    ended: datetime | None = None
    every: timedelta | None = None


@dataclass(frozen=True)
class Machine:
    """The state of one kind of maintenance.

    Attributes:
        kind: One of `ai_ops.choices.MaintenanceKindChoices`.
        last_success: When the last run that succeeded ended.
        every: How often it is due; None where no schedule starts it.
        next_run: When it runs next.
        standing: That of its schedule, one of `ai_ops.schedules.lateness.STANDINGS`; None where it has none.
        late: Whether a schedule of it is late.
        why: Why it is late, or does not run, in a sentence.
    """

    kind: str
    last_success: datetime | None = None
    every: timedelta | None = None
    next_run: datetime | None = None
    standing: str | None = None
    late: bool = False
    why: str | None = None


def expires_after(every: timedelta | None) -> timedelta:
    """Return how long a result with the period `every` is fresh: until the one after the next is due."""
    every = every or UNSCHEDULED
    return every + min(max(every, LEAST_SLACK), MOST_SLACK)


def fresh_since(every: timedelta | None, now: datetime) -> datetime:
    """Return the time since which any check is fresh. Checks of servers with longer intervals stay fresh longer."""
    return now - expires_after(every)


def is_stale(at: datetime | None, every: timedelta | None, now: datetime) -> bool:
    """Return whether a finding of the time `at` is outdated; no finding is outdated too."""
    return at is None or now - at > expires_after(every)


def needs(counts: Mapping[str, int | None], *, stale: Iterable[str] = ()) -> list[Need]:
    """Return what may need the operator, in the order of the page.

    Args:
        counts: By the keys of NEEDS; None, or left out, for what the user may not see.
        stale: Keys of those counts that are of another time: none of them is no good news.
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
    """Return the first line: unknown states come first, then those that need the operator, then "all is well".

    Args:
        found: What `needs` returned.
        health: None for a user who may not see servers.
        now: The present.
        unchecked: Servers whose own last check is too old, or could not be made, although others were checked.
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
        return Headline(Level.UNKNOWN, "Nothing needs you; you may not see the servers")
    return Headline(Level.SUCCESS, "All well")


def _why_unknown(health: Health | None, unchecked: int, now: datetime) -> str | None:
    if health is None or not health.wanted:
        return None
    if health.ended is None:
        return "no health check has ended yet"
    if is_stale(health.ended, health.every, now):
        return f"the last health check ended {age(health.ended, now)}"
    if unchecked:
        return f"{unchecked:,} server{'s were' if unchecked != 1 else ' was'} not checked in time"
    return None


def machine_state(machine: Machine, now: datetime) -> tuple[Level, str]:
    """Return the state of a kind of maintenance: its urgency, and a word or two."""
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
    """Return a sentence for the operator about `machine`; None if all is well."""
    level, _ = machine_state(machine, now)
    if level == Level.SUCCESS:
        return None
    if machine.why:
        return machine.why
    if machine.standing == ACTIVE and machine.last_success is not None and machine.every is not None:
        return f"It is due every {duration(machine.every.total_seconds())}: see why its last runs did not succeed."
    return None


# States of servers as the page counts them, in this order. A server that was never checked is neither up nor down.
UP, DOWN, STALE, NOT_CHECKED, NEVER_CHECKED = "Up", "Down", "Not checked in time", "Not checked yet", "Never checked"


@dataclass(frozen=True)
class ServerFacts:
    """The facts that decide a server's state.

    Attributes:
        is_http: Whether health checks can ask it at all.
        status: The name of its status.
        checked: When it was last checked; None for never.
        known: Whether that check said something about the server.
        check_interval: Minutes between two of its checks; None for every run.
        created: When it was added; None where that is not known.
        flapping: Whether it changes too often.
        recent: Its last checks, as `MCPServerHealth.recent` has them.
        last_failure: When a check last failed.
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
    """Return the state of a server: one of those above, or its status if health checks do not set it."""
    if not server.is_http:
        return f"{NEVER_CHECKED} (STDIO)"
    if server.status not in ("Healthy", "Unhealthy"):
        return server.status
    # A server that is due less often than runs are is checked by the run after it is due.
    due_every = max(timedelta(minutes=server.check_interval or 0), every or UNSCHEDULED)
    if server.checked is None:
        return NOT_CHECKED if server.created and not is_stale(server.created, due_every, now) else STALE
    if server.status == "Unhealthy":
        # Down until a check says otherwise, however old the last one is.
        return DOWN
    return UP if server.known and not is_stale(server.checked, due_every, now) else STALE


@dataclass(frozen=True)
class Outage:
    """A server that is down.

    Attributes:
        server: Its id.
        since: Since when; None where no check ever found it well.
        acknowledged_by: Name of the user who acknowledged its incident; None where none has.
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
    """Return the servers that flap or failed a check within a day: flapping ones first, then by recent failures."""
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
    """Return the start of a server's outage, which may be later than that of its open incident."""
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
