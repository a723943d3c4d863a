"""Time limits of runs: which one applies, and how its signal is handled.

A run stops at the limit of its own, or else at that of its kind in the settings, or else at the Job's. The own one is a
property of the Celery message (`LIMIT_PROPERTY`), of a single run as of a schedule's.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery.exceptions import SoftTimeLimitExceeded

from ai_ops.config import AiOpsSettings

# Celery's worker sends the first; Nautobot sets the second for a Job that runs in the process that asked for it.
SIGNALS = (signal.SIGUSR1, signal.SIGALRM)
# Between the soft limit, at which a run ends by itself, and the hard one.
HARD_LIMIT_GRACE_SECONDS = 60


class StoppedByTimeLimitError(SoftTimeLimitExceeded):
    """The time limit ended a run.

    Attributes:
        report: The work done until then, as the run would have returned it.
    """

    def __init__(self, report: dict[str, Any]) -> None:
        super().__init__(report["error"])
        self.report = report


def limit_of(kind: str | None, own: float | None, settings: AiOpsSettings) -> float | None:
    """Return the time limit of a run in seconds; None if the Job's own limit applies.

    Args:
        kind: The kind of the run; None for that of another app's Job.
        own: The limit that the run, or its schedule, was given.
        settings: The settings, with a limit for some kinds.
    """
    return own or settings.time_limits.get(kind or "")


def message_limits(limit: float | None) -> dict[str, float]:
    """Return the soft and hard time limits of a Celery message; at the hard one the process is killed."""
    return {"soft_time_limit": limit, "time_limit": limit + HARD_LIMIT_GRACE_SECONDS} if limit else {}


@contextmanager
def defer_time_limit() -> Iterator[None]:
    """Defer the time limit to the end of the block, so that the work of the block is counted."""
    handlers: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        handlers = {each: signal.getsignal(each) for each in SIGNALS}
    arrived: list[tuple[Any, ...]] = []
    handlers = {number: handler for number, handler in handlers.items() if callable(handler)}
    for number in handlers:
        signal.signal(number, lambda *args: arrived.append(args))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if arrived:
        handlers[arrived[0][0]](*arrived[0])
