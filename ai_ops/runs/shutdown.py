"""Shutdown signals of a run's process, so that the run can stop between two batches.

Celery's warm shutdown waits for tasks without notifying them, and the service manager kills the worker half a minute
later. The worker's main process receives the signal, but its children do the work. A byte of memory that is shared
since the fork passes the signal on. In other processes a SIGTERM would end the process immediately, so it is delayed
until the run has ended.
"""

from __future__ import annotations

import mmap
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery.signals import worker_init, worker_shutting_down

STOPPING = 1

# Anonymous shared memory: children forked after this line see the changes of their parent.
_shared = mmap.mmap(-1, 1)


@worker_init.connect(weak=False)
def _share_with_own_children(**_: Any) -> None:
    """Reserve a new shared byte before forking children, because a worker may itself be a fork with siblings."""
    global _shared
    _shared = mmap.mmap(-1, 1)


@worker_shutting_down.connect(weak=False)
def _notify_children(**_: Any) -> None:
    _shared[0] = STOPPING


def is_worker_stopping() -> bool:
    """Return whether the Celery worker of this process is shutting down."""
    return _shared[0] == STOPPING


@contextmanager
def sigterm_held_back() -> Iterator[threading.Event]:
    """Delay a SIGTERM until the end of the block. The block gets an event that is set by the signal.

    The event is never set if other code already handles SIGTERM, or outside the main thread.
    """
    came = threading.Event()
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield came
        return
    signal.signal(signal.SIGTERM, lambda *_: came.set())
    try:
        yield came
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if came.is_set():
            os.kill(os.getpid(), signal.SIGTERM)
