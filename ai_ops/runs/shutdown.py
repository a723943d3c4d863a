"""Shutdown signals of a run's process, so that the run can stop between two batches.

Celery's warm shutdown waits for tasks without notifying them, and the service manager kills the worker half a minute
later. The worker's main process receives the signal, but its children do the work. A byte of memory that is shared
since the fork passes the signal on. In other processes a SIGTERM would end the process immediately, so it is delayed
until the run has ended.

The children are notified when the loop of the main process has ended. The loop reads a result in parts, and at its end
it loses the part that it has read. The child then waits for half a minute for its result to be read, and the worker for
the child. A run stops within milliseconds, so its result would often arrive just at the end of the loop.
"""

from __future__ import annotations

import mmap
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery.bootsteps import RUN
from celery.signals import worker_init, worker_shutting_down

STOPPING = 1

# A broker wakes the loop each second. Children are notified after this time in any case, because the loop does not end
# while it waits for a broker, or while the main process itself does the work.
LOOP_SECONDS = 5.0
POLL_SECONDS = 0.05

# Anonymous shared memory: children forked after this line see the changes of their parent.
_shared = mmap.mmap(-1, 1)

# The worker of this process or of its parent; None in other processes.
_worker: Any = None


@worker_init.connect(weak=False)
def _share_with_own_children(sender: Any = None, **_: Any) -> None:
    """Reserve a new shared byte before forking children, because a worker may itself be a fork with siblings."""
    global _shared, _worker
    _shared = mmap.mmap(-1, 1)
    _worker = sender


@worker_shutting_down.connect(weak=False)
def _notify_children_soon(**_: Any) -> None:
    # Not in this thread: it runs the loop.
    threading.Thread(target=_notify_children, name="shutdown of runs", daemon=True).start()


def _notify_children() -> None:
    """Notify the children when the loop of the worker has ended, or after LOOP_SECONDS."""
    latest = time.monotonic() + LOOP_SECONDS
    while _is_in_its_loop() and time.monotonic() < latest:
        time.sleep(POLL_SECONDS)
    _shared[0] = STOPPING


def _is_in_its_loop() -> bool:
    blueprint = getattr(_worker, "blueprint", None)
    return blueprint is not None and blueprint.state == RUN


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
