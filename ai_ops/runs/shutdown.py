"""Shutdown signals of a run's process, noticed in time to stop between two batches.

Celery's warm shutdown lets tasks finish and tells them nothing; the service manager kills the worker half a minute
later. Its main process hears the signal, the work is done in its children: one byte of memory that they share
since they were forked passes it on. Elsewhere a SIGTERM would end the process at once; during a run it is held
back until the run has ended.
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

# Anonymous and shared: children that are forked after this line see what their parent writes.
_shared = mmap.mmap(-1, 1)


@worker_init.connect(weak=False)
def _share_with_own_children(**_: Any) -> None:
    """Reserve another shared byte before forking children: a worker may itself be a fork with siblings."""
    global _shared
    _shared = mmap.mmap(-1, 1)


@worker_shutting_down.connect(weak=False)
def _tell_children(**_: Any) -> None:
    _shared[0] = STOPPING


def is_worker_stopping() -> bool:
    """Return whether the Celery worker of this process is shutting down."""
    return _shared[0] == STOPPING


@contextmanager
def sigterm_held_back() -> Iterator[threading.Event]:
    """Hold SIGTERM back during the block, and deliver it afterwards. The block gets an event that tells of one.

    Where other code handles SIGTERM already, or off the main thread, the event is never set.
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
