"""Decisions on maintenance runs: their names, their holds, and which of them are lost."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from ai_ops.config import AiOpsSettings

# Without characters that are easy to confuse: 0 and o, 1, i and l.
NAME_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"
NAME_LENGTH = 6

# A lease is renewed three times within its length, so that it survives two missed renewals.
RENEWALS_PER_LEASE = 3
# Heartbeats are sent with renewals. A run that misses three of them is suspected.
MISSED_HEARTBEATS = 3
# Regardless of the length of the lease, because a restart of the database takes time.
MINIMUM_RESCUE_AGE_SECONDS = 60.0

# Seconds until the second message of a run is sent, longer than messages usually wait in a queue.
REDELIVERY_GRACE_SECONDS = 900.0


class Hold(Protocol):
    """The right of a run to write, for as long as it lasts.

    Attributes:
        fence: Number that increases with each run that takes over.
        fence_key: Name under which other stores than the database may keep the fence; the same for all runs of a kind.
        run_id: The id of the run's record; None if it could not be written.
        job_result: The JobResult of the run's Job; None from a shell.
        owner: The user of the run; None from a shell.
        pause: Seconds between two rounds of probes; None for the default.
        redis_retry_delays: Seconds before each retry of the checkpoint Redis; None for the default.
    """

    fence: int
    fence_key: str
    run_id: uuid.UUID | None
    job_result: Any
    owner: Any
    pause: float | None
    redis_retry_delays: tuple[float, ...] | None

    @property
    def settings(self) -> AiOpsSettings:
        """Return the settings at the start of the run; the run uses only these.

        Raises:
            ConfigurationError: They are not usable.
        """

    def confirm(self) -> None:
        """Return if the run may continue; makes no query.

        Raises:
            LeaseLostError: The run may not write any more.
            RunStoppedError: The run was stopped.
        """

    def lock(self) -> None:
        """Lock the lease inside a transaction, so that no other run takes over before the commit.

        Raises:
            LeaseLostError: Another run has taken over. A stopped run may still write.
        """

    def wait(self, seconds: float) -> None:
        """Wait, but not longer than the run may continue; raises the errors of `confirm`."""

    def progress(self, line: str) -> None:
        """Set the progress of the run for its page; the next heartbeat saves it."""

    def trouble(self, error: BaseException) -> None:
        """Record that `error` prevented the work. If it is an infrastructure error, the run is retried."""


def is_lost(*, silent_seconds: float, age_seconds: float, lease_seconds: float, known_alive: bool) -> bool:
    """Return whether a run in the state running has lost its process.

    Args:
        silent_seconds: Seconds since its last heartbeat, by the database's clock.
        age_seconds: Seconds since its start, by the same clock.
        lease_seconds: Length of its lease in seconds.
        known_alive: Whether Celery reports that a worker has it. A suspended process is alive.
    """
    interval = lease_seconds / RENEWALS_PER_LEASE
    silent = silent_seconds > MISSED_HEARTBEATS * interval
    return silent and age_seconds > MINIMUM_RESCUE_AGE_SECONDS and not known_alive


def run_name(kind: str, at: datetime, suffix: str) -> str:
    """Return a readable name: kind, minute and six characters.

    Args:
        kind: One of `ai_ops.choices.MaintenanceKindChoices`.
        at: Time of the request.
        suffix: `NAME_LENGTH` random characters of `NAME_ALPHABET`.
    """
    return f"{kind} {at:%Y-%m-%d %H:%M} {suffix}"
