"""Retries of runs that failed for infrastructure reasons: the decision to retry, and the wait before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

# The bound of the first wait doubles with each attempt: five attempts are over within eight minutes.
BACKOFF_BASE_SECONDS = 30.0
# A Redis or a database that is away for hours is asked once an hour, not once a night.
BACKOFF_CAP_SECONDS = 3600.0


@dataclass(frozen=True)
class TryAgain:
    """Try the run again.

    Attributes:
        seconds: Seconds to wait before.
    """

    seconds: float


@dataclass(frozen=True)
class GiveUp:
    """Give up: the run becomes dead.

    Attributes:
        why: The reason, as a clause.
    """

    why: str


def after_failure(attempt: int, limit: int, draw: Callable[[], float]) -> TryAgain | GiveUp:
    """Decide whether and when to retry a run that failed for infrastructure reasons.

    The wait is drawn evenly from zero to twice the last upper bound ("full jitter", Marc Brooker, "Exponential
    Backoff And Jitter", AWS Architecture Blog, 2015), so that runs that failed together do not come back together.

    Args:
        attempt: The number of the attempt that has failed, from 1.
        limit: The largest number of attempts.
        draw: Returns a number from 0 up to, but without, 1.
    """
    if attempt >= limit:
        return GiveUp(f"tried {attempt} time(s), which is the limit")
    bound = min(BACKOFF_CAP_SECONDS, BACKOFF_BASE_SECONDS * 2 ** (attempt - 1))
    return TryAgain(bound * draw())
