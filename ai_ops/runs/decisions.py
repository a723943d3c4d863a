"""Decisions on maintenance runs: their names, the hold that each has on its work, and which of them are lost."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from ai_ops.config import AiOpsSettings

# Without what is mistaken for another when read aloud or from a screen: 0 and o, 1, i and l.
NAME_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"
NAME_LENGTH = 6

# A lease is renewed three times in its length, so that two renewals may be late before it is stale.
RENEWALS_PER_LEASE = 3
# Heartbeats come with renewals; a run without three of them is suspected.
MISSED_HEARTBEATS = 3
# However short the lease: a database that restarts takes its time.
MINIMUM_RESCUE_AGE_SECONDS = 60.0

# Seconds after which a second message of a run is sent: longer than a queue is usually busy.
REDELIVERY_GRACE_SECONDS = 900.0


class Hold(Protocol):
    """The right of a run to write, for as long as it lasts.

    Attributes:
        fence: Rises with each run that takes over.
        fence_key: Where other stores than the database may write it down; the same for all runs of a kind.
        run_id: The id of the run's record; None where that could not be written.
        job_result: The JobResult of the Job that does the run; None from a shell.
        owner: The user the run works for; None from a shell.
        pause: Seconds between two rounds of probes; None for the usual ones.
    """

    fence: int
    fence_key: str
    run_id: uuid.UUID | None
    job_result: Any
    owner: Any
    pause: float | None

    @property
    def settings(self) -> AiOpsSettings:
        """Return the settings as they were when the run began; what a run does goes by these alone.

        Raises:
            ConfigurationError: They are not usable.
        """

    def confirm(self) -> None:
        """Return if the run may go on; asks no database.

        Raises:
            LeaseLostError: It may write nothing more.
            RunStoppedError: It was told to stop.
        """

    def lock(self) -> None:
        """Lock the lease inside a transaction, so that no other run takes over before the commit.

        Raises:
            LeaseLostError: Another run has taken over. A run that was told to stop may still write.
        """

    def wait(self, seconds: float) -> None:
        """Wait, and stop waiting if the run must stop; raises as `confirm` does."""

    def progress(self, line: str) -> None:
        """Note what the run is at, for its page; written with the next heartbeat."""

    def trouble(self, error: BaseException) -> None:
        """Note that `error` kept the run from its work: if it is one of the infrastructure, the run is tried again."""


def is_lost(*, silent_seconds: float, age_seconds: float, lease_seconds: float, known_alive: bool) -> bool:
    """Return whether a run that is said to be running has no process any more.

    Args:
        silent_seconds: Since its last heartbeat, by the database's clock.
        age_seconds: Since it was started, by the same clock.
        lease_seconds: Length of its lease.
        known_alive: Whether Celery says that a worker is at it. A process that was stopped for a while is alive.
    """
    interval = lease_seconds / RENEWALS_PER_LEASE
    silent = silent_seconds > MISSED_HEARTBEATS * interval
    return silent and age_seconds > MINIMUM_RESCUE_AGE_SECONDS and not known_alive


def run_name(kind: str, at: datetime, suffix: str) -> str:
    """Return a name that a user can read out: kind, minute and six characters.

    Args:
        kind: One of `ai_ops.choices.MaintenanceKindChoices`.
        at: When it was asked for.
        suffix: `NAME_LENGTH` random characters of `NAME_ALPHABET`.
    """
    return f"{kind} {at:%Y-%m-%d %H:%M} {suffix}"
