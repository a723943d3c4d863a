"""Retries of runs after infrastructure failures: the decision to retry, and the wait before it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

# Upper bound of the first wait. It doubles with each attempt, so five attempts take at most eight minutes.
BACKOFF_BASE_SECONDS = 30.0
# If Redis or the database is unavailable for hours, the run is retried hourly.
BACKOFF_CAP_SECONDS = 3600.0


@dataclass(frozen=True)
class TryAgain:
    """Retry the run.

    Attributes:
        seconds: Seconds to wait before the retry.
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
    """Decide whether and when to retry a run after an infrastructure failure.

    The wait is a uniform random number from zero to twice the last upper bound ("full jitter", Marc Brooker,
    "Exponential Backoff And Jitter", AWS Architecture Blog, 2015). So runs that failed at the same time are not retried
    at the same time.

    Args:
        attempt: The number of the failed attempt, from 1.
        limit: The maximum number of attempts.
        draw: Returns a random number from 0 (included) to 1 (excluded).
    """
    if attempt >= limit:
        return GiveUp(f"tried {attempt} time(s), which is the limit")
    bound = min(BACKOFF_CAP_SECONDS, BACKOFF_BASE_SECONDS * 2 ** (attempt - 1))
    return TryAgain(bound * draw())
