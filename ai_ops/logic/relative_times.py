"""Times in words, relative to the present, such as `just now` and `25 min ago`, for all pages and texts."""

from __future__ import annotations

from datetime import datetime

from ai_ops.logic.durations import DAY, HOUR, MINUTE

# Shorter ages are not relevant, and two clocks may differ by this much.
JUST_NOW_SECONDS = 10


def age(then: datetime, now: datetime) -> str:
    """Return the time between `then` and `now` in one unit, rounded down: `just now`, `25 min ago`, `in 2 h`."""
    seconds = (now - then).total_seconds()
    if abs(seconds) < JUST_NOW_SECONDS:
        return "just now"
    text = _one_unit(int(abs(seconds)))
    return f"{text} ago" if seconds > 0 else f"in {text}"


def _one_unit(seconds: int) -> str:
    if seconds < MINUTE:
        return f"{seconds} s"
    if seconds < HOUR:
        return f"{seconds // MINUTE} min"
    # Hours are used up to two days, since 25 h and 47 h are not the same.
    return f"{seconds // HOUR} h" if seconds < 2 * DAY else f"{seconds // DAY} days"
