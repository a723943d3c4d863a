"""Detection of flapping: servers that change between healthy and unhealthy too often to alert each time.

The method is that of Nagios, in its documentation under "Detection and Handling of State Flapping": the share of
changes between the last 21 probes, with newer changes weighted up to 50 percent more. Flapping starts at a high
threshold and ends below a low one.
"""

from __future__ import annotations

from ai_ops.logic.limits import CHECKS_LOOKED_AT

# Weights of the oldest and of the newest change, with a linear increase between them. The newest has 50 percent more
# weight, and 20 changes of 20 are 100 percent.
OLDEST_WEIGHT, NEWEST_WEIGHT = 0.8, 1.2

WELL, ILL = "1", "0"


def remembered(recent: str, verdicts: str) -> str:
    """Append the probes of a check to the remembered ones.

    Args:
        recent: One character per probe, WELL or ILL, the oldest first.
        verdicts: The new probes in the same form; empty for a check without a verdict.

    Returns:
        The probes in the same form, at most CHECKS_LOOKED_AT characters.
    """
    return f"{recent}{verdicts}"[-CHECKS_LOOKED_AT:]


def change_percent(recent: str) -> float:
    """Return the weighted percentage of changes. Missing probes count as unchanged."""
    slots = CHECKS_LOOKED_AT - 1
    step = (NEWEST_WEIGHT - OLDEST_WEIGHT) / (slots - 1)
    changed = (
        NEWEST_WEIGHT - age * step for age in range(min(slots, len(recent) - 1)) if recent[-1 - age] != recent[-2 - age]
    )
    return 100 * sum(changed) / slots


def is_flapping(percent: float, was_flapping: bool, low: float, high: float) -> bool:
    """Return whether the server flaps: from `high` percent on, until below `low` percent."""
    return percent >= (low if was_flapping else high)
