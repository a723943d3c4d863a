"""Orphans: keys whose checkpoint is gone, and the grace before they are deleted."""

from __future__ import annotations

# A write can reach Redis before its checkpoint does, while a graph runs: an hour is longer than any such run.
ORPHAN_GRACE = 3600.0  # seconds


def is_past_grace(time: float | None, now: float) -> bool:
    """Return whether an object of `time` without an owner is an orphan, and is not still being written."""
    return time is not None and time < now - ORPHAN_GRACE
