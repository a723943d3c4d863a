"""Durations and ages in words, such as `2 h 5 min` and `25 min ago`, for all pages and texts."""

from __future__ import annotations

import math
from datetime import datetime, timedelta

MINUTE, HOUR, DAY = 60, 3_600, 86_400

# Shorter ages are not relevant, and two clocks may differ by this much.
JUST_NOW_SECONDS = 10


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
        return _two(whole, MINUTE, "min", 1, "s")
    if whole < DAY:
        return _two(whole, HOUR, "h", MINUTE, "min")
    return _two(whole, DAY, "d", HOUR, "h")


def age(then: datetime, now: datetime) -> str:
    """Return the time between `then` and `now` in one unit, rounded down: `just now`, `25 min ago`, `in 2 h`."""
    seconds = (now - then).total_seconds()
    if abs(seconds) < JUST_NOW_SECONDS:
        return "just now"
    text = _one(int(abs(seconds)))
    return f"{text} ago" if seconds > 0 else f"in {text}"


def _one(seconds: int) -> str:
    if seconds < MINUTE:
        return f"{seconds} s"
    if seconds < HOUR:
        return f"{seconds // MINUTE} min"
    # Hours are used up to two days, since 25 h and 47 h are not the same.
    return f"{seconds // HOUR} h" if seconds < 2 * DAY else f"{seconds // DAY} days"


def _two(seconds: int, large: int, large_name: str, small: int, small_name: str) -> str:
    rest = seconds % large // small
    return f"{seconds // large} {large_name}" + (f" {rest} {small_name}" if rest else "")


def days_left(ends: datetime, now: datetime) -> int:
    """Return the whole days from `now` until `ends`; negative for a certificate that has expired."""
    return math.floor((ends - now) / timedelta(days=1))
