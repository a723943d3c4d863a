"""The trend of the checkpoint storage, in words: the time at which Redis reaches its limit at the current rate."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta

# A rate from fewer days may be that of a weekend or of a single load.
LEAST_DAYS = 3
# Older days say little about the future.
LOOKED_AT_DAYS = 30
# No rate holds for more than a few years.
FURTHEST_DAYS = 3650


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Return the slope of the least squares line of the points; 0 for a single point."""
    count = len(points)
    mean_x, mean_y = sum(x for x, _ in points) / count, sum(y for _, y in points) / count
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0


# A month is enough time to buy memory, or to agree on shorter retentions.
SOON_DAYS = 30


def days_to_limit(days: Sequence[tuple[date, int | None]], limit: int | None) -> float | None:
    """Return the days from the last sample until the memory reaches its limit; 0 if it has.

    None if it does not at the rate of the last days, or if this is unknown. The arguments are those of
    `limit_sentence`.
    """
    known = _known(days)
    if limit is None or len(known) < LEAST_DAYS:
        return None
    if (used := known[-1][1]) >= limit:
        return 0.0
    rate = slope([((day - known[0][0]).days, each) for day, each in known])
    left = (limit - used) / rate if rate > 0 else FURTHEST_DAYS + 1
    return None if left > FURTHEST_DAYS else left


def limit_sentence(days: Sequence[tuple[date, int | None]], limit: int | None) -> str:
    """Return a sentence on the time at which the memory reaches its limit at the rate of the last days.

    Args:
        days: Each day and the bytes of memory used on it, oldest first.
        limit: Redis' ``maxmemory`` in bytes; None without a limit.
    """
    known = _known(days)
    if limit is None:
        return "Redis has no maxmemory: it may use all memory of the machine."
    if len(known) < LEAST_DAYS:
        return f"The trend is known after {LEAST_DAYS} days."
    left = days_to_limit(days, limit)
    if left is None:
        return "At the rate of the last days, Redis does not reach its maxmemory."
    if not left:
        return "Redis has reached its maxmemory."
    reached = known[-1][0] + timedelta(days=round(left))
    return (
        f"At the rate of the last days, Redis reaches its maxmemory in about {round(left)} days, on {reached:%Y-%m-%d}."
    )


def _known(days: Sequence[tuple[date, int | None]]) -> list[tuple[date, int]]:
    return [(day, used) for day, used in days if used is not None][-LOOKED_AT_DAYS:]
