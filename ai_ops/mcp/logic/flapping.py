"""Detection of flapping: servers that change between healthy and unhealthy too often to alert each time.

The method is Nagios's, as its documentation describes it under "Detection and Handling of State Flapping":
of the last 21 probes the share of changes from one to the next, newer ones weighted up to 50 percent more,
with a high threshold to begin flapping and a low one to end it.
"""

from __future__ import annotations

from ai_ops.logic.limits import CHECKS_LOOKED_AT

# Weight of the oldest change and of the newest, in a straight line between: the newest weighs 50 percent
# more, and 20 changes out of 20 are 100 percent.
OLDEST_WEIGHT, NEWEST_WEIGHT = 0.8, 1.2

WELL, ILL = "1", "0"


def remembered(recent: str, verdicts: str) -> str:
    """Append the probes of a check to the remembered ones.

    Args:
        recent: One character a probe, WELL or ILL, oldest first.
        verdicts: The same of the new ones; empty for a check that said nothing about the server.

    Returns:
        The same, at most CHECKS_LOOKED_AT characters.
    """
    return f"{recent}{verdicts}"[-CHECKS_LOOKED_AT:]


def change_percent(recent: str) -> float:
    """Return the weighted percentage of changes. Fewer than 21 probes count as if none had changed before them."""
    slots = CHECKS_LOOKED_AT - 1
    step = (NEWEST_WEIGHT - OLDEST_WEIGHT) / (slots - 1)
    changed = (
        NEWEST_WEIGHT - age * step for age in range(min(slots, len(recent) - 1)) if recent[-1 - age] != recent[-2 - age]
    )
    return 100 * sum(changed) / slots


def is_flapping(percent: float, was_flapping: bool, low: float, high: float) -> bool:
    """Return whether the server flaps: from `high` percent on, until below `low` percent."""
    return percent >= (low if was_flapping else high)
