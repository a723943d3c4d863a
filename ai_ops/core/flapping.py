"""Whether a server flaps: whether its checks change between well and ill too often to be told each time.

The method is Nagios's, as its documentation describes it under "Detection and Handling of State Flapping":
of the last 21 checks the share of changes from one to the next, newer ones weighted up to 50 percent more,
with a high threshold to begin flapping and a low one to end it.
"""

from __future__ import annotations

# 21 checks have 20 possible changes between them.
CHECKS_LOOKED_AT = 21

# Weight of the oldest change and of the newest, in a straight line between: the newest weighs 50 percent
# more, and 20 changes out of 20 are 100 percent.
OLDEST_WEIGHT, NEWEST_WEIGHT = 0.8, 1.2

WELL, ILL = "1", "0"


def remembered(recent: str, ok: bool | None) -> str:
    """Add a check to the last ones.

    Args:
        recent: One character a check, WELL or ILL, oldest first.
        ok: What the new check said; None for one that could not be made and is not remembered.

    Returns:
        The same, at most CHECKS_LOOKED_AT characters.
    """
    return recent if ok is None else f"{recent}{WELL if ok else ILL}"[-CHECKS_LOOKED_AT:]


def change_percent(recent: str) -> float:
    """The weighted share of changes, 0 to 100. Fewer than 21 checks count as if none had changed before them."""
    slots = CHECKS_LOOKED_AT - 1
    step = (NEWEST_WEIGHT - OLDEST_WEIGHT) / (slots - 1)
    changed = (
        NEWEST_WEIGHT - age * step for age in range(min(slots, len(recent) - 1)) if recent[-1 - age] != recent[-2 - age]
    )
    return 100 * sum(changed) / slots


def is_flapping(percent: float, was_flapping: bool, low: float, high: float) -> bool:
    """Begin at or above `high`, end below `low`, and in between stay as before; all in percent."""
    return percent >= (low if was_flapping else high)
