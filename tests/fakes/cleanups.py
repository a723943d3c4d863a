"""The cleanup on a Redis alone, and how often properties try it: no settings, no database, no record of a run."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import redis
from hypothesis import HealthCheck, settings

from ai_ops.checkpoints.cleanup import CleanupRun
from ai_ops.checkpoints.logic.keys import KeyParser
from ai_ops.checkpoints.logic.retention import DAY, RetentionPolicy
from ai_ops.checkpoints.redis.fence import Fence
from ai_ops.checkpoints.redis.store import CheckpointStore


def examples(usual: int) -> settings:
    """Return the settings of a property: `usual` examples, or the number in AI_OPS_EXAMPLES."""
    return settings(
        max_examples=int(os.environ.get("AI_OPS_EXAMPLES", usual)),
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def run_of(
    client: Any, policy: RetentionPolicy | None = None, *, fence: Fence | None = None, **options: Any
) -> CleanupRun:
    """Return a cleanup that was not begun yet, with a retention of thirty days unless a policy is given."""
    now = time.time()
    parser = KeyParser(now)
    store = CheckpointStore(client, parser, fence=fence)
    return CleanupRun(store, parser, policy or RetentionPolicy(30 * DAY, 30 * DAY), now, dryrun=False, **options)


def executed(client: Any, policy: RetentionPolicy | None = None, **options: Any) -> CleanupRun:
    """Clean up; return the run, with its tally."""
    run = run_of(client, policy, **options)
    run.execute()
    return run


def cleaned(
    client: Any,
    *,
    retention: float = 30 * DAY,
    keep_last: int = 1,
    pinned: frozenset[str] = frozenset(),
    **options: Any,
) -> CleanupRun:
    """Clean up; the run, with its tally. The retention is in seconds."""
    return executed(client, RetentionPolicy(retention, retention, keep_last=keep_last, pinned=pinned), **options)


def emptied(client: Any) -> Any:
    """The client, its database without a key. FLUSHDB would take the indexes of all databases of the server away."""
    client.unlink(*(client.keys() or ["none"]))
    return client


def tell_growth(port: int, password: str, answers: Any) -> None:
    """Clean up in this process, which is to have done nothing else, and tell how many bytes of memory that took."""
    with redis.Redis(port=port, password=password, db=1) as client:
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak until now
        before = _peak_memory()
        cleaned(client)
        answers.put(_peak_memory() - before)


def _peak_memory() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024
