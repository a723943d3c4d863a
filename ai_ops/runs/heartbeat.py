"""The rules of heartbeats: how often a run sends them, and after how long a silence it is lost."""

from __future__ import annotations

# A lease is renewed three times within its length, so that it survives two missed renewals.
RENEWALS_PER_LEASE = 3
# Heartbeats are sent with renewals. A run that misses three of them is suspected.
MISSED_HEARTBEATS = 3
# Regardless of the length of the lease, because a restart of the database takes time.
MINIMUM_RESCUE_AGE_SECONDS = 60.0


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
