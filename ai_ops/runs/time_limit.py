"""Time limits of runs: the limit that applies, and the handling of its signal.

A run stops at its own limit, otherwise at the limit of its kind in the settings, otherwise at the Job's. The own limit
of a run or a schedule is a property of the Celery message (`LIMIT_PROPERTY`).
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery.exceptions import SoftTimeLimitExceeded

from ai_ops.config import AiOpsSettings

# Celery's worker sends the first signal. Nautobot sets the second for a Job that runs in the calling process.
SIGNALS = (signal.SIGUSR1, signal.SIGALRM)
# Seconds between the soft limit, at which a run ends by itself, and the hard limit.
HARD_LIMIT_GRACE_SECONDS = 60


class StoppedByTimeLimitError(SoftTimeLimitExceeded):
    """The time limit ended a run.

    Attributes:
        report: The report of the work done until then.
    """

    def __init__(self, report: dict[str, Any]) -> None:
        super().__init__(report["error"])
        self.report = report


def limit_of(kind: str | None, own: float | None, settings: AiOpsSettings) -> float | None:
    """Return the time limit of a run in seconds; None if the Job's own limit applies.

    Args:
        kind: The kind of the run; None for a Job of another app.
        own: The own limit of the run or its schedule.
        settings: The settings, with the limits of some kinds.
    """
    return own or settings.time_limits.get(kind or "")


def message_limits(limit: float | None) -> dict[str, float]:
    """Return the soft and hard time limits of a Celery message; at the hard limit the process is killed."""
    return {"soft_time_limit": limit, "time_limit": limit + HARD_LIMIT_GRACE_SECONDS} if limit else {}


@contextmanager
def defer_time_limit() -> Iterator[None]:
    """Delay the time limit until the end of the block, so that the work of the block is counted."""
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
