"""Decisions on schedules: lateness, and reasons why a schedule does not run."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

# Beat reads its schedules every few seconds, and may be restarted in between.
GRACE = timedelta(minutes=5)

STANDINGS = ACTIVE, PAUSED, FINISHED, HELD, BROKEN = "active", "paused", "finished", "held", "broken"


@dataclass(frozen=True)
class ScheduleFacts:
    """The facts about a schedule.

    Attributes:
        standing: "active", "paused", "finished" (its single run has passed, or its server or policy was deleted),
            "held" (by an approval workflow) or "broken" (Nautobot stopped it, because its owner or its Job is missing).
        due: Time of the first start after the last one, past or future; None if there is no further start.
        waiting_since: Time of the last message that no worker has taken yet; None if there is none.
        job_enabled: Whether its Job is enabled.
        queue: Name of its job queue.
        has_worker: Whether a worker listens to the queue; None if unknown.
        deleted: The deleted object that it needs, such as "MCP server that it checks"; empty for none.
    """

    standing: str
    due: datetime | None
    waiting_since: datetime | None = None
    job_enabled: bool = True
    queue: str = ""
    has_worker: bool | None = None
    deleted: str = ""


@dataclass(frozen=True)
class ScheduleStatus:
    """The status of a schedule. Its ``as_dict()`` is an entry of `ai_ops.schedules.get_schedule_status`.

    Attributes:
        id: Primary key of the ScheduledJob.
        name: Its name.
        kind: The kind of its runs; None for another Job.
        options: Variables of the Job.
        crontab: Five fields; None for a single run.
        time_zone: The time zone of the crontab.
        enabled: Whether it is enabled.
        standing: One of `STANDINGS`.
        next_run: Time of the next start; None if there is no further start.
        last_run: Time of the last start; None if there was none.
        last_outcome: State of that run, or status of its JobResult if there is no run.
        last_error: The reason why that run failed, as a sentence.
        last_run_id: Primary key of the run.
        last_job_result: Primary key of the JobResult.
        late: Whether it is late.
        why: The reason why it does not run, as a sentence.
        queue: Name of its job queue.
        time_limit: Seconds after which its runs stop; None for Nautobot's own limit.
        misfire_grace_time: Seconds after which a run is dropped if no worker has started it; None for never.
        owner: Username of its owner.
    """

    id: str
    name: str
    kind: str | None
    options: dict[str, Any]
    crontab: str | None
    time_zone: str
    enabled: bool
    standing: str
    next_run: datetime | None
    last_run: datetime | None
    last_outcome: str | None
    last_error: str | None
    last_run_id: str | None
    last_job_result: str | None
    late: bool
    why: str | None
    queue: str | None
    time_limit: int | None
    misfire_grace_time: int | None
    owner: str | None

    @property
    def needs_attention(self) -> bool:
        """Return whether it is late, paused or broken."""
        return self.late or self.standing in (PAUSED, BROKEN)

    def as_dict(self) -> dict[str, Any]:
        """Return every attribute by its name; times in ISO 8601, in UTC."""
        return {name: iso(value) if isinstance(value, datetime) else value for name, value in vars(self).items()}


def iso(at: datetime | None) -> str | None:
    """Return a time in ISO 8601, in UTC."""
    return at.astimezone(UTC).isoformat() if at else None


def lateness(facts: ScheduleFacts, now: datetime) -> tuple[bool, str | None]:
    """Return whether a schedule is late, and the reason why it does not run as a sentence; None if all is well."""
    if facts.deleted:
        return False, f"The {facts.deleted} was deleted: remove it."
    if facts.standing != ACTIVE:
        return False, _why_not(facts.standing)
    if not facts.job_enabled:
        return True, "Its Job is disabled, so all its runs fail: enable it under Jobs."
    if facts.due is not None and facts.due + GRACE < now:
        return True, f"It was due at {_minute(facts.due)} and did not start: check that Celery beat is running."
    stuck = facts.waiting_since is not None and facts.waiting_since + GRACE < now
    if stuck and facts.has_worker is not False:
        return True, f'Started at {_minute(facts.waiting_since)}, and no worker of "{facts.queue}" has taken it yet.'
    if facts.has_worker is False:
        return stuck, f'No Celery worker listens to the queue "{facts.queue}": start a worker.'
    return False, None


def _why_not(standing: str) -> str | None:
    return {
        PAUSED: "Paused.",
        HELD: "It waits for approval, or its approval was denied.",
        BROKEN: "Nautobot stopped it, because its owner or its Job was missing: resume it, or remove it.",
    }.get(standing)


def _minute(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M %Z}" if at else ""


def scheduler_runs(last: datetime | None, earliest_due: datetime | None, now: datetime) -> bool:
    """Return whether beat is alive, according to its last actions.

    Args:
        last: Time of its last start of a schedule; None if there was none.
        earliest_due: The first due time of all active schedules after their last starts; None without active schedules.
        now: The present.
    """
    if last is None or earliest_due is None:
        return False
    # A schedule can be late for its own reason. Beat is alive if it has started another schedule since.
    return now <= earliest_due + GRACE or last > earliest_due
