"""Conversion of intervals in seconds to crontabs, the only form that Nautobot's schedules accept."""

from __future__ import annotations

from ai_ops.logic.foreign_text import shown

MINUTE, HOUR, DAY, WEEK = 60, 3600, 86_400, 604_800


def crontab_of(seconds: int) -> str:
    """Return the crontab for runs every `seconds` seconds.

    Args:
        seconds: A minute, an hour, a day or a week, or a divisor of an hour or a day.

    Raises:
        ValueError: No crontab can express the interval; the message is a sentence with the nearest intervals.
    """
    if isinstance(seconds, bool) or not isinstance(seconds, int):
        raise ValueError(f"An interval must be a whole number of seconds, not {shown(seconds)}.")
    crontab = _SAID.get(seconds)
    if crontab is None:
        shorter = max((each for each in _SAID if each < seconds), default=None)
        longer = min((each for each in _SAID if each > seconds), default=None)
        near = " or ".join(str(each) for each in (shorter, longer) if each is not None)
        raise ValueError(
            f"Runs {seconds} seconds apart can't be scheduled: Nautobot's schedules are crontabs, "
            f"whose shortest step is a minute and whose steps restart each hour and each day. Give {near}, or a "
            "crontab."
        )
    return crontab


def _crontabs() -> dict[int, str]:
    """Return a crontab for each interval that crontabs can express, by its length in seconds."""
    minutes = {step * MINUTE: f"*/{step} * * * *" for step in range(2, 60) if 60 % step == 0}
    hours = {step * HOUR: f"0 */{step} * * *" for step in range(2, 24) if 24 % step == 0}
    return {
        MINUTE: "* * * * *",
        **minutes,
        HOUR: "0 * * * *",
        **hours,
        DAY: "0 0 * * *",
        WEEK: "0 0 * * 0",
    }


_SAID = _crontabs()
