"""The Job's soft time limit, which comes as a signal, at any moment."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery.exceptions import SoftTimeLimitExceeded

# Celery's worker sends the first; Nautobot sets the second for a Job that runs in the process that asked for it.
SIGNALS = (signal.SIGUSR1, signal.SIGALRM)


class StoppedByTimeLimitError(SoftTimeLimitExceeded):
    """The time limit ended a run.

    Attributes:
        report: What was done until then, as the run would have returned it.
    """

    def __init__(self, report: dict[str, Any]) -> None:
        super().__init__(report["error"])
        self.report = report


@contextmanager
def whole() -> Iterator[None]:
    """Let the time limit wait for the end of the block: what is done in it is then counted too."""
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
