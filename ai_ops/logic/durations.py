"""Durations in words, such as `2 h 5 min`, for all pages and texts."""

from __future__ import annotations

import math
from datetime import datetime, timedelta

MINUTE, HOUR, DAY = 60, 3_600, 86_400


def duration(seconds: float) -> str:
    """Return a duration in at most two units: 412 ms, 3.2 s, 4 min 12 s, 2 h 5 min, 3 d 4 h.

    Args:
        seconds: A negative number counts as 0: it is the difference of two clocks.
    """
    seconds = max(0.0, seconds)
    if round(seconds * 1000) < 1000:
        return f"{seconds * 1000:.0f} ms"
    if round(seconds, 1) < MINUTE:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < HOUR:
        return _two_units(whole, MINUTE, "min", 1, "s")
    if whole < DAY:
        return _two_units(whole, HOUR, "h", MINUTE, "min")
    return _two_units(whole, DAY, "d", HOUR, "h")


def _two_units(seconds: int, large: int, large_name: str, small: int, small_name: str) -> str:
    rest = seconds % large // small
    return f"{seconds // large} {large_name}" + (f" {rest} {small_name}" if rest else "")


def days_left(ends: datetime, now: datetime) -> int:
    """Return the whole days from `now` until `ends`; negative for a certificate that has expired."""
    return math.floor((ends - now) / timedelta(days=1))
