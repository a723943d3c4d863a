"""Decisions on schedules: lateness, and reasons why one does not run."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

# Beat looks at its schedules every few seconds, and may be restarted in between.
GRACE = timedelta(minutes=5)

STANDINGS = ACTIVE, PAUSED, FINISHED, HELD, BROKEN = "active", "paused", "finished", "held", "broken"


@dataclass(frozen=True)
class ScheduleFacts:
    """The facts about a schedule.

    Attributes:
        standing: "active", "paused", "finished" (its single run is past, or its server or policy was deleted), "held"
            (by an approval workflow) or "broken" (Nautobot stopped it, since its owner or its Job is gone).
        due: When it should have started something, or will; None for never again.
        waiting_since: When the last message was sent that no worker has taken yet; None where there is none.
        job_enabled: Whether its Job may run.
        queue: Name of its job queue.
        has_worker: Whether a worker listens to that; None where that is not known.
        deleted: What was deleted of what it needs, such as "MCP server that it checks"; empty for nothing.
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
        next_run: When it starts something next; None for never again.
        last_run: When it started something last; None where it has not.
        last_outcome: State of that run, or status of its JobResult where it has none.
        last_error: Why that run failed, in a sentence.
        last_run_id: Primary key of the run.
        last_job_result: Primary key of the JobResult.
        late: Whether it is late.
        why: Why it does not run, in a sentence.
        queue: Name of its job queue.
        time_limit: Seconds after which its runs stop; None for Nautobot's own limit.
        misfire_grace_time: Seconds after which a run that no worker has begun is dropped; None for never.
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
    """Return whether a schedule is late, with a sentence on why it does not run; None if all is well."""
    if facts.deleted:
        return False, f"The {facts.deleted} was deleted: remove it."
    if facts.standing != ACTIVE:
        return False, _why_not(facts.standing)
    if not facts.job_enabled:
        return True, "Its Job is disabled, so that each run fails: enable it under Jobs."
    if facts.due is not None and facts.due + GRACE < now:
        return True, f"It was due at {_minute(facts.due)} and was not started: see whether Celery beat is running."
    stuck = facts.waiting_since is not None and facts.waiting_since + GRACE < now
    if stuck and facts.has_worker is not False:
        return True, f'Started at {_minute(facts.waiting_since)}, and no worker of "{facts.queue}" had time yet.'
    if facts.has_worker is False:
        return stuck, f'No Celery worker listens to the queue "{facts.queue}": start one.'
    return False, None


def _why_not(standing: str) -> str | None:
    return {
        PAUSED: "Paused.",
        HELD: "Waits for approval, or was denied it.",
        BROKEN: "Nautobot stopped it, since its owner or its Job was gone: resume it, or remove it.",
    }.get(standing)


def _minute(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M %Z}" if at else ""


def scheduler_runs(last: datetime | None, earliest_due: datetime | None, now: datetime) -> bool:
    """Return whether beat is alive, judged by its last actions.

    Args:
        last: When it last started anything; None for never.
        earliest_due: Of all active schedules, the first time that is due after their last starts; None where there
            is no active schedule, so that nothing tells.
        now: The present.
    """
    if last is None or earliest_due is None:
        return False
    # One schedule can be late for a reason of its own: beat lives if it has started another since.
    return now <= earliest_due + GRACE or last > earliest_due
